"""Where the configuration is, and whether what stands there may be trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sshvpn.config.entries import Config
from sshvpn.config.schema import parse
from sshvpn.errors import ConfigError

SIZE_MAX = 1 << 20
"""Bytes; a configuration of more is something else."""

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def config_path() -> Path:
    """Return where the configuration is or would be (cli.md, "Files"); it need not exist."""
    named = os.environ.get("SSHVPN_CONFIG", "")
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # XDG Base Directory Specification: a path that is not absolute is to be ignored.
    directory = Path(base) if base.startswith("/") else _home() / ".config"
    return directory / "sshvpn" / "config.toml"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise ConfigError("this user has no home directory", "set SSHVPN_CONFIG") from error


def load(path: Path | None = None) -> Config:
    """Read and check the configuration at ``path`` (None: the user's).

    No file is an empty Config. Raises ConfigError for one that is wrong, that somebody else
    could have written, or that cannot be read.
    """
    file = config_path() if path is None else path
    text = read_text(file)
    return Config() if text is None else parse(text, file)


def read_text(file: Path) -> str | None:
    """Return the text of ``file``, or None where there is none. Raises ConfigError as load does."""
    data = _read_bytes(file)
    if data is None:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: not UTF-8", "save it as UTF-8") from error


def _read_bytes(file: Path) -> bytes | None:
    if str(file) == os.devnull:
        return None
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as opened:
            _check_trust(file, os.fstat(descriptor))
            data = opened.read(SIZE_MAX + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{file}: cannot be read: {reason}", "look at its path") from error
    if len(data) > SIZE_MAX:
        raise ConfigError(
            f"{file}: larger than {SIZE_MAX} bytes", "look whether it is the right one"
        )
    return data


def _check_trust(file: Path, found: os.stat_result) -> None:
    """Raise ConfigError unless only its owner, who is this user or root, can change ``file``.

    Whoever can write the directory can put another file there: it counts too, that of the name
    and, behind a symbolic link, that of the file; but not where the sticky bit forbids it.
    """
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise ConfigError(f"{file}: {kind}", "set SSHVPN_CONFIG to a file, or remove it")
    if found.st_uid not in (0, os.getuid()):
        raise ConfigError(
            f"{file}: belongs to another user (uid {found.st_uid})",
            "only a file of yours or of root's is read: copy it, or chown it",
        )
    writable = [str(file)] if found.st_mode & _OTHERS_MAY_WRITE else []
    for directory in dict.fromkeys((file.parent, Path(os.path.realpath(file)).parent)):
        place = directory.stat()
        if place.st_uid not in (0, os.getuid()):
            raise ConfigError(
                f"{file}: stands in a directory of another user (uid {place.st_uid})",
                "only a file in a directory of yours or of root's is read: copy it to one",
            )
        if place.st_mode & _OTHERS_MAY_WRITE and not place.st_mode & stat.S_ISVTX:
            writable.append(str(directory))
    if writable:
        what = "it" if writable[0] == str(file) else "its directory"
        raise ConfigError(
            f"{file}: others can write {what}, and it says where you log in",
            f"close it: chmod go-w {' '.join(writable)}",
        )

"""The host's configuration where there is no ``ssh`` to ask: paramiko reads the files.

It knows Host and Match, but neither Include nor defaults. Includes that stand before any Host
or Match are read in; one inside a block would hold for that block alone, and is refused.
"""

from __future__ import annotations

import getpass
import glob
import re
from collections.abc import Iterator
from pathlib import Path

from sshvpn.errors import ConfigError, UsageError
from sshvpn.model import Destination, SshOptions
from sshvpn.system.paths import home
from sshvpn.system.ssh.config import Config

_DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")
_SYSTEM = Path("/etc/ssh")
_DEEPEST = 16
"""As deep as ssh follows Include (READCONF_MAX_DEPTH)."""
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*?)\s*")


def resolve_without_ssh(destination: Destination, ssh_options: SshOptions) -> Config:
    """Return what holds for ``destination``, in the shape of ssh_config.resolve().

    The first value wins: the command line, then the user's file, then the system's; with
    ``-F`` that file alone (ssh(1)). Raises ConfigError for a file that cannot be read or
    understood, UsageError for what needs ssh.
    """
    import paramiko

    values = _command_line(destination, ssh_options)
    for file in _files(ssh_options):
        parser = paramiko.SSHConfig()
        try:
            parser.parse(_read(file, depth=0))
            found = parser.lookup(destination.host)
        except (paramiko.SSHException, ImportError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{file}: {error}", "install openssh-client, which reads it"
            ) from error
        for key, value in found.items():
            given = tuple(value) if isinstance(value, list) else (str(value),)
            values[key] = (
                values[key] + given if key in _LISTS and key in values else (values.get(key, given))
            )
    return {**_defaults(destination), **values}


_LISTS = ("identityfile", "certificatefile")


def _command_line(destination: Destination, options: SshOptions) -> dict[str, tuple[str, ...]]:
    values: dict[str, tuple[str, ...]] = {"host": (destination.host,)}
    if destination.user is not None:
        values["user"] = (destination.user,)
    if destination.port is not None:
        values["port"] = (str(destination.port),)
    if options.identity_files:
        values["identityfile"] = options.identity_files
    if options.jump is not None:
        values["proxyjump"] = (options.jump,)
    for key, value in options.options:
        values.setdefault(key.lower(), (value,))
    return values


def _defaults(destination: Destination) -> dict[str, tuple[str, ...]]:
    directory = home() / ".ssh"
    return {
        "hostname": (destination.host,),
        "user": (getpass.getuser(),),
        "port": ("22",),
        "identityfile": tuple(str(directory / name) for name in _DEFAULT_KEYS),
        "userknownhostsfile": (f"{directory}/known_hosts {directory}/known_hosts2",),
        "globalknownhostsfile": (f"{_SYSTEM}/ssh_known_hosts {_SYSTEM}/ssh_known_hosts2",),
    }


def _files(options: SshOptions) -> tuple[Path, ...]:
    if options.config_file is not None:
        return () if options.config_file == "none" else (Path(options.config_file),)
    usual = (home() / ".ssh" / "config", _SYSTEM / "ssh_config")
    return tuple(file for file in usual if file.exists())


def _read(file: Path, depth: int) -> Iterator[str]:
    """Yield the lines of ``file`` with those of its Includes in their places."""
    if depth > _DEEPEST:
        raise ConfigError(f"{file}: too many Includes within each other")
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    is_in_block = False
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        keyword = match[1].lower() if match else ""
        if match is None or keyword != "include":
            is_in_block = is_in_block or keyword in ("host", "match")
            yield line + "\n"
            continue
        if is_in_block:
            raise UsageError(
                f"{file}:{number}: an Include inside a Host or Match needs ssh to be read",
                "install openssh-client, or move it before the first Host",
            )
        for included in _included(match[2], file):
            yield from _read(included, depth + 1)
            yield "Host *\n"  # what the included file began ends with it


def _included(patterns: str, file: Path) -> Iterator[Path]:
    base = _SYSTEM if file.is_relative_to(_SYSTEM) else home() / ".ssh"
    for pattern in patterns.split():
        whole = str(base / Path(pattern.strip('"')).expanduser())
        yield from (Path(found) for found in sorted(glob.glob(whole)))  # noqa: PTH207 (absolute)

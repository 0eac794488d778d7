"""Where things are kept: run time, state, and nothing else.

A run-time directory is used only when it is the user's own and closed to others: what stands
in it (control sockets, locks) is trusted.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sshvpn.errors import SshvpnError

SERVICES = Path("/run/sshvpn-service")
"""Below it each system service has a run-time directory of its user's (RuntimeDirectory=)."""


def runtime_dirs() -> tuple[Path, ...]:
    """Return the places where running things of this user may be found, the preferred first.

    A system service has its own, which systemd made (``$RUNTIME_DIRECTORY``). Root has
    ``/run/sshvpn``; everybody else ``$XDG_RUNTIME_DIR/sshvpn`` and ``/tmp/sshvpn-UID``: a login
    without the first (cron, su) uses the second, and ``status`` must find what any of them began.
    """
    uid = os.getuid()
    own = os.environ.get("RUNTIME_DIRECTORY", "")
    candidates = []
    if own.startswith("/") and _is_own_directory(Path(own)):
        candidates.append(Path(own) / "sshvpn")
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(session) if session.startswith("/") else Path(f"/run/user/{uid}")
    if uid == 0:
        candidates.append(Path("/run/sshvpn"))
    elif _is_own_directory(base):
        candidates.append(base / "sshvpn")
    if uid != 0:
        candidates.append(Path(f"/tmp/sshvpn-{uid}"))  # noqa: S108 (owner and mode are checked)
    return (*dict.fromkeys((*candidates, *_of_services())),)


def _of_services() -> list[Path]:
    try:
        found = sorted(SERVICES.iterdir())
    except OSError:
        return []
    return [path / "sshvpn" for path in found if _is_own_directory(path)]


def runtime_dir() -> Path:
    """Make the run-time directory if need be, and return it: mode 0700, owned by this user.

    Raises SshvpnError where somebody else has made it or others can enter it.
    """
    directory = runtime_dirs()[0]
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SshvpnError(
            f"cannot make the run-time directory {directory}: {error.strerror}",
            "set XDG_RUNTIME_DIR to a directory of your own"
            if os.getuid()
            else f"root has no other: it must be writable; see: ls -ld {directory.parent}",
        ) from error
    if not is_private(directory):
        raise SshvpnError(
            f"{directory} is not a directory of yours that is closed to others",
            f"look who made it, then: chmod 700 {directory}",
        )
    return directory


def state_dir() -> Path:
    """Return ``$XDG_STATE_HOME/sshvpn`` (default ``~/.local/state/sshvpn``), made 0700."""
    session = os.environ.get("XDG_STATE_HOME", "")
    base = Path(session) if session.startswith("/") else home() / ".local" / "state"
    directory = base / "sshvpn"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SshvpnError(
            f"cannot make the state directory {directory}: {error.strerror}",
            "set XDG_STATE_HOME to a directory of your own",
        ) from error
    return directory


def log_dir() -> Path:
    """Return the directory of the logs, one file a session, made 0700."""
    directory = state_dir() / "log"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def home() -> Path:
    """Return this user's home directory: ``$HOME``, else what passwd(5) says."""
    return Path("~").expanduser()


def is_private(directory: Path) -> bool:
    """Whether ``directory`` is a directory of this user's that others cannot enter."""
    return _is_own_directory(directory) and not stat.S_IMODE(directory.lstat().st_mode) & 0o077


def _is_own_directory(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()

"""Where the sessions of this user are, and their logs."""

from __future__ import annotations

import re
from pathlib import Path

from sshvpn.control import AlreadyUpError, SessionDir, is_alive, session_id
from sshvpn.model import ForwardProfile, TunnelProfile
from sshvpn.system import paths

Profile = ForwardProfile | TunnelProfile


def runtimes() -> tuple[Path, ...]:
    """Return the directories where running sessions may be found."""
    return paths.runtime_dirs()


def log_dir() -> Path:
    """Return the directory of the logs."""
    return paths.log_dir()


def log_file(kind: str, name: str) -> Path:
    """Return the file of a session's log."""
    return paths.log_dir() / f"{kind}-{re.sub(r'[^A-Za-z0-9._@-]', '_', name)[:100]}.log"


def session_path(profile: Profile) -> Path:
    """Return the run-time directory of ``profile``'s session, there or not; makes nothing.

    One that lives goes first, wherever it is: a service has a place of its own.
    """
    name = f"{_kind(profile)}-{session_id(profile)}"
    living = next((base / name for base in runtimes() if is_alive(base / name)), None)
    if living is not None:
        return living
    base = paths.runtime_dirs()[0]
    if base.exists():
        base = paths.runtime_dir()  # which looks whose it is
    return base / name


def _kind(profile: Profile) -> str:
    return "tunnel" if isinstance(profile, TunnelProfile) else "forward"


class SessionDirOf(SessionDir):
    """The locked run-time directory of ``profile``'s session.

    Raises AlreadyUpError where it lives in any of this user's run-time directories.
    """

    def __init__(self, profile: Profile) -> None:
        if is_alive(living := session_path(profile)):
            raise AlreadyUpError(living)
        super().__init__(paths.runtime_dir(), _kind(profile), session_id(profile))

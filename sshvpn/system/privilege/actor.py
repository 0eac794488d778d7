"""For whom a process acts: ``sudo sshvpn up`` is the tunnel of the user who called sudo.

A system service says it itself: it is started as root, with a user to become.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from sshvpn.errors import PrivilegeError

_OF_ROOT = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
_LARGEST = 0xFFFFFFFE
SERVICE_UID = "SSHVPN_SERVICE_UID"
"""The variable by which a unit says for whom it acts."""


def is_service() -> bool:
    """Whether this is a system service of ours, which was started as root for a user."""
    return SERVICE_UID in os.environ


def caller() -> int | None:
    """Return the user for whom root acts: who called sudo, or the one of a service.

    None where this is not root, or acts for root himself.
    """
    text = os.environ.get(SERVICE_UID) or os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not (text.isascii() and text.isdecimal()):
        return None
    uid = int(text)
    return uid if 0 < uid <= _LARGEST else None


def become_caller() -> None:
    """Become the user who is acted for, for good: his groups, home and run-time directory.

    Nothing happens where there is none. Raises PrivilegeError for a user without an account.
    To be called before any file of that user is read: root reads none.
    """
    uid = caller()
    if uid is None:
        return
    try:
        account = pwd.getpwuid(uid)
    except KeyError as error:
        raise PrivilegeError(f"user {uid} has no account on this machine") from error
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(uid, uid, uid)
    os.environ.update({"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name})
    for name in (*_OF_ROOT, *(name for name in os.environ if name.startswith("SUDO_"))):
        os.environ.pop(name, None)
    runtime = Path(f"/run/user/{uid}")
    os.environ.pop("XDG_RUNTIME_DIR", None)
    if runtime.is_dir():
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    _keep_own_agent(uid)


def _keep_own_agent(uid: int) -> None:
    """Forget an SSH agent that is somebody else's."""
    path = os.environ.get("SSH_AUTH_SOCK")
    if path is None:
        return
    try:
        is_own = Path(path).stat().st_uid == uid
    except OSError:
        is_own = False
    if not is_own:
        del os.environ["SSH_AUTH_SOCK"]

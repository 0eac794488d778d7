"""A user's service that does without the namespaces of its sandbox, since they are in its way.

One drop-in says so: a lasting one where `enable` has found it, and one until the next boot where a
service that has worked fails of it. The former comes before the latter, as both have one name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sshvpn.errors import AuthenticationError, FileOwnerError, SshvpnError, UsageError
from sshvpn.services import Kind, reading, without_namespaces
from sshvpn.system.systemd import users

NO_NAMESPACES = {217: "USER", 218: "CAPABILITIES", 226: "NAMESPACE"}
"""How a unit ends whose manager could not make them (systemd.exec(5), PROCESS EXIT CODES)."""
MAY_BE_OF_THEM = {"no_namespaces", FileOwnerError.code, AuthenticationError.code}
"""The codes of a login's errors that namespaces can be the reason of: a key may be out of reach."""
_KERNELS = "the kernel lets this user have none ({0}/{1})"
_SSH_FAILED = 255
_FILES = "ssh does not read its configuration within them"
_NAME = "10-sshvpn.conf"
"""Before `override.conf`, which is `systemctl edit`'s: that has the last word."""


def lasting(kind: Kind, name: str) -> Path:
    """Return the drop-in that `enable` writes."""
    return users.units() / f"{kind.unit_of(name)}.d" / _NAME


def until_boot(kind: Kind, name: str) -> Path:
    """Return the drop-in that is written when a service fails."""
    return users.units_until_boot() / f"{kind.unit_of(name)}.d" / _NAME


def refused_by_kernel(status: int) -> dict[str, Any]:
    """Return the error of a unit that ended with STATUS, one of :data:`NO_NAMESPACES`."""
    message = _KERNELS.format(status, NO_NAMESPACES[status])
    return {
        "exit_code": SshvpnError.exit_code, "code": "no_namespaces", "message": message, "hint": "",
    }  # fmt: skip


def fit(kind: Kind, name: str, ssh_words: Sequence[str]) -> str | None:
    """Let the service NAME, which has just ended, do without namespaces if it ended of them.

    Return why, None where it did not. How it ended is in the environment, as ExecStopPost= has it
    (systemd.exec(5)). That alone decides nothing, since what runs in the sandbox could end so,
    too: whether ssh reads its configuration is looked at within it, and outside, for SSH_WORDS, by
    which the service calls it.
    """
    ended = os.environ.get("EXIT_STATUS", "")
    status = int(ended) if ended.isdecimal() else 0
    if os.environ.get("EXIT_CODE") != "exited" or status not in (
        UsageError.exit_code,
        *NO_NAMESPACES,
    ):
        return None
    if lasting(kind, name).exists() or until_boot(kind, name).exists():
        return None
    once = f"sshvpn-reading-{os.getpid()}"
    within, _ = users.run_once(once, reading(kind, ssh_words, has_namespaces=True))
    if within not in (_SSH_FAILED, *NO_NAMESPACES):  # it reads; or it took too long, and who knows
        return None
    if users.run_once(once, reading(kind, ssh_words, has_namespaces=False))[0] != 0:
        return None
    why = _KERNELS.format(within, NO_NAMESPACES[within]) if within in NO_NAMESPACES else _FILES
    path = until_boot(kind, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(without_namespaces(kind, why), "utf-8")
    users.systemctl("daemon-reload")
    if status == UsageError.exit_code:  # RestartPreventExitStatus= has it; else it starts again
        users.systemctl("restart", "--no-block", kind.unit_of(name))
    return why

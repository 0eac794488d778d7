"""Commands of sshvpn in a process tree where the kernel lends nobody ssh's socket.

As in a container: pidfd_getfd(2) is refused, by a real filter of system calls.
"""

from __future__ import annotations

import subprocess
import sys

from tests.lab.contents import ALICE
from tests.lab.lab import Lab
from tests.lab.machine import HERE

PIDFD_GETFD = "438"


def filtered(lab: Lab, *args: str, group: str = "") -> list[str]:
    """Return what root runs so that alice runs `sshvpn ARGS`, without pidfd_getfd(2), in GROUP."""
    environment = {**lab.gateway.env("alice"), "HOME": ALICE.home}
    words = [f"{name}={value}" for name, value in environment.items()]
    enter = f"echo $$ >{group}/cgroup.procs && " if group else ""
    refuse = [sys.executable, "-I", "-S", str(HERE / "_refuse.py"), PIDFD_GETFD]
    as_alice = ["runuser", "-u", "alice", "--", "env", *words, *lab.sshvpn_argv(*args)]
    return ["sh", "-c", f'{enter}exec "$@"', "sh", *refuse, *as_alice]


def sshvpn(
    lab: Lab, *args: str, group: str = "", check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `sshvpn ARGS` as alice, as :func:`filtered`."""
    words = filtered(lab, *args, group=group)
    return lab.gateway.run(words, user="root", cwd=ALICE.home, check=check, timeout=60)

"""The journal of systemd: whether this process writes into it, and what it holds of a service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sshvpn.errors import SshvpnError

_STDERR = 2


def is_stderr(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to stderr goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(_STDERR)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))


def print_unit(unit: str, *, is_users: bool, follow: bool) -> None:
    """Let journalctl(1) print what it has of ``unit``, a user's own or the system's.

    ``follow``: until it is interrupted. Raises SshvpnError where it has nothing that this user
    may read.
    """
    program = shutil.which("journalctl")
    if program is None:
        raise SshvpnError("there is no journalctl on this machine", "install systemd's tools")
    of = "--user-unit" if is_users else "--unit"
    words = [program, "--quiet", "--no-pager", "--output", "short-iso", of, unit]
    if follow:
        words += ["--lines", "all", "--follow"]
    sys.stdout.flush()  # what was printed before comes first
    done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SshvpnError(
            f"the journal of {unit} cannot be read",
            f"as an administrator: journalctl {of} {unit}",
        )


def own_unit(pid: str = "self") -> str | None:
    """Return the name of the systemd service that process ``pid`` is part of, None for none.

    By its control group, whose path ends in the service, or in what the service made below it.
    """
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text("ascii").splitlines()
    except OSError:
        return None
    for line in groups:
        number, controllers, path = line.split(":", 2)
        if (number, controllers) == ("0", "") or controllers == "name=systemd":
            services = [part for part in path.split("/") if part.endswith(".service")]
            if services:
                return services[-1]
    return None

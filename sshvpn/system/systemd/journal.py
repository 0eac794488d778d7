"""The journal of systemd: whether this process writes into it, and what it holds of a service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from sshvpn.errors import SshvpnError

_STDERR = 2
_LAST_WORDS_S = 0.5
_ENDED = ("inactive", "failed")
"""What is being started again after a crash has not ended."""


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


def print_unit(unit: str, *, is_users: bool) -> None:
    """Let journalctl(1) print what it has of ``unit``, a user's own or the system's.

    Raises SshvpnError where it has nothing that this user may read.
    """
    words = _words(unit, is_users=is_users)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise _unreadable(unit, is_users=is_users)


class Follower:
    """A journalctl(1) that prints what it has of ``unit``, and what comes. Close it."""

    def __init__(self, unit: str, *, is_users: bool) -> None:
        self._unit = unit
        self._is_users = is_users
        words = [*_words(unit, is_users=is_users), "--lines", "all", "--follow"]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL)

    def is_over(self) -> bool:
        """Whether the unit has ended, and will not be started again by itself.

        Raises SshvpnError as :func:`print_unit`.
        """
        if self._process.poll():
            raise _unreadable(self._unit, is_users=self._is_users)
        manager = ["--user"] if self._is_users else []
        words = ["systemctl", *manager, "is-active", self._unit]
        asked = subprocess.run(words, capture_output=True, text=True, check=False)
        if asked.stdout.strip() not in _ENDED:
            return False
        time.sleep(_LAST_WORDS_S)  # they are still on their way through the journal
        self.close()
        return True

    def close(self) -> None:
        """Print no more. Twice is fine."""
        self._process.terminate()
        self._process.wait()


def _words(unit: str, *, is_users: bool) -> list[str]:
    program = shutil.which("journalctl")
    if program is None:
        raise SshvpnError("there is no journalctl on this machine", "install systemd's tools")
    sys.stdout.flush()  # what was printed before comes first
    return [program, "--quiet", "--no-pager", "--output", "short-iso", _of(is_users), unit]


def _of(is_users: bool) -> str:
    return "--user-unit" if is_users else "--unit"


def _unreadable(unit: str, *, is_users: bool) -> SshvpnError:
    return SshvpnError(
        f"the journal of {unit} cannot be read",
        f"as an administrator: journalctl {_of(is_users)} {unit}",
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

"""The supervisor's side of the privileged helper: starts it, and asks it for changes.

::

    sshvpn up, at the terminal ── sudo ── helper (root, CAP_NET_ADMIN)
          │                                 ║
          └── supervisor (the user) ════ socketpair

sudo asks where the person sits, and ends at once: the helper leaves it, and only the socket holds
it. It tears the tunnel's local end down when the socket ends, so nothing here needs to be called
for that: it is enough that the process that has the socket ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sshvpn
from sshvpn.errors import (
    NotRunningError,
    PrivilegeError,
    SshvpnError,
    TakenError,
    UsageError,
)
from sshvpn.plan.codec import from_record, to_record
from sshvpn.plan.request import Facts
from sshvpn.plan.state import NetworkState
from sshvpn.plan.steps import Step

PROMPT = "sshvpn makes a network device, routes and firewall rules; [sudo] password for %p: "
_SUDO = ("/usr/bin/sudo", "/bin/sudo", "/usr/local/bin/sudo")
_MAIN = Path(sshvpn.__file__).resolve().parent / "privileged" / "main.py"
_END_TIMEOUT_S = 30.0
_KEPT = ("LANG", "PATH", "HOME", "TERM")
_KINDS: Mapping[str, type[SshvpnError]] = {
    kind.code: kind for kind in (UsageError, PrivilegeError, TakenError, NotRunningError)
}


class Helper:
    """A running helper. Its methods block for as long as the kernel takes (milliseconds).

    May be used from several threads; one asks at a time.
    """

    def __init__(self, peer: socket.socket, pid: int | None = None) -> None:
        self._peer = peer
        self._lines = peer.makefile("rb")
        self._lock = threading.Lock()
        self.pid = pid
        """The helper's process; None in one that was handed on."""

    @classmethod
    def start(
        cls,
        *,
        at_terminal: bool = False,
        askpass: Mapping[str, str] | None = None,
        uid: int | None = None,
    ) -> Helper:
        """Start it, and return it when it answers; blocks for as long as a person types.

        As root it is started at once and acts for user ``uid`` (default: root). Else by sudo,
        which asks ``at_terminal``, or by the program of ``askpass`` (SUDO_ASKPASS and the
        variables that it wants; default: the caller's), else nobody. Raises PrivilegeError.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        words, environment = _command(askpass, uid, at_terminal=at_terminal)
        with theirs:
            process = subprocess.Popen(
                words,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                # What sudo says while it asks is for the person who is asked.
                stderr=None if at_terminal else subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=not at_terminal,
            )
        helper = cls(ours)
        try:
            helper.pid = int(helper._receive()["pid"])
        except (SshvpnError, OSError) as error:
            helper._let_go()
            raise _why(process, can_ask=at_terminal or "-A" in words) from error
        process.wait(_END_TIMEOUT_S)  # it has left whatever started it
        if process.stderr is not None:
            process.stderr.close()
        return helper

    @classmethod
    def from_socket(cls, peer: socket.socket) -> Helper:
        """Return the helper at the other end of a socket that :meth:`detach` gave."""
        return cls(peer)

    def detach(self) -> socket.socket:
        """Return the socket, to be handed to another process; this object is done."""
        peer = self._peer.dup()
        self._let_go()
        return peer

    def open(self, label: str) -> int:
        """Begin with the tunnel ``label``, and return its unit.

        What an earlier one of that label left is swept. Raises TakenError where it is up.
        """
        return int(self._ask(op="open", label=label)["unit"])

    def facts(self) -> Facts:
        """Return what this machine is like."""
        facts: Facts = from_record(Facts, self._ask(op="facts")["facts"])
        return facts

    def read(self) -> NetworkState:
        """Return what the tunnel has in the kernel now."""
        state: NetworkState = from_record(NetworkState, self._ask(op="read")["state"])
        return state

    def apply(self, steps: Sequence[Step]) -> None:
        """Make the steps, all or none. Raises an SshvpnError that names the one that failed."""
        if steps:
            self._ask(op="apply", steps=[to_record(step) for step in steps])

    def enclose(self, pid: int) -> str:
        """Put a process of the tunnel's user, and all that it starts, into the tunnel's cgroup.

        Returns its path below /sys/fs/cgroup. Raises PrivilegeError where there can be none.
        """
        return str(self._ask(op="enclose", pid=pid)["cgroup"])

    def sweep(self) -> tuple[list[str], list[str]]:
        """Remove what dead helpers of this user left: the labels, and what failed."""
        answer = self._ask(op="sweep")
        return list(answer["swept"]), list(answer["failed"])

    def close(self) -> list[str]:
        """Tear the tunnel's end down, end the helper, and return what failed; twice is fine."""
        failed: list[str] = []
        if self._peer.fileno() >= 0:
            try:
                failed = list(self._ask(op="close")["failed"])
            except NotRunningError:
                failed = ["the helper was gone: what it left is removed by sshvpn clean"]
            else:
                # It closes its end when all is gone.
                self._peer.settimeout(_END_TIMEOUT_S)
                with contextlib.suppress(OSError):
                    self._lines.read()
            self._let_go()
        return failed

    def _let_go(self) -> None:
        self._lines.close()
        self._peer.close()

    def _ask(self, **request: object) -> dict[str, Any]:
        with self._lock:
            try:
                self._peer.sendall(json.dumps(request).encode() + b"\n")
                return self._receive()
            except (OSError, ValueError) as error:
                raise _gone() from error

    def _receive(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise _gone()
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            error = answer["error"]
            raise _KINDS.get(error["code"], SshvpnError)(error["message"], error["hint"])
        return answer


def _why(process: subprocess.Popen[bytes], *, can_ask: bool) -> PrivilegeError:
    """Return why it did not start, in sudo's words where it said any that were not shown."""
    _, said = process.communicate()
    lines = (said or b"").decode(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else "sudo did not give it"
    hint = "" if can_ask else "run it at a terminal, or let sudo run it without a password"
    return PrivilegeError(f"no privilege to change the network: {reason}", hint)


def _command(
    askpass: Mapping[str, str] | None, uid: int | None, *, at_terminal: bool
) -> tuple[list[str], dict[str, str]]:
    # -I: nothing of the caller's environment or directory decides what root imports.
    program = [sys.executable, "-I", str(_MAIN)]
    environment = {k: v for k, v in os.environ.items() if k in _KEPT}
    if os.geteuid() == 0:
        return program, {**environment, "SUDO_UID": str(uid or 0)}
    sudo = next((path for path in _SUDO if os.access(path, os.X_OK)), None)
    if sudo is None:
        raise PrivilegeError("changing the network needs root, and there is no sudo", "run as root")
    if askpass is None and "SUDO_ASKPASS" in os.environ:
        askpass = os.environ
    how = [] if at_terminal else ["-n"] if askpass is None else ["-A"]
    words = [sudo, *how, "-p", PROMPT, "--", *program]
    return words, {**environment, **(askpass or {})}


def _gone() -> NotRunningError:
    return NotRunningError("the privileged helper has ended", "sshvpn clean removes what it left")

"""The supervisor's side of the privileged helper: starts it, and asks it for changes.

::

    sshvpn up, at the terminal ── sudo ── helper (root, CAP_NET_ADMIN)
          │                                 ║
          └── supervisor (the user) ════ socketpair

sudo asks where the person sits, and ends at once: the helper leaves it, and only the socket holds
it. It tears the tunnel's local end down when the socket ends, so nothing here needs to be called
for that: it is enough that the process that has the socket ends.

What steps and states look like is imported where one is sent: who starts a helper for another
process sends none.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sshvpn.privileged.guard import SWEPT
from sshvpn.system.privilege.root_process import (
    HelperGoneError,
    checked,
    gone,
    request_line,
    start_as_root,
)
from sshvpn.system.privilege.sudo import PROMPT

if TYPE_CHECKING:
    from sshvpn.plan.request import Facts
    from sshvpn.plan.state import NetworkState
    from sshvpn.plan.steps import Step

__all__ = ["Helper", "HelperGoneError"]

_END_TIMEOUT_S = 30.0
_LONGEST_ANSWER = 4096


class Helper:
    """A running helper. Its methods block for as long as the kernel takes (milliseconds).

    May be used from several threads; one asks at a time.
    """

    def __init__(self, peer: socket.socket, pid: int | None = None) -> None:
        self._peer = peer
        self._lines = peer.makefile("rb")
        self._lock = threading.Lock()
        self._guard: socket.socket | None = None
        self.pid = pid
        """The helper's process; None in one that was handed on."""

    @classmethod
    def start(
        cls, *, at_terminal: bool = False, uid: int | None = None, asks: bool = True
    ) -> Helper:
        """Start it, and return it when it greets; blocks for as long as a person types.

        As root it is started at once and acts for user ``uid`` (default: root). Else by sudo,
        which asks ``at_terminal``, or by the program of ``$SUDO_ASKPASS``, else nobody, and
        without ``asks`` nobody. Raises PrivilegeError. Interrupted, nothing is left.
        """
        peer, greeting, sudo = start_as_root(
            "main.py", PROMPT, at_terminal=at_terminal, uid=uid, asks=asks
        )
        sudo.end()
        return cls(peer, int(greeting["pid"]))

    @classmethod
    def from_socket(cls, peer: socket.socket) -> Helper:
        """Return the helper at the other end of a socket that :meth:`detach` gave."""
        return cls(peer)

    def detach(self) -> socket.socket:
        """Return the socket, to be handed to another process; this object is done."""
        peer = self._peer.dup()
        self.let_go()
        return peer

    def fileno(self) -> int:
        """Return the descriptor of the socket, to be watched for its end only."""
        return self._peer.fileno()

    def open(self, label: str, unit: int | None = None) -> int:
        """Begin with the tunnel ``label``, and return its unit.

        What an earlier one of that label left is swept; with ``unit`` it is taken over instead,
        as it stands. Raises TakenError where it is up, UsageError where there is nothing of it.
        """
        what: dict[str, object] = {} if unit is None else {"unit": unit}
        answer, self._guard = self._ask_for_socket(op="open", label=label, **what)
        return int(answer["unit"])

    def look(self, label: str) -> int:
        """Return the unit that :meth:`open` would give now, and change nothing.

        Raises TakenError where the tunnel is up.
        """
        return int(self._ask(op="look", label=label)["unit"])

    def facts(self) -> Facts:
        """Return what this machine is like."""
        from sshvpn.plan.codec import from_record
        from sshvpn.plan.request import Facts

        facts: Facts = from_record(Facts, self._ask(op="facts")["facts"])
        return facts

    def read(self) -> NetworkState:
        """Return what the tunnel has in the kernel now."""
        from sshvpn.plan.codec import from_record
        from sshvpn.plan.state import NetworkState

        state: NetworkState = from_record(NetworkState, self._ask(op="read")["state"])
        return state

    def apply(self, steps: Sequence[Step]) -> None:
        """Make the steps, all or none. Raises an SshvpnError that names the one that failed."""
        from sshvpn.plan.codec import to_record

        if steps:
            self._ask(op="apply", steps=[to_record(step) for step in steps])

    def enclose(self, pid: int) -> str:
        """Put a process of the tunnel's user, and all that it starts, into the tunnel's cgroup.

        Returns its path below /sys/fs/cgroup. Raises PrivilegeError where there can be none.
        """
        return str(self._ask(op="enclose", pid=pid)["cgroup"])

    def pace(self, sock: socket.socket, name: str) -> None:
        """Let a TCP socket be paced by the congestion control ``name``.

        Raises PrivilegeError where the kernel has none of that name.
        """
        with self._lock:
            try:
                socket.send_fds(self._peer, [request_line(op="pace", by=name)], [sock.fileno()])
                self._receive()
            except (OSError, ValueError) as error:
                raise gone() from error

    def watch(self) -> socket.socket:
        """Return a socket that has something to read after every change of the firewall.

        It does not block. The caller closes it.
        """
        _, monitor = self._ask_for_socket(op="watch")
        return monitor

    def sweep(self, spared: Iterable[str] = ()) -> tuple[list[str], list[str]]:
        """Remove what dead helpers of this user left, but for the labels ``spared``.

        Returns the labels, and what failed.
        """
        answer = self._ask(op="sweep", spare=sorted(spared))
        return list(answer["swept"]), list(answer["failed"])

    def close(self) -> list[str]:
        """Tear the tunnel's end down, end the helper, and return what failed; twice is fine.

        Where it was killed its guard tears down.
        """
        failed: list[str] = []
        if self._peer.fileno() >= 0:
            try:
                failed = list(self._ask(op="close")["failed"])
            except HelperGoneError:
                failed = self._swept_by_guard()
            else:
                # It closes its end when all is gone.
                self._peer.settimeout(_END_TIMEOUT_S)
                with contextlib.suppress(OSError):
                    self._lines.read()
            self.let_go()
        return failed

    def _swept_by_guard(self) -> list[str]:
        """Let the guard of a helper that was killed sweep, and return what failed."""
        failed = ["the helper was killed: what it made is left to another one"]
        if self._guard is None:
            return failed
        self._guard.settimeout(_END_TIMEOUT_S)
        with contextlib.suppress(OSError), self._guard.makefile("r", errors="replace") as told:
            self._guard.shutdown(socket.SHUT_WR)
            lines = told.read().splitlines()
            if lines[-1:] == [SWEPT]:
                failed = lines[:-1]
        return failed

    def let_go(self) -> None:
        """Close the socket; a helper that lives tears down."""
        self._lines.close()
        self._peer.close()
        if self._guard is not None:
            self._guard.close()

    def _ask(self, **request: object) -> dict[str, Any]:
        with self._lock:
            try:
                self._peer.sendall(request_line(**request))
                return self._receive()
            except (OSError, ValueError) as error:
                raise gone() from error

    def _ask_for_socket(self, **request: object) -> tuple[dict[str, Any], socket.socket]:
        with self._lock:
            try:
                self._peer.sendall(request_line(**request))
                # The answer and the socket come in one message, and nothing else is on its way.
                data, handed, *_ = socket.recv_fds(self._peer, _LONGEST_ANSWER, 1)
            except OSError as error:
                raise gone() from error
        answer = checked(data)
        sock = socket.socket(fileno=handed[0])
        sock.set_inheritable(False)
        return answer, sock

    def _receive(self) -> dict[str, Any]:
        return checked(self._lines.readline())

"""Orders to a running ssh over its control socket (ssh(1), ``-O``): listeners come and go."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path

from sshvpn.errors import SshvpnError, UnreachableError
from sshvpn.model import Direction, Endpoint, Listener
from sshvpn.system.openssh.stderr import classify
from sshvpn.system.openssh.words import forward_word
from sshvpn.system.process import dies_with_parent, find_ssh
from sshvpn.waiting import within

_TIMEOUT_S = 30.0
_REMOVE_TIMEOUT_S = 2.0
_END_S = 1.0
# What the master refuses is not tried over a connection of its own.
_CLIENT = ("-F", "none", "-T", "-o", "ControlMaster=no", "-o", "ProxyCommand=false")
_SWITCHES = {Direction.LOCAL: "-L", Direction.REMOTE: "-R", Direction.DYNAMIC: "-D"}

# A socket of this login's that no process of the server has open; or ($2) whoever has it open.
_REMOVE_SOCKET = """
test -S "$1" && test -O "$1" || exit 1
test "$2" = ours || { test -r /proc/net/unix && ! grep -qF -- " $1" /proc/net/unix; } || exit 1
rm -f -- "$1"
"""


class MuxSession:
    """A command that runs at the server, over the connection of another ssh."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def status(self) -> int | None:
        """How the command has ended (255: ssh has), None where it has not."""
        return self._process.returncode

    async def wait(self) -> None:
        """Wait for its end."""
        await self._process.wait()

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        """What writes to it, where it was given a pipe."""
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """What hears it, where it was given a pipe."""
        return self._process.stdout

    async def end(self) -> None:
        """Wait for its end, and not for long; twice is fine."""
        try:
            await within(_END_S, self._process.wait())
        except (asyncio.TimeoutError, asyncio.CancelledError) as cut:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            if isinstance(cut, asyncio.CancelledError):
                raise


class Mux:
    """The control socket at ``path`` of an ssh that we started."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def answers(self) -> bool:
        """Whether ssh takes orders: it makes the socket after the login."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self._path))
            except OSError:
                return False
            return True

    async def forward(self, listener: Listener, where: Endpoint) -> str:
        """Let ssh listen at ``where`` for ``listener``, and return what it printed."""
        return await self._order("forward", listener, where)

    async def cancel(self, listener: Listener, where: Endpoint) -> None:
        """Let ssh listen there no more; ``where`` are the words that :meth:`forward` had."""
        await self._order("cancel", listener, where)

    async def remove_remote_socket(self, path: str, *, ours: bool) -> bool:
        """Remove the unix socket ``path`` of the server that a connection has left there.

        sshd never does (but for StreamLocalBindUnlink in its own configuration). Only a socket
        that belongs to this login is removed, and only one that nobody has open, unless it is
        ``ours``: then a session that the server has not yet given up holds it. Returns whether
        it was removed; False too where the server gives no shell.
        """
        script = shlex.join(["sh", "-c", _REMOVE_SOCKET, "sh", path, "ours" if ours else ""])
        try:
            await self._ssh(["--", "sshvpn", script], _REMOVE_TIMEOUT_S)
        except SshvpnError:
            return False
        return True

    async def run(
        self, command: str, stdin: int, stdout: int, stderr: int = asyncio.subprocess.DEVNULL
    ) -> MuxSession:
        """Start ``command`` at the server over the connection, with these descriptors.

        ssh hands them over to its master, so no byte passes the process that is started; its end
        ends the session, and the other way round.
        """
        return MuxSession(
            await asyncio.create_subprocess_exec(
                *self._words("--", "sshvpn", command),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=dies_with_parent(),
            )
        )

    def _words(self, *words: str) -> tuple[str, ...]:
        return (find_ssh() or "ssh", *_CLIENT, "-S", str(self._path), *words)

    async def _order(self, verb: str, listener: Listener, where: Endpoint) -> str:
        words = [_SWITCHES[listener.direction], forward_word(where, listener.target)]
        return await self._ssh(["-O", verb, *words, "--", "sshvpn"])

    async def _ssh(self, words: Sequence[str], timeout_s: float = _TIMEOUT_S) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._words(*words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )
        try:
            out, err = await within(timeout_s, process.communicate())
        except (asyncio.TimeoutError, asyncio.CancelledError) as cut:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(cut, asyncio.CancelledError):
                raise
            raise UnreachableError("ssh did not open the forward in time") from cut
        if process.returncode:
            raise classify([*err.decode(errors="replace").splitlines()], process.returncode)
        return out.decode(errors="replace")

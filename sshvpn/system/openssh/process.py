"""One ssh of ours: started, logged in, heard on its stderr, and ended with all that it started.

It is the master of a control socket of ours (ssh(1), ControlMaster), which is how it is told
that the login is done. What its words are, and what is done over it, is its owner's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from sshvpn.boundary import Prompter
from sshvpn.errors import SshvpnError, printable
from sshvpn.model import TcpCounters
from sshvpn.system.network.sockets import OwnSocket, TransportSocket
from sshvpn.system.openssh.handover import Target, connect, handed_over, shell_environment
from sshvpn.system.openssh.held import HeldLines, Hold
from sshvpn.system.openssh.mux import Mux
from sshvpn.system.openssh.stderr import classify, is_debug, is_noise
from sshvpn.system.process import ChildLines, dies_with_parent, find_ssh
from sshvpn.system.ssh.askpass import AskpassServer
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.openssh")

_KEPT_LINES = 200
_END_TIMEOUT_S = 3.0
_LAST_WORDS_S = 1.0
_READY_POLL_S = 0.02
# sun_path holds 107 bytes, and ssh binds to a temporary name that is 17 longer.
_LONGEST_CONTROL_PATH = 107 - 17
_HAS_SERVER = re.compile(r"debug1: Remote protocol version ")
_OPEN_FAILED = re.compile(r"channel \d+: open failed: ([^:]+): (.*)")


class SshProcess:
    """One ssh that is a control master. Close it; twice is fine.

    ``directory`` is a private one for its sockets, and ``name`` that of its control socket
    there; without it a temporary one is made. ``hear`` is given each line of ssh's stderr, in
    the loop, and returns whether it is dealt with. ``hold`` is where it waits. ``way`` tells how
    its TCP connection was made, if there is more to say than that ssh has made it.
    ``was_asked`` tells whether anything was asked for in the login, ``was_answered`` whether
    somebody typed an answer. ``has_server`` is set once a server of SSH has answered.
    """

    def __init__(
        self,
        directory: Path | None,
        name: str = "mux",
        hear: Callable[[str], bool] = lambda _: False,
        hold: Hold | None = None,
    ) -> None:
        self._temporary = None
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="sshvpn-")
            directory = Path(self._temporary.name)
        self.directory = directory
        self.control = directory / name
        self.mux = Mux(self.control)
        self.was_asked = self.was_answered = False
        self.has_server = asyncio.Event()
        self._hear = hear
        self._said = (
            ChildLines(self._take, heard=self._hear_more)
            if hold is None
            else HeldLines(self._take, hold, heard=self._hear_more)
        )
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._transport: TransportSocket | None = None
        self._is_settled = False
        self.way = ""

    # The login --------------------------------------------------------------------------

    async def log_in(
        self,
        words: Sequence[str],
        prompter: Prompter | None,
        *,
        ours: Target | str = "",
        stdin: int = asyncio.subprocess.DEVNULL,
        stdout: int = asyncio.subprocess.DEVNULL,
    ) -> None:
        """Start ``ssh WORDS``, and return when its control socket takes commands.

        ``words`` name that socket (``-S``). ``ours`` is of handover.ours_for(). Raises what stopped
        it, with ssh ended; close it nevertheless.
        """
        if len(os.fsencode(self.control)) > _LONGEST_CONTROL_PATH:
            raise SshvpnError(
                f"the path {self.control} is too long for a unix socket",
                "set XDG_RUNTIME_DIR to a shorter directory",
            )
        self.control.unlink(missing_ok=True)
        async with AskpassServer(self.control.with_suffix(".ask"), prompter) as askpass:
            try:
                async with self._connected(ours) as (more_words, more_environment):
                    environment = {**askpass.environment(), **more_environment}
                    askpass.peer = self.peer()
                    # Behind our first words, which tell people what it is, and before the user's.
                    first = words.index(str(self.control)) + 1
                    words = (*words[:first], *more_words, *words[first:])
                    self._process = await self._start(words, environment, stdin, stdout)
                    self._said.release()
                    await askpass.unless_given_up(self._wait_ready())
            except BaseException:
                await self.end()
                raise
            finally:
                self.was_answered = askpass.answers > 0
                self.was_asked = askpass.questions > 0
        self._find_transport()

    @contextlib.asynccontextmanager
    async def _connected(
        self, ours: Target | str
    ) -> AsyncIterator[tuple[Sequence[str], Mapping[str, str]]]:
        """Yield words and environment of an ssh that takes our connection; none where it may not.

        The connection is kept, until ssh has ended.
        """
        sock = None if isinstance(ours, str) else await connect(ours)
        if sock is None:
            self.way = ours if isinstance(ours, str) else ""
            yield (), {}
            return
        self._transport = OwnSocket(sock)
        self.way = "ssh was handed a TCP connection of ours: the kernel does not let us at its own"
        with handed_over(self.control.with_suffix(".tcp"), sock) as words:
            yield words, shell_environment()

    async def _start(
        self, words: Sequence[str], environment: Mapping[str, str], stdin: int, stdout: int
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            find_ssh() or "ssh",
            *words,
            stdin=stdin,
            stdout=stdout,
            stderr=self._said.write_fd,
            env=environment,
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )

    async def _wait_ready(self) -> None:
        ended = asyncio.create_task(self.wait_ended())
        try:
            while not self.mux.answers():
                if ended.done():
                    raise ended.result()
                await asyncio.wait({ended}, timeout=_READY_POLL_S)
        finally:
            ended.cancel()

    def _find_transport(self) -> None:
        """See which connection carries it; a proxy may have another one by now."""
        if isinstance(self._transport, OwnSocket):
            return
        if self._transport is not None:
            self._transport.close()
        self._transport = TransportSocket.of_process(self.pid)

    def acknowledge(self) -> None:
        """Let the server wait for no acknowledgement of what it has said; see TransportSocket."""
        if self._transport is not None:
            self._transport.acknowledge()

    def settle(self) -> None:
        """Take it that the connection stands: what ssh said of the login is forgotten."""
        self._lines.clear()
        self._is_settled = True

    def _hear_more(self) -> None:
        if not self._is_settled:
            self.acknowledge()

    def _note_server(self) -> None:
        if not self.is_running:
            return
        self._find_transport()
        # Once it has logged in, ssh sends at once by itself; a proxy's connection is the proxy's.
        if self._transport is not None and self._transport.is_of(self.pid):
            self._transport.send_at_once()

    def _take(self, line: str) -> None:
        if _HAS_SERVER.match(line):
            self.has_server.set()
            self._note_server()
        if self._hear(line):
            return
        if is_debug(line):
            log.debug("ssh: %s", line)
            if self._is_settled:
                return
        self._lines.append(line)
        if self._is_settled and (failed := _OPEN_FAILED.search(line)):
            log.warning("a connection was not forwarded: %s (%s)", failed[2], failed[1])
        elif not is_noise(line):
            log.info("ssh: %s", printable(line.removeprefix("ssh: ")))

    # While it runs ----------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process's number; only of one that was started."""
        assert self._process is not None  # noqa: S101 (a login came before)
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_status(self) -> int | None:
        """How it ended (negative: by that signal), None where it has not."""
        return self._process.returncode if self._process is not None else None

    def peer(self) -> str | None:
        """Return the address that ssh, or its proxy, is connected to, None if it cannot be told."""
        return self._transport.peer() if self._transport else None

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket | None]:
        """Lend ssh's TCP socket, or its proxy's, for a moment; None if it cannot be had."""
        if self._transport is None:
            yield None
            return
        with self._transport.borrowed() as sock:
            yield sock

    def counters(self) -> TcpCounters | None:
        """Return what ssh's TCP connection has carried, None where it cannot be told."""
        return self._transport.counters() if self._transport else None

    def silence_s(self) -> float | None:
        """Return for how long ssh's TCP connection has heard nothing, None if it cannot be told."""
        return self._transport.silence_s() if self._transport else None

    async def wait_ended(self) -> SshvpnError:
        """Wait for ssh to end, and return why it did."""
        assert self._process is not None  # noqa: S101 (only what was started is waited for)
        exit_status = await self._process.wait()
        self._let_go()
        await self._said.wait_end(_LAST_WORDS_S)
        return classify(self._lines, exit_status)

    # The end ----------------------------------------------------------------------------

    async def end(self) -> None:
        """End ssh and all that it started, and its connection. Not running: nothing happens."""
        if self._process is not None and self._process.returncode is None:
            await _end(self._process)
        self._let_go()

    def _let_go(self) -> None:
        """Let ssh's end be that of its connection, too, which we may hold."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    async def close(self) -> None:
        """End ssh, and let go of all that belongs to it."""
        await self.end()
        self._said.close()
        self.control.unlink(missing_ok=True)
        if self._temporary is not None:
            self._temporary.cleanup()


async def _end(process: asyncio.subprocess.Process) -> None:
    # With all that it started: an askpass that asks, a proxy, would hold its pipe open.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGCONT)  # one that was stopped would not hear it
    try:
        await within(_END_TIMEOUT_S, process.wait())
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

"""The conversation with the agent on the server, over the pipes of the ssh that runs it.

::

    the script, by length ─────────────────────>      begin()
    <── unit N (prepare) ── hello … ready ──────      unit, facts
    address …, commit ─────> <───────────── ok        configure()
    beat N ────────────────> <───────────── beat N    by itself, from the facts on
    tcp … ─────────────────> <────── tcp bbr ─────      ask_tcp(), tuned; in the mode tcp at once
    end ───────────────────> <───────────── bye       say_end()
    <── bye, error, or the end of its output ───      gone

What the server sends is not trusted: a line has a longest length, the facts have a largest
number of lines, and what is not the agent's (a banner, a noisy .bashrc) is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from sshvpn.errors import ConnectionLostError, SshvpnError, printable
from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Applied, Changed, Ended, Facts, Failed, Left, Tuned, Unit
from sshvpn.system.process import ChildLines
from sshvpn.system.remote_agent.errors import error_of
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.agent")

T = TypeVar("T")

BEAT_S = 5.0
"""Also how long it goes unseen that somebody undoes something there; a look costs the server some
20 ms of CPU, however long its packet filter is."""
_MOST_FACTS = 20_000
"""Lines between two messages; the agent itself stops at 2000 routes of a family."""


class _InputState(asyncio.BaseProtocol):
    """Notes that the pipe is closed: its transport takes no abort() after that."""

    is_lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.is_lost = True


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


class RemoteAgent:
    """One agent, from before its ssh is started. Close it; twice is fine.

    ``login`` is who logs in, for messages; ``device`` the server's tun, if it has to be named.
    It beats every ``beat_s``; one that has not answered for ``lease_s`` is gone.

    ``facts``, ``unit`` and ``tuned`` are done when the agent has told them, ``gone`` when it is
    there no more (or was never), with why: ``has_failed`` says that it told of a failure,
    ``has_ended`` that it ended as it should. ``changed`` is set when it has seen that what was
    configured does not stand any more; once a beat at most, whatever the server says. ``heard``
    is called when something has come, whatever it is.
    """

    def __init__(
        self,
        mode: protocol.Mode,
        label: str,
        login: str,
        *,
        device: str | None = None,
        lease_s: int = protocol.DEFAULT_LEASE_S,
        beat_s: float = BEAT_S,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._nonce = secrets.token_hex(16)
        self.command = protocol.remote_command(
            agent_script(),
            nonce=self._nonce,
            label=label,
            mode=mode,
            lease_s=lease_s,
            device=device,
        )
        self.facts: asyncio.Future[Facts] = loop.create_future()
        self.unit: asyncio.Future[int] = loop.create_future()
        self.tuned: asyncio.Future[Tuned] = loop.create_future()
        self.gone: asyncio.Future[SshvpnError] = loop.create_future()
        self.changed = asyncio.Event()
        self._may_tell_change = False
        self.has_spoken = False
        self.has_failed = False
        self.has_ended = False
        self.last_noise = ""
        self._login = login
        self._lease_s = lease_s
        self._beat_s = beat_s
        self._reader = protocol.Reader(self._nonce)
        self._facts_lines = 0
        self.heard: Callable[[], None] = lambda: None
        self._said = ChildLines(self._take, protocol.LONGEST_LINE, heard=self._hear_more)
        self._input_fd, self._our_fd = os.pipe()
        self._input: asyncio.WriteTransport | None = None
        self._input_state = _InputState()
        self._commits: deque[asyncio.Future[None]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._last_heard = time.monotonic()

    # The pipes --------------------------------------------------------------------------

    @property
    def input_fd(self) -> int:
        """What is ssh's standard input."""
        return self._input_fd

    @property
    def output_fd(self) -> int:
        """What is ssh's standard output."""
        return self._said.write_fd

    async def begin(self) -> None:
        """Send the script: it waits in the pipe until ssh is there."""
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(self._our_fd, "wb", buffering=0)
        self._our_fd = -1
        try:
            self._input, self._input_state = await loop.connect_write_pipe(_InputState, pipe)
        except BaseException:
            pipe.close()
            raise
        self._input.write(protocol.delivery(agent_script()))

    def release(self) -> None:
        """Let go of ssh's ends of the pipes: it has them, and has logged in."""
        self._said.release()
        self._close_input_fd()
        self._last_heard = time.monotonic()
        self._tasks.append(asyncio.create_task(self._watch_end()))

    def _close_input_fd(self) -> None:
        if self._input_fd >= 0:
            os.close(self._input_fd)
            self._input_fd = -1

    async def _watch_end(self) -> None:
        await self._said.wait_end()
        self._end(ConnectionLostError("the agent on the server ended without a word"))

    # What it says -----------------------------------------------------------------------

    def _hear_more(self) -> None:
        self.heard()

    def _take(self, line: str) -> None:
        _, mark, text = line.partition(self._nonce + " ")
        if not mark:
            self._note_noise(line)
            return
        try:
            message = self._reader.feed(line)
        except protocol.MalformedLineError as error:
            if self.has_spoken:
                self._fail(error)
            else:  # a forced command may say back what it was asked for
                self._note_noise(line)
            return
        self.has_spoken = True
        self._last_heard = time.monotonic()
        if message is not None:
            self._facts_lines = 0
            self._hear(message)
            return
        self._facts_lines += 1
        if self._facts_lines > _MOST_FACTS:
            self._fail(protocol.MalformedLineError(f"the server's agent does not end: {text}"))

    def _note_noise(self, line: str) -> None:
        if line.strip():
            self.last_noise = printable(line)[:100]
            log.debug("the server says: %s", self.last_noise)

    def _hear(self, message: protocol.Message) -> None:
        if isinstance(message, Facts):
            if not self.facts.done():
                self.facts.set_result(message)
                self._tasks.append(asyncio.create_task(self._beat()))
        elif isinstance(message, Unit):
            _settle(self.unit, message.number)
        elif isinstance(message, Tuned):
            _settle(self.tuned, message)
        elif isinstance(message, Applied):
            self._applied()
        elif isinstance(message, Changed):
            self._note_change()
        elif isinstance(message, Left):
            log.warning("the server could not undo: %s", message.text)
        elif isinstance(message, Failed):
            self._fail(error_of(message, self._login))
        elif isinstance(message, Ended):
            self.has_ended = True
            self._end(ConnectionLostError(f"the agent on the server has ended: {message.reason}"))

    def _note_change(self) -> None:
        if self._may_tell_change:
            self._may_tell_change = False
            self.changed.set()

    def _applied(self) -> None:
        commit = self._commits.popleft() if self._commits else None
        if commit is not None and not commit.done():
            commit.set_result(None)

    def _fail(self, why: SshvpnError) -> None:
        self.has_failed = self.has_failed or not self.gone.done()
        self._end(why)

    def _end(self, why: SshvpnError) -> None:
        if not self.gone.done():
            self.gone.set_result(why)
            self.end_input()

    @property
    def silent_s(self) -> float:
        """How long nothing was heard of it, in seconds."""
        return time.monotonic() - self._last_heard

    # What is said to it -----------------------------------------------------------------

    def _say(self, *lines: str) -> None:
        if self._input is not None and not self._input.is_closing():
            self._input.write(protocol.encode(lines))

    async def _beat(self) -> None:
        number = 0
        while not self.gone.done():
            await asyncio.sleep(self._beat_s)
            if self.silent_s > self._lease_s:
                text = f"the agent on the server has not answered for {self._lease_s} s"
                self._end(ConnectionLostError(text))
            number = (number + 1) % 10**9
            self._may_tell_change = True
            self._say(protocol.beat(number))

    async def configure(self, end: protocol.RemoteEnd) -> None:
        """Let it make the server's end what ``end`` says; returns when it stands.

        Raises what the agent says where it fails; it has undone everything then.
        """
        commit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._commits.append(commit)
        self._say(*end.lines())
        waiting: set[asyncio.Future[None] | asyncio.Future[SshvpnError]] = {commit, self.gone}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not commit.done():
            raise self.gone.result()

    def ask_tcp(self, options: protocol.TcpOptions) -> None:
        """Ask it to tune the server's end of the TCP connection; ``tuned`` has the answer."""
        self._say(options.words)

    async def say_end(self, timeout_s: float) -> None:
        """Ask it to undo everything, and wait until it has, or so long."""
        if self.has_spoken and not self.gone.done():
            self._say(protocol.END)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(timeout_s, asyncio.shield(self.gone))
        self.end_input()

    def end_input(self) -> None:
        """End its input, which ends it too."""
        if self._input is not None:
            self._input.close()

    def close(self) -> None:
        """Let go of the pipes."""
        for task in self._tasks:
            task.cancel()
        self._said.close()
        self._close_input_fd()
        if self._our_fd >= 0:
            os.close(self._our_fd)
            self._our_fd = -1
        if self._input is not None and not self._input_state.is_lost:
            self._input.abort()

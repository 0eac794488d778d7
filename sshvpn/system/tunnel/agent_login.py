"""One ssh that runs the agent at its other end: its login, its first words, its end."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sshvpn.boundary import Prompter
from sshvpn.errors import ConnectionLostError, SshvpnError
from sshvpn.frozen import dataclass
from sshvpn.model import TcpPath, Tuning
from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Facts, TcpOptions
from sshvpn.system.openssh import tcp_path
from sshvpn.system.openssh.handover import Target
from sshvpn.system.openssh.held import Gate, Hold
from sshvpn.system.openssh.process import SshProcess
from sshvpn.system.remote_agent.conversation import BEAT_S, RemoteAgent
from sshvpn.system.remote_agent.errors import NoAgentError, SilentAgentError
from sshvpn.system.tunnel.upload import Upload

log = logging.getLogger("sshvpn.agent")

T = TypeVar("T")

_TUNNEL_STANDS = re.compile(r"debug1: (?:ssh_tun_confirm: )?tunnel forward established")
_ASKS_FOR_TUNNEL = re.compile(r"debug1: (?:\w+: )?Requesting tun unit ")
_LAST_WORDS_S = 1.0
_PAUSE_S = 30.0
"""An agent that has begun to speak does not stop for so long before it has told the facts."""
_LOOK_S = 1.0
"""How often is looked whether the script is still on its way."""
_SSH_FAILED = 255
"""ssh's own exit status for every failure of its own (ssh(1))."""

_LIMITED = (
    'a login limited to the tunnel needs in its profile: remote_device = "tun8", '
    'address = "10.83.0.1/30"'
)


@dataclass(frozen=True, slots=True)
class Timings:
    """How long is waited for an agent, in seconds.

    ``answer_s`` for its first word, once it is there; ``grace_s`` where the tunnel stands and is
    of use without one, and for the end of what has not said a word. ``end_s`` is how long it may
    take to undo what it did.
    """

    beat_s: float = BEAT_S
    lease_s: int = protocol.DEFAULT_LEASE_S
    answer_s: float = 10.0
    grace_s: float = 3.0
    end_s: float = 1.0


class AgentLogin:
    """An ssh with an agent, perhaps. Close it; twice is fine.

    ``control`` is the name of the control socket in ``directory``. ssh, logged in, asks for the
    server's device only when the gate is open.
    """

    def __init__(
        self,
        directory: Path | None,
        control: str,
        agent: RemoteAgent,
        timings: Timings,
        gate: Gate | None = None,
    ) -> None:
        hold = None if gate is None else Hold(_ASKS_FOR_TUNNEL, gate)
        self.process = SshProcess(directory, control, self._hear, hold)
        self.agent = agent
        agent.heard = self.process.acknowledge
        self._timings = timings
        self._tunnel_stands = asyncio.Event()
        self._is_authenticated = False
        self._upload = Upload(0, None, time.monotonic())

    def _hear(self, line: str) -> bool:
        if _TUNNEL_STANDS.match(line):
            self._tunnel_stands.set()
        elif line.startswith("Authenticated to "):
            self._is_authenticated = True
        return False

    async def log_in(
        self, words: Sequence[str], prompter: Prompter | None, ours: Target | str
    ) -> None:
        """Start ``ssh WORDS`` with the agent's command, and return when the login is done.

        ``ours`` is of handover.ours_for().
        """
        await self.agent.begin()
        try:
            await self.process.log_in(
                (*words, self.agent.command),
                prompter,
                ours=ours,
                stdin=self.agent.input_fd,
                stdout=self.agent.output_fd,
            )
        except SshvpnError:
            # ssh ends as its command did: that was there, if only for a moment.
            if not self._is_authenticated or self.process.exit_status not in range(_SSH_FAILED):
                raise
        self.agent.release()
        size = len(protocol.delivery(agent_script()))
        self._upload = Upload(size, self._sent(), time.monotonic())

    def _sent(self) -> int | None:
        counters = self.process.counters()
        return None if counters is None else counters.tx_bytes

    async def unit(self) -> int:
        """Return the unit that the agent has made a device for. Raises as :meth:`facts`."""
        return await self._told(self.agent.unit, self._timings.answer_s)

    async def facts(self) -> Facts:
        """Return what the agent has found.

        Raises NoAgentError where something else answers, SilentAgentError where nothing does,
        what the agent reports, or why ssh has ended.
        """
        return await self._told(self.agent.facts, self._timings.answer_s)

    async def facts_or_end(self) -> Facts | None:
        """Return the facts, or None where the agent has done what it was for. Raises so too."""
        try:
            return await self.facts()
        except SshvpnError:
            if not self.agent.has_ended:
                raise
        return None

    async def facts_unless_limited(self) -> Facts | None:
        """Return the facts, or None where the tunnel stands and no agent answers. Raises so too."""
        standing = asyncio.create_task(self._tunnel_stands.wait())
        telling = asyncio.create_task(self.facts())
        try:
            await asyncio.wait({standing, telling}, return_when=asyncio.FIRST_COMPLETED)
            if not telling.done() and not self.agent.has_spoken:
                await asyncio.wait({telling}, timeout=self._timings.grace_s)
            if not telling.done() and not self.agent.has_spoken:
                return None
            return await telling
        except (NoAgentError, SilentAgentError):
            await self._wait_tunnel()
            return None
        finally:
            for task in (standing, telling):
                task.cancel()
            await asyncio.gather(standing, telling, return_exceptions=True)

    async def _wait_tunnel(self) -> None:
        """Return when the tunnel stands; raises why ssh ended instead.

        An ssh that words it otherwise has it, if it lives on: it exits on a failure.
        """
        standing = asyncio.create_task(self._tunnel_stands.wait())
        ended = asyncio.create_task(self.process.wait_ended())
        try:
            await asyncio.wait(
                {standing, ended},
                timeout=self._timings.grace_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ended.done():
                raise ended.result()
        finally:
            standing.cancel()
            ended.cancel()

    async def _told(self, wanted: asyncio.Future[T], answer_s: float) -> T:
        ended = asyncio.create_task(self.process.wait_ended())
        try:
            while not wanted.done():
                patience_s = _PAUSE_S if self.agent.has_spoken else answer_s
                left_s = patience_s - self._silent_s()
                if left_s <= 0:
                    raise await self._why_silent(ended)
                news: set[asyncio.Future[Any]] = {wanted, self.agent.gone, ended}
                await asyncio.wait(
                    news, timeout=min(left_s, _LOOK_S), return_when=asyncio.FIRST_COMPLETED
                )
                if not wanted.done() and (self.agent.gone.done() or ended.done()):
                    raise await self.why_ended()
            return wanted.result()
        finally:
            ended.cancel()

    def _silent_s(self) -> float:
        """Return for how long neither the agent was heard, nor the script went on its way."""
        now = time.monotonic()
        self._upload.look(self._sent(), now)
        return min(self.agent.silent_s, now - self._upload.moved_at)

    async def _why_silent(self, ended: asyncio.Future[SshvpnError]) -> SshvpnError:
        """Return what the silence means: what only reads ends with its input, and says so.

        A link or a server that is slow tells nothing even then, and time can mend it.
        """
        if self.agent.has_spoken:
            return ConnectionLostError("the agent on the server stopped in its first words")
        self.agent.end_input()
        ends: set[asyncio.Future[SshvpnError]] = {self.agent.gone, ended}
        await asyncio.wait(ends, timeout=self._timings.grace_s, return_when=asyncio.FIRST_COMPLETED)
        if self.agent.gone.done() or ended.done():
            return await self.why_ended()
        if self.agent.last_noise and not self.agent.has_spoken:
            return self._no_agent()
        return SilentAgentError(
            f"our agent at the server has not said a word for {self._timings.answer_s:.0f} s",
            _LIMITED,
        )

    async def why_ended(self) -> SshvpnError:
        """Return why the agent or ssh ended: one of them has."""
        agent, process = self.agent, self.process
        if not process.is_running:  # its last words may still be on their way to us
            await asyncio.wait({agent.gone}, timeout=_LAST_WORDS_S)
        elif not agent.has_failed:  # the loss of the network ends both, and ssh knows its name
            waiting = asyncio.create_task(process.wait_ended())
            await asyncio.wait({waiting}, timeout=_LAST_WORDS_S)
            waiting.cancel()
        if agent.has_failed:
            return agent.gone.result()
        if not process.is_running and (agent.has_spoken or process.exit_status == _SSH_FAILED):
            return await process.wait_ended()
        return agent.gone.result() if agent.has_spoken else self._no_agent()

    def _no_agent(self) -> NoAgentError:
        noise = self.agent.last_noise
        said = f"; it said: {noise}" if noise else ""
        return NoAgentError(f"our agent does not run for this login at the server{said}", _LIMITED)

    async def tune(
        self,
        options: TcpOptions,
        tuning: Tuning,
        chooser: tcp_path.Chooser,
        *,
        has_agent: bool,
    ) -> TcpPath:
        """Make the TCP connection fit for long and lossy paths, both ends at once.

        The server's end waits for us as long as the agent does: with the session goes what
        translates open connections there, and they shall outlive a long outage.
        """
        if tuning is Tuning.OFF:
            return TcpPath()
        asks = tuning is not Tuning.LOCAL and has_agent
        if asks:
            lease_s = max(options.user_timeout_s, self._timings.lease_s)
            self.agent.ask_tcp(replace(options, user_timeout_s=lease_s))
        here = await tcp_path.tune_here(self.process, options, chooser)
        there = await tcp_path.answer_of(self.agent) if asks else tcp_path.NOT_ASKED
        return tcp_path.outcome(here, there)

    async def leave(self) -> None:
        """Let the agent undo what it did, and end ssh."""
        if self.process.is_running:
            await self.agent.say_end(self._timings.end_s)
        await self.close()

    async def close(self) -> None:
        """End ssh, and with it the agent."""
        await self.process.close()
        self.agent.close()

"""The ``stream`` transport: packets in frames, through sessions of the system's own ssh.

The first connection is as that of ``w``, but without ``-w``: a control master of ours that runs
the agent and opens listeners. One more session of it runs the pump. With more streams there are
as many connections more, each with a pump alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence

from sshvpn.errors import ConnectionLostError, SshvpnError
from sshvpn.model import TcpCounters, TcpPath, Tuning, TunnelProfile
from sshvpn.plan import marks
from sshvpn.remote.protocol import Mode, TcpOptions
from sshvpn.system.openssh import tcp_path
from sshvpn.system.openssh.process import SshProcess
from sshvpn.system.process import ChildLines
from sshvpn.system.tunnel.agent_login import AgentLogin
from sshvpn.system.tunnel.dial import TunnelDial, device_of
from sshvpn.system.tunnel.stream_link import Session, Starter, StreamLink, StreamRefusedError
from sshvpn.system.tunnel.w import OpensshCarrier, OpensshTunnel, check_ssh_and_mtu

_LAST_WORDS_S = 1.0


class StreamCarrier(OpensshCarrier):
    """Implements boundary.TunnelCarrier with pumps of ours over the system's ssh."""

    name = "stream"
    default_mtu = 1500
    """As the LAN's: nothing has to be cut, and segments of 64 KiB cross whole whatever it is."""
    is_guarded = False
    has_stood = False

    def refuse(self, profile: TunnelProfile) -> None:
        """Raise UsageError where there is no ssh, or what is asked for cannot be."""
        check_ssh_and_mtu(profile)

    def _needs_agent(self, profile: TunnelProfile) -> bool:
        """Return True: the agent has the device, and the pump."""
        del profile
        return True

    async def _open(
        self, profile: TunnelProfile, dial: TunnelDial, device: asyncio.Future[int]
    ) -> OpensshTunnel:
        count = profile.streams or 1
        mode = Mode.STREAM if count == 1 else Mode.STREAMS
        login = await dial.stream(mode, profile.remote_device)
        made = StreamTunnel(login, tcp_path.options_for(dial.config), self._remote_sockets)
        try:
            local = marks.device_name(await asyncio.shield(device))
            await made.open_streams(dial, local, count)
        except StreamRefusedError as error:
            await made.close()
            if self.has_stood:  # it could, and time may mend why it cannot just now
                raise ConnectionLostError(str(error)) from error
            raise
        except BaseException:
            await made.close()
            raise
        self.has_stood = True
        return made


class StreamTunnel(OpensshTunnel):
    """One or more connections that carry packets; implements boundary.TunnelConnection."""

    def __init__(self, login: AgentLogin, options: TcpOptions, remote_sockets: set[str]) -> None:
        super().__init__(login, None, options, remote_sockets)
        self._links: list[StreamLink] = []
        self._others: list[SshProcess] = []

    async def open_streams(self, dial: TunnelDial, local: str, count: int) -> None:
        """Return once all carry packets. Raises what the agent says, or why one has broken.

        The first one's pumps load while the agent still looks around, and makes the device.
        """
        links = [
            StreamLink(local, is_many=count > 1, mark=f"sshvpn-agent:{dial.label}")
            for _ in range(count)
        ]
        telling = asyncio.create_task(self._hear_facts())
        try:
            for number, link in enumerate(links):
                self._links.append(link)
                await self._explaining(link.begin(self._starter(dial, link, number)))
                await self._explaining(link.carry(await telling))
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _hear_facts(self) -> str:
        """Return the device that the agent tells of, with all else that it found."""
        self._facts = await self._login.facts()
        device = device_of(self._facts)
        self._login.process.settle()
        return device.name

    def _starter(self, dial: TunnelDial, link: StreamLink, number: int) -> Starter:
        async def start(source: int, sink: int) -> Session:
            if number:
                return await self._more(dial, link, number, source, sink)
            return await self._session(link, source, sink)

        return start

    async def _explaining(self, step: Awaitable[None]) -> None:
        try:
            await step
        except SshvpnError as error:
            raise await self._explained(error) from error

    async def _explained(self, error: SshvpnError) -> SshvpnError:
        """Return why ssh has ended, where that is the reason; else ERROR."""
        if isinstance(error, StreamRefusedError) and error.is_certain:
            return error
        process = self._login.process
        ended = asyncio.ensure_future(process.wait_ended())
        try:
            # A loss of the network ends both, and ssh knows its name.
            await asyncio.wait({ended}, timeout=_LAST_WORDS_S)
            return ended.result() if ended.done() else error
        finally:
            ended.cancel()

    async def _session(self, link: StreamLink, source: int, sink: int) -> Session:
        """Run the pump in one more session of the first connection."""
        heard: deque[str] = deque(maxlen=1)
        said = ChildLines(heard.append, 4096)
        try:
            session = await self._login.process.mux.run(link.command, source, sink, said.write_fd)
        except BaseException:
            said.close()
            raise
        said.release()

        async def close() -> None:
            await session.end()
            said.close()

        return Session(session.wait, close, lambda: "".join(heard), lambda: session.status)

    async def _more(
        self, dial: TunnelDial, link: StreamLink, number: int, source: int, sink: int
    ) -> Session:
        """Run it over a connection of its own."""
        process = await dial.pump(f"mux{number}", link.command, source, sink)
        self._others.append(process)
        return Session(process.wait_ended, process.close)

    async def tune(self, profile: TunnelProfile, pace: tcp_path.Chooser) -> TcpPath:
        """Tune all TCP connections; what is told is the first one's, or one's that has less."""
        paths = await asyncio.gather(
            super().tune(profile, pace),
            *(self._tune_other(process, profile.tuning, pace) for process in self._others),
        )
        return next((path for path in paths if path.notes), paths[0])

    async def _tune_other(
        self, process: SshProcess, tuning: Tuning, pace: tcp_path.Chooser
    ) -> TcpPath:
        if tuning is Tuning.OFF:
            return TcpPath()
        here = await tcp_path.tune_here(process, self._options, pace)
        there = tcp_path.NOT_ASKED
        if tuning is not Tuning.LOCAL:
            there = await tcp_path.tune_there(process, self._options)
        return tcp_path.outcome(here, there)

    def counters(self) -> TcpCounters | None:
        """Return what all TCP connections show together: packets come out of each."""
        first = super().counters()
        others = [process.counters() for process in self._others]
        return together([one for one in (first, *others) if one is not None])

    async def wait_closed(self) -> SshvpnError:
        """Wait until ssh, the agent or a pump has ended, and return why."""
        base = asyncio.ensure_future(super().wait_closed())
        links = [asyncio.ensure_future(link.wait_closed()) for link in self._links]
        try:
            done, _ = await asyncio.wait({base, *links}, return_when=asyncio.FIRST_COMPLETED)
            if base in done:
                return base.result()
            await asyncio.wait({base}, timeout=_LAST_WORDS_S)
            return base.result() if base.done() else done.pop().result()
        finally:
            for task in (base, *links):
                task.cancel()
            await asyncio.gather(base, *links, return_exceptions=True)

    async def close(self, *, is_lost: bool = False) -> None:
        """End it, with all that it has left; see boundary.TunnelConnection."""
        await asyncio.gather(
            super().close(is_lost=is_lost), *(link.close() for link in self._links)
        )


def together(parts: Sequence[TcpCounters]) -> TcpCounters | None:
    """Return what several connections show as one: the least silent, and the slowest."""
    if not parts:
        return None
    return TcpCounters(
        rx_bytes=sum(part.rx_bytes for part in parts),
        tx_bytes=sum(part.tx_bytes for part in parts),
        rtt_s=max((part.rtt_s for part in parts if part.rtt_s is not None), default=None),
        repeats_in_s=max(part.repeats_in_s for part in parts),
        silent_s=min(part.silent_s for part in parts),
        unanswered_s=max(part.unanswered_s for part in parts),
    )

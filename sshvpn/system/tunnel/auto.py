"""The transport that is not chosen by a person: ``stream`` where it goes, else ``w``.

What went with a server is remembered, and tried first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from sshvpn.boundary import Prompter
from sshvpn.errors import SshvpnError, TunnelRefusedError, UsageError
from sshvpn.model import TunnelProfile
from sshvpn.remote.protocol import Facts
from sshvpn.system.tunnel.host_memory import HostMemory
from sshvpn.system.tunnel.stream import StreamCarrier
from sshvpn.system.tunnel.w import OpensshCarrier, OpensshTunnel

log = logging.getLogger("sshvpn.tunnel")


class AutoCarrier:
    """Implements boundary.TunnelCarrier with whichever of the two goes."""

    def __init__(self, directory: Path | None = None, hosts: Path | None = None) -> None:
        self._stream = StreamCarrier(directory, hosts)
        self._w = OpensshCarrier(directory, hosts)
        self._memory = HostMemory(hosts)
        self._now: OpensshCarrier = self._stream
        self._possible: tuple[OpensshCarrier, ...] = (self._stream, self._w)
        self.reason = "tried first"

    @property
    def name(self) -> str:
        """The transport that carries, or is tried first."""
        return self._now.name

    @property
    def default_mtu(self) -> int:
        """That one's."""
        return self._now.default_mtu

    @property
    def is_guarded(self) -> bool:
        """That one's."""
        return self._now.is_guarded

    async def check(self, profile: TunnelProfile) -> None:
        """Raise UsageError for what neither can honour."""
        self._stream.refuse(profile)
        self._possible = (self._stream, self._w)
        try:
            self._w.refuse(profile)
        except UsageError as error:
            self._possible = (self._stream,)
            log.debug("not by ssh -w: %s", error)
        config = await self._stream.resolved(profile)
        for carrier in self._possible:
            carrier.use(config)

    async def peers(self, profile: TunnelProfile) -> Sequence[str]:
        """See boundary.TunnelCarrier."""
        return await self._now.peers(profile)

    async def look(self, profile: TunnelProfile, label: str, prompter: Prompter | None) -> Facts:
        """See boundary.TunnelCarrier."""
        return await self._now.look(profile, label, prompter)

    async def wait_login_possible(self) -> None:
        """See boundary.TunnelCarrier."""
        await self._now.wait_login_possible()

    async def connect(
        self,
        profile: TunnelProfile,
        label: str,
        device: asyncio.Future[int],
        prompter: Prompter | None,
    ) -> OpensshTunnel:
        """Log in by one of them; see boundary.TunnelCarrier."""
        host = f"stream {await self._stream.login_name(profile)}"
        order = list(self._possible)
        if self._memory.login_of(host) == self._w.name:
            order.reverse()
        refusals: list[TunnelRefusedError] = []
        for self._now in order:
            try:
                made = await self._now.connect(profile, label, device, prompter)
            except TunnelRefusedError as error:
                refusals.append(error)
                continue
            self._memory.note(host, self._now.name)
            self._tell(refusals)
            return made
        raise _both(refusals)

    def _tell(self, refusals: Sequence[SshvpnError]) -> None:
        if refusals:
            other = self._w if self._now is self._stream else self._stream
            self.reason = f"not {other.name}: {refusals[0]}"
            log.info("transport %s, %s", self.name, self.reason)
        elif self._now is self._stream:
            self.reason = "the server can"
        elif len(self._possible) > 1:
            self.reason = "stream did not go with this server before"
        else:
            self.reason = "it alone goes"


def _both(refusals: Sequence[TunnelRefusedError]) -> SshvpnError:
    """Return why neither goes: the last one's words, and the first one's if they are others."""
    *others, last = refusals
    more = [str(one) for one in others if str(one) != str(last)]
    if not more:
        return last
    return type(last)(f"{last}; nor does the transport before it: {more[0]}", last.hint)

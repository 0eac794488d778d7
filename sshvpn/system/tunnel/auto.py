"""The transport that is not chosen by a person: ``stream`` where it goes, else ``w``.

What went with a server is tried first the next time, as long as what is known of it is not old:
``w`` for a day after ``stream`` was refused, where it will not be otherwise by itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sshvpn.boundary import Prompter
from sshvpn.errors import SshvpnError, TunnelRefusedError, UsageError
from sshvpn.model import TunnelProfile
from sshvpn.remote.protocol import Facts
from sshvpn.system.tunnel.host_memory import HostMemory
from sshvpn.system.tunnel.stream import StreamCarrier
from sshvpn.system.tunnel.w import OpensshCarrier, OpensshTunnel

log = logging.getLogger("sshvpn.tunnel")

T = TypeVar("T")

_KEPT_S = 24 * 60 * 60
"""After that a server is asked for ``stream`` again: it may have python3 by now."""
_REFUSED = re.compile(r"w (\d{1,12})")


class AutoCarrier:
    """Implements boundary.TunnelCarrier with whichever of the two goes."""

    def __init__(
        self,
        directory: Path | None = None,
        hosts: Path | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._stream = StreamCarrier(directory, hosts)
        self._w = OpensshCarrier(directory, hosts)
        self._memory = HostMemory(hosts)
        self._time = now
        self._stood: dict[str, OpensshCarrier] = {}
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

    async def look(
        self, profile: TunnelProfile, label: str, prompter: Prompter | None
    ) -> Facts | None:
        """See boundary.TunnelCarrier; nothing is remembered of it."""
        facts, _ = await self._by_trying(
            await self._host(profile), lambda: self._now.look(profile, label, prompter)
        )
        return facts

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
        host = await self._host(profile)
        made, refusals = await self._by_trying(
            host, lambda: self._now.connect(profile, label, device, prompter)
        )
        self._note(host, refusals)
        return made

    async def _host(self, profile: TunnelProfile) -> str:
        """Return by what the server is remembered."""
        return f"stream {await self._stream.login_name(profile)}"

    async def _by_trying(
        self, host: str, attempt: Callable[[], Awaitable[T]]
    ) -> tuple[T, Sequence[TunnelRefusedError]]:
        """Return what ``attempt`` gives with the first that goes, and why others before do not."""
        refusals: list[TunnelRefusedError] = []
        order = self._order(host)
        for self._now in order:
            try:
                made = await attempt()
            except TunnelRefusedError as error:
                refusals.append(error)
                continue
            return made, refusals
        raise _both(refusals)

    def _order(self, host: str) -> Sequence[OpensshCarrier]:
        """Return what is tried, in its order; first what stood: the device is made for that."""
        first = self._stood.get(host)
        if first is None and is_refused(self._memory.login_of(host), self._time()):
            first = self._w
        return sorted(self._possible, key=lambda carrier: carrier is not first)

    def _note(self, host: str, refusals: Sequence[TunnelRefusedError]) -> None:
        """Keep what stands now, and what the next one needs to know of it."""
        if self._now is self._stream:
            self._memory.note(host, self._now.name)
        elif any(error.is_lasting for error in refusals):
            self._memory.note(host, refusal(self._time()))
        if self._stood.get(host) is not self._now:
            self._tell(refusals)
        self._stood[host] = self._now

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


def refusal(now: float) -> str:
    """Return what is remembered of a server that has refused ``stream`` at NOW."""
    return f"w {int(now)}"


def is_refused(known: str | None, now: float) -> bool:
    """Whether what is KNOWN of a server says so, and is not too old at NOW."""
    told = _REFUSED.fullmatch(known or "")
    return told is not None and 0 <= now - int(told[1]) < _KEPT_S


def _both(refusals: Sequence[TunnelRefusedError]) -> SshvpnError:
    """Return why neither goes: the last one's words, and the first one's if they are others."""
    *others, last = refusals
    more = [str(one) for one in others if str(one) != str(last)]
    if not more:
        return last
    return type(last)(f"{last}; nor does the transport before it: {more[0]}", last.hint)

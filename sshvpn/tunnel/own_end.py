"""This machine's end of a tunnel as its session made it last: the device, and what hangs off it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from sshvpn.boundary import LocalEnd
from sshvpn.errors import PrivilegeError, SshvpnError
from sshvpn.frozen import dataclass
from sshvpn.model import TunnelProfile
from sshvpn.plan import marks
from sshvpn.plan.diff import diff
from sshvpn.plan.request import Bypass, Facts
from sshvpn.plan.settings import device_sysctls
from sshvpn.plan.state import Firewall, Gate, Link, NetworkState, nothing
from sshvpn.tunnel.surroundings import Identity
from sshvpn.tunnel.telling import tell_local

log = logging.getLogger("sshvpn.tunnel")

MOMENTS_S = 2.0
"""So long what was seen is trusted: what has changed since then is followed once it runs."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What this machine was like, at a time of ``time.monotonic``."""

    here: Facts
    at: float

    @property
    def is_recent(self) -> bool:
        """Whether that was moments ago."""
        return time.monotonic() - self.at <= MOMENTS_S


class OwnEnd:
    """Makes this end what it shall be, and knows what it was made last (``state``)."""

    def __init__(self, local: LocalEnd, identity: Identity) -> None:
        self._local = local
        self._identity = identity
        self._is_fresh = True
        self.unit: int | None = None
        self.bypass: Bypass | None = None
        self.state = nothing(identity.label)

    @property
    def device(self) -> str | None:
        """The device's name, None before there is one."""
        return None if self.unit is None else marks.device_name(self.unit)

    async def ensure_bypass(self) -> None:
        """Let ssh, which is this process's child, go around a default route."""
        if self.bypass is None:
            await self._local.open()
            self.bypass = await self._local.bypass()

    async def ensure_device(self, profile: TunnelProfile, default_mtu: int) -> int:
        """Make the device that packets go through, and return its unit: no addresses yet."""
        unit = self.unit = await self._local.open()
        if self.state.link is None:
            label = self._identity.label
            mtu = profile.mtu or default_mtu
            owner = self._identity.owner
            link = Link(unit, label, owner, mtu, has_queues=profile.has_queues)
            own = device_sysctls(unit, mtu, await self._local.facts())
            # An end that was just opened has nothing that would have to be read.
            now, self._is_fresh = nothing(label) if self._is_fresh else None, False
            await self.apply(NetworkState(label, link=link, sysctls=own), now)
        return unit

    async def see(self) -> Seen:
        """Return what this machine is like now."""
        return Seen(await self._local.facts(), time.monotonic())

    async def apply(self, wanted: NetworkState, now: NetworkState | None = None) -> None:
        """Make it ``wanted``; ``now`` is what is there, where that need not be read."""
        steps = diff(now or await self._local.read(), wanted)
        await self._local.apply(steps)
        tell_local(steps)
        self.state = wanted

    async def close_gate(self) -> None:
        """Let nothing through any more; the device and its routes stay."""
        table = self.state.table
        if not isinstance(table, Firewall):
            return
        try:
            now = await self._local.read()
            await self.apply(self._closed(table, now), now)
        except PrivilegeError:  # the helper has gone, and all with it
            pass
        except SshvpnError as error:
            # Without a carrier the device takes nothing, whatever the rules let through.
            log.warning("not closed: %s", error)

    def _closed(self, table: Firewall, now: NetworkState) -> NetworkState:
        """Return what it shall be without a connection; at other adapters all stays as it is.

        One of them may have gone since the last look, and nothing can be made there.
        """
        own = {sysctl for sysctl in self.state.sysctls if sysctl.interface == self.device}
        others = {sysctl for sysctl in now.sysctls if sysctl.interface != self.device}
        return replace(
            self.state,
            table=replace(table, gate=Gate.AWAY),
            sysctls=frozenset(own | others),
            neighbours=now.neighbours,
            accepts=now.accepts,
        )

    async def remove(self) -> None:
        """Remove all, for good; what cannot be is told."""
        for text in await self._local.close():
            log.warning("not removed: %s", text)

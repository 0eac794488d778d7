"""What ``sshvpn up`` would change on both machines, as commands; nothing is changed.

It asks both sides and the LAN what they are like, as a session does, and stops where that one
would begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sshvpn import ends
from sshvpn.boundary import Interfaces, LocalView, Prober, Prompter, TunnelCarrier
from sshvpn.ends import Site
from sshvpn.errors import UnreachableError
from sshvpn.frozen import dataclass
from sshvpn.model import InterfaceAddress, TunnelProfile
from sshvpn.plan.desired import desired
from sshvpn.plan.diff import diff
from sshvpn.plan.render import render
from sshvpn.plan.request import BypassCgroup
from sshvpn.plan.state import Gate, nothing
from sshvpn.remote import protocol, render as remote_render
from sshvpn.remote.facts import Device
from sshvpn.sharing import LanSharing
from sshvpn.tunnel.first_look import first_look, refuse_taken_ports, refuse_unknown_adapters
from sshvpn.tunnel.lan_address import LanAddress
from sshvpn.tunnel.surroundings import Identity


@dataclass(frozen=True, slots=True)
class Scene:
    """What of the outside is looked at."""

    local: LocalView
    carrier: TunnelCarrier
    interfaces: Interfaces
    sharing: LanSharing
    prober: Prober


async def rehearse(
    profile: TunnelProfile, identity: Identity, outside: Scene, prompter: Prompter | None
) -> list[str]:
    """Return the lines: this machine's first, then the server's, each with a heading.

    Raises what would stop ``up``, the end of its time too. Asks no question about sharing: a
    network that is not trusted is not shared with, unless the command line says so.
    """
    patience = Patience(profile.timeout_s, prompter)
    asked = None if prompter is None else patience
    return await patience.within(_rehearse(profile, identity, outside, asked))


async def _rehearse(
    profile: TunnelProfile, identity: Identity, outside: Scene, prompter: Prompter | None
) -> list[str]:
    refuse_unknown_adapters(profile, outside.interfaces.names())
    await outside.carrier.check(profile)
    site = await _look(profile, identity, outside, prompter)
    addresses = ends.choose_addresses(site)
    services = ends.services_of(site)
    refuse_taken_ports(site, services, outside.prober)
    wanted = desired(ends.local_plan(site, addresses, services, Gate.OPEN), site.local)
    here = [render(step) for step in diff(nothing(identity.label), wanted)]
    if isinstance(site.bypass, BypassCgroup):  # for the shell that ssh is typed into
        group = f"/sys/fs/cgroup/{site.bypass.path}"
        here.insert(0, f"mkdir {group} && echo $$ >{group}/cgroup.procs")
    there: list[str] = []
    if site.remote is not None and site.can_configure:
        device, owner = remote_render.expected_device(site.remote, by_ssh=site.is_guarded)
        end = ends.remote_end(site, addresses, services)
        there = remote_render.render(
            end,
            site.remote,
            identity.remote_label,
            device,
            owner,
            has_queues=profile.has_queues,
        )
    return [
        "# this machine, as root:",
        *_lines(here),
        f"# {profile.host}, as root:",
        *_lines(there or ["# nothing: this login may change nothing there"]),
    ]


async def _look(
    profile: TunnelProfile, identity: Identity, outside: Scene, prompter: Prompter | None
) -> Site:
    unit = await outside.local.unit()
    remote = await _look_around(profile, identity, outside, prompter)
    sharing = outside.sharing
    shared: Sequence[InterfaceAddress] = ()
    if profile.lan is not False:
        shared, _ = await asyncio.to_thread(sharing.look)
        if profile.lan_trusts:
            shared = await asyncio.to_thread(sharing.addresses)
    return Site(
        profile=profile,
        label=identity.label,
        unit=unit,
        owner=identity.owner,
        local=await outside.local.facts(),
        remote=_with_device(profile, remote),
        shared=tuple(shared),
        peers=tuple(await outside.carrier.peers(profile)),
        bypass=await outside.local.bypass() if profile.has_default else None,
        default_mtu=outside.carrier.default_mtu,
        is_guarded=outside.carrier.is_guarded,
    )


async def _look_around(
    profile: TunnelProfile, identity: Identity, outside: Scene, prompter: Prompter | None
) -> protocol.Facts | None:
    """Return what the server is like. Raises what the LAN has against it, as a session does."""
    address = LanAddress(outside.prober)
    looking = asyncio.create_task(first_look(profile, outside.sharing, address, waits=False))
    try:
        remote = await outside.carrier.look(profile, identity.remote_label, prompter)
        await looking
        await address.settle()
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await address.close()
    return remote


def _with_device(profile: TunnelProfile, facts: protocol.Facts | None) -> protocol.Facts | None:
    """Return ``facts`` with the administrator's device, which a login without a tunnel has not."""
    if facts is None or profile.remote_device is None:
        return facts
    device = Device(profile.remote_device, 0, is_up=True, mtu=protocol.LARGEST_MTU, owner=None)
    return replace(facts, device=device)


def _lines(commands: Iterable[str]) -> Iterator[str]:
    for command in commands:
        yield from command.splitlines()


class Patience:
    """So many ``seconds`` are waited (None: for ever); not counted while somebody is asked.

    Implements boundary.Prompter, where there is ``inner``.
    """

    def __init__(self, seconds: float | None, inner: Prompter | None) -> None:
        self._left_s = seconds
        self._inner = inner
        self._timer: asyncio.TimerHandle | None = None
        self._attempt: asyncio.Task[list[str]] | None = None
        self._is_over = False

    async def within(self, attempt: Coroutine[Any, Any, list[str]]) -> list[str]:
        """Return what ``attempt`` gives. Raises UnreachableError when the time is over."""
        self._attempt = asyncio.create_task(attempt)
        self._go_on()
        try:
            return await self._attempt
        except asyncio.CancelledError:
            if self._is_over:
                raise UnreachableError.timed_out() from None
            raise
        finally:
            self._stand_still()

    def is_there(self) -> bool:
        """Whether there is anybody to ask; see boundary.Prompter."""
        return self._inner is not None and self._inner.is_there()

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        """Return what was typed; the clock stands still meanwhile."""
        if self._inner is None:
            return None
        self._stand_still()
        try:
            return await self._inner.ask(prompt, echo=echo)
        finally:
            self._go_on()

    async def tell(self, text: str) -> None:
        """Show a line."""
        if self._inner is not None:
            await self._inner.tell(text)

    def _go_on(self) -> None:
        if self._left_s is not None:
            self._timer = asyncio.get_running_loop().call_later(self._left_s, self._end)

    def _stand_still(self) -> None:
        if self._timer is not None:
            self._left_s = max(0.0, self._timer.when() - asyncio.get_running_loop().time())
            self._timer.cancel()

    def _end(self) -> None:
        self._is_over = True
        if self._attempt is not None:
            self._attempt.cancel()

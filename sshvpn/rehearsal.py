"""What ``sshvpn up`` would change on both machines, as commands; nothing is changed.

It asks both sides what they are like, as a session does, and stops where that one would begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from sshvpn import ends
from sshvpn.boundary import Prompter
from sshvpn.ends import Site
from sshvpn.model import InterfaceAddress, TunnelProfile
from sshvpn.plan.desired import desired
from sshvpn.plan.diff import diff
from sshvpn.plan.render import render
from sshvpn.plan.request import BypassUser
from sshvpn.plan.state import Gate, nothing
from sshvpn.remote import protocol, render as remote_render
from sshvpn.remote.facts import Device
from sshvpn.tunnel.surroundings import Identity, Surroundings


async def rehearse(
    profile: TunnelProfile, identity: Identity, outside: Surroundings, prompter: Prompter | None
) -> list[str]:
    """Return the lines: this machine's first, then the server's, each with a heading.

    Raises what would stop ``up``. Asks no question about sharing: a network that is not trusted
    is not shared with, unless the command line says so.
    """
    site = await _look(profile, identity, outside, prompter)
    addresses = ends.choose_addresses(site)
    services = ends.services_of(site)
    wanted = desired(ends.local_plan(site, addresses, services, Gate.OPEN), site.local)
    here = [render(step) for step in diff(nothing(identity.label), wanted)]
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
    profile: TunnelProfile, identity: Identity, outside: Surroundings, prompter: Prompter | None
) -> Site:
    unit = await outside.local.open()
    remote = await outside.carrier.look(profile, identity.remote_label, prompter)
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
        # By its cgroup, when it runs: that is made by the helper alone.
        bypass=BypassUser(identity.owner) if profile.has_default and identity.owner else None,
        default_mtu=outside.carrier.default_mtu,
        is_guarded=outside.carrier.is_guarded,
    )


def _with_device(profile: TunnelProfile, facts: protocol.Facts) -> protocol.Facts:
    """Return ``facts`` with the administrator's device, which a login without a tunnel has not."""
    if profile.remote_device is None:
        return facts
    device = Device(profile.remote_device, 0, is_up=True, mtu=protocol.LARGEST_MTU, owner=None)
    return replace(facts, device=device)


def _lines(commands: Iterable[str]) -> Iterator[str]:
    for command in commands:
        yield from command.splitlines()

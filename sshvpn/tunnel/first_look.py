"""What a tunnel looks at before it runs for the first time: whether what it will take is free."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sshvpn import ends
from sshvpn.boundary import Prober
from sshvpn.ends import Service, Site
from sshvpn.errors import AdapterAwayError, UsageError
from sshvpn.model import TcpEndpoint, TunnelProfile
from sshvpn.plan import prefixes
from sshvpn.sharing import LanSharing
from sshvpn.tunnel.lan_address import LanAddress
from sshvpn.tunnel.listeners import wanted_listeners


def refuse_unknown_adapters(profile: TunnelProfile, known: Sequence[str]) -> None:
    """Raise UsageError where an adapter of the LAN is none of those that are ``known``."""
    for name in profile.lan_interfaces:
        if name not in known:
            raise UsageError(
                f"--lan-interface {name}: no adapter of this machine",
                f"there are: {', '.join(known)}",
            )


async def first_look(
    profile: TunnelProfile, sharing: LanSharing, remote: LanAddress, *, waits: bool
) -> None:
    """Look at the LAN while ssh logs in: its router, and whether ``remote`` may be claimed there.

    Not where the LAN is not shared with. Raises TakenError, UsageError for an address that no
    machine there can have, and for one that is in none of its networks UsageError, or where a
    service ``waits`` for such a network AdapterAwayError.
    """
    address = profile.lan_address
    if profile.lan is False or address is None:
        await remote.forget()
    if profile.lan is False:
        return
    here = await asyncio.to_thread(sharing.addresses)
    if address is None:
        await asyncio.to_thread(sharing.look)
        return
    interface = ends.interface_of(address, here)
    if interface is None:
        networks = ", ".join(dict.fromkeys(one.network for one in here)) or "there is none"
        kind = AdapterAwayError if waits else UsageError
        raise kind(
            f"--lan-address {address} is in no network of the LAN",
            f"name a free address of one: {networks}",
        )
    for network in (one.network for one in here):
        why = prefixes.why_no_machine(address, network)
        if why:
            raise UsageError(f"--lan-address {address} is {why}", "name a free address of it")
    await remote.claim(address, interface)


def refuse_taken_ports(site: Site, services: Sequence[Service], prober: Prober) -> None:
    """Raise TakenError where a published port would hide a service of this machine.

    Where ssh listens for it instead: what keeps it from that, PrivilegeError too.
    """
    for service in services:
        for here in ends.listen_addresses(service.spec, site.shared):
            if service.port is not None and isinstance(service.spec.listen, int):
                prober.check_free(here.address, service.spec.listen)
    for listener in wanted_listeners(site, services):
        if isinstance(listener.listen, TcpEndpoint):
            prober.check_may_listen(listener.listen.host, listener.listen.port)

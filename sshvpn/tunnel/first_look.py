"""What a tunnel looks at before it runs for the first time: whether what it will take is free."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sshvpn import ends
from sshvpn.boundary import Prober
from sshvpn.ends import Service, Site
from sshvpn.errors import TakenError, UsageError
from sshvpn.sharing import LanSharing


async def first_look(address: str | None, sharing: LanSharing, prober: Prober) -> None:
    """Look at the LAN while ssh logs in: its router, and who has the remote host's ``address``.

    Raises TakenError, and UsageError for an address that is in none of its networks.
    """
    here = await asyncio.to_thread(sharing.addresses)
    if address is None:
        await asyncio.to_thread(sharing.look)
        return
    interface = ends.interface_of(address, here)
    if interface is None:
        networks = ", ".join(dict.fromkeys(one.network for one in here)) or "there is none"
        raise UsageError(
            f"--lan-address {address} is in no network of the LAN",
            f"name a free address of one: {networks}",
        )
    holder = await prober.holder_of(interface, address)
    if holder is not None:
        raise TakenError(
            f"{address} is in use on {interface}, by {holder}", "name a free address of the LAN"
        )


def refuse_taken_ports(site: Site, services: Sequence[Service], prober: Prober) -> None:
    """Raise TakenError where a published port would hide a service of this machine."""
    for service in services:
        for here in ends.listen_addresses(service.spec, site.shared):
            if service.port is not None and isinstance(service.spec.listen, int):
                prober.check_free(here.address, service.spec.listen)

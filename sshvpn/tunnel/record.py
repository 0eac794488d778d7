"""What ``status --json`` tells of a tunnel; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sshvpn import ends
from sshvpn.ends import Service, Site
from sshvpn.frozen import dataclass
from sshvpn.listeners import url_of
from sshvpn.model import Listener, TcpEndpoint, TcpPath, TunnelProfile
from sshvpn.path_report import path_record
from sshvpn.plan.request import TunnelAddresses


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tunnel stands. ``routes`` are the prefixes that lead into the device now.

    ``listeners`` are those of ssh itself, for services that the kernel cannot lead to.
    ``received`` and ``sent`` are bytes.
    """

    device: str | None
    site: Site | None
    addresses: TunnelAddresses | None
    services: tuple[Service, ...]
    routes: frozenset[str]
    listeners: Mapping[Listener, TcpEndpoint]
    rtt_s: float | None
    received: int | None
    sent: int | None
    path: TcpPath | None = None


def record(profile: TunnelProfile, transport: str, now: Standing, reason: str) -> dict[str, Any]:
    """Return the record, without what the supervisor knows. What is unknown yet is None.

    ``reason`` is why it is this transport.
    """
    site, addresses = now.site, now.addresses
    shared = site.shared if site else ()
    return {
        "name": profile.name,
        "host": profile.host,
        "transport": transport,
        "transport_reason": reason,
        "device": now.device,
        "mtu": site.mtu if site else None,
        "local_address": addresses.local4 if addresses else None,
        "remote_address": addresses.remote4 if addresses else None,
        "local_addresses": list(addresses.local) if addresses else None,
        "remote_addresses": list(addresses.remote) if addresses else None,
        "routes": sorted(now.routes),
        "lan": [
            {"interface": one.interface, "network": one.network, "address": one.address}
            for one in shared
        ],
        "published": list(_published(site, now)) if site else [],
        "congestion_control": path_record(now.path),
        "rtt_ms": None if now.rtt_s is None else round(now.rtt_s * 1000, 3),
        "rx_bytes": now.received,
        "tx_bytes": now.sent,
    }


def _published(site: Site, now: Standing) -> Iterator[dict[str, Any]]:
    for index, service in enumerate(now.services):
        for where, survives in _places(index, service, site, now):
            yield {
                "listen": str(where),
                "target": str(service.target),
                "url": url_of(service.spec, where),
                "survives_reconnect": survives,
            }


def _places(
    index: int, service: Service, site: Site, now: Standing
) -> Iterator[tuple[TcpEndpoint, bool]]:
    """Yield where the service is reached, and whether its connections outlive one of ssh's."""
    if service.port is not None and isinstance(service.spec.listen, int):
        for here in ends.listen_addresses(service.spec, site.shared):
            if here.is_ipv6 == (":" in service.target.host):
                yield TcpEndpoint(here.address, service.spec.listen), True
    for listener, where in now.listeners.items():
        if listener.spec == index:
            yield where, False

"""The adapters of this machine: addresses by netifaces, kinds and routes by pyroute2.

Only reads. The reader of pyroute2's messages is loaded by what needs it: the LAN, its router, and
the first change.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sshvpn.model import InterfaceAddress, LanNetwork
from sshvpn.system.network import neighbours
from sshvpn.system.network.adapter import Adapter, is_lan_adapter, is_lan_address, prefix_length
from sshvpn.system.network.device_counters import device_counters
from sshvpn.system.network.monitor import changes, listen, name_of

_IFF_UP = 0x1
_IFF_BROADCAST = 0x2
_IFF_LOOPBACK = 0x8

_IFA_F_UNUSABLE = 0x01 | 0x08 | 0x20 | 0x40
"""Temporary (RFC 8981: it goes, the stable one stays), doubled, deprecated, tentative."""

_CHANGES = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h)."""
_COALESCE_S = 0.1

_MAIN_TABLE = 254
_RESOLVE_WITHIN_S = 1.3
"""A solicitation that is lost is followed by another one a second later (arp(7))."""
_RESOLVE_EVERY_S = 0.02


class SystemInterfaces:
    """The real :class:`sshvpn.boundary.Interfaces`. Holds nothing open between calls."""

    def names(self) -> Sequence[str]:
        """Return the names of all adapters."""
        import netifaces

        return list(dict.fromkeys(_without_label(name) for name in netifaces.interfaces()))

    def addresses(self, interface: str) -> Sequence[InterfaceAddress]:
        """Return the addresses of one adapter that can be listened on; IPv4 first.

        Not the link-local ones, and of IPv6 not those that are temporary, deprecated, doubled
        or not yet proven unique. An adapter that is not there has none.
        """
        import netifaces

        unusable = _unusable_ipv6()
        found: list[InterfaceAddress] = []
        for name in netifaces.interfaces():
            if _without_label(name) == interface:
                found += _addresses_of(interface, _ifaddresses(name))
        usable = [one for one in found if one.address not in unusable]
        return sorted(usable, key=lambda one: one.is_ipv6)

    def lan(self) -> Sequence[InterfaceAddress]:
        """Return the addresses of the LAN as cli.md defines it, of all its adapters."""
        return [
            address
            for adapter in _read_adapters()
            if is_lan_adapter(adapter)
            for address in self.addresses(adapter.name)
            if is_lan_address(address.address)
        ]

    def network_of(self, address: InterfaceAddress) -> LanNetwork:
        """Return the network around ``address`` with its router's MAC.

        The router is the adapter's default route: IPv4's, and IPv6's where there is no such.
        May take 1.3 s when the router has not been spoken to yet, or is away.
        """
        mac = _router_mac(address.interface)
        return LanNetwork(address.interface, address.network, mac)

    def counters(self, interface: str) -> tuple[int, int] | None:
        """Return the bytes received and sent, None where it is not there."""
        return device_counters(interface)

    def ipv4_router(self, interface: str) -> str | None:
        """Return the router of the adapter's IPv4 default route, None where there is none."""
        router = _default_router(_index_of(interface))
        return None if router is None or ":" in router else router

    async def changes(self, unit: int | None = None) -> AsyncGenerator[None, None]:
        """Yield once at the start, and after every change of a link, an address or a route.

        With a tunnel's ``unit`` not after those of other tunnels' devices alone. The first one lets
        whoever follows look again: nothing is missed between the last look and the beginning.
        Changes within a tenth of a second are one; what the kernel had to drop (ENOBUFS) counts
        as a change.
        """

        def heed(data: bytes) -> bool:
            if unit is None and "pyroute2" not in sys.modules:
                return True  # a program of the user's own: it would load all of pyroute2, 14 MB
            from sshvpn.system.network.concern import concerns_routing

            return concerns_routing(data, unit, name_of)

        with listen(_CHANGES) as monitor:
            async for _ in changes({monitor: heed}, _COALESCE_S):
                yield None


# Addresses ---------------------------------------------------------------------------------


def _without_label(name: str) -> str:
    """Return the adapter of an alias such as ``eth0:1``, which getifaddrs(3) gives as a name."""
    return name.partition(":")[0]


def _ifaddresses(name: str) -> Mapping[int, Sequence[Mapping[str, str]]]:
    import netifaces

    try:
        found: Mapping[int, Sequence[Mapping[str, str]]] = netifaces.ifaddresses(name)
    except ValueError:  # it has none, or it has gone
        return {}
    return found


def _addresses_of(
    interface: str, found: Mapping[int, Sequence[Mapping[str, str]]]
) -> Iterator[InterfaceAddress]:
    index = _index_of(interface)
    told = [
        (address, prefix_length(entry.get("netmask"), is_ipv6=family == socket.AF_INET6))
        for family in (socket.AF_INET, socket.AF_INET6)
        for entry in found.get(family, ())
        if (address := entry.get("addr", "").partition("%")[0])
    ]
    networks = [ipaddress.ip_network(f"{at}/{length}", strict=False) for at, length in told]
    for address, length in told:
        plain = ipaddress.ip_address(address)
        if plain.is_link_local:
            continue
        lengths = [length]
        if plain.version == 6 and length == plain.max_prefixlen:  # noqa: PLR2004 (the family)
            # DHCPv6 gives an address and no network (RFC 8415): that is another address's.
            lengths = [network.prefixlen for network in networks if plain in network]
        yield InterfaceAddress(interface, address, min(lengths), index)


def _index_of(interface: str) -> int:
    """Return the kernel's number of an adapter, 0 where it has gone."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def _unusable_ipv6() -> set[str]:
    """Return the IPv6 addresses that are not to be listened on (proc(5), if_inet6)."""
    unusable: set[str] = set()
    # Of the thread, not the process: threads may be in network namespaces of their own.
    with contextlib.suppress(OSError):
        for line in Path("/proc/thread-self/net/if_inet6").read_text("ascii").splitlines():
            digits, _, _, _, flags, *_ = line.split()
            if int(flags, 16) & _IFA_F_UNUSABLE:
                unusable.add(str(ipaddress.IPv6Address(int(digits, 16))))
    return unusable


# Links, routes, neighbours: rtnetlink(7) ---------------------------------------------------


def _read_adapters() -> list[Adapter]:
    from sshvpn.system.network import rtnetlink

    links = {link["index"]: link for link in rtnetlink.links()}
    return [_adapter(link, links, depth=4) for link in links.values()]


def _adapter(link: Any, links: Mapping[int, Any], depth: int) -> Adapter:
    """Return the record of ``link``; what it stands on is followed ``depth`` times."""
    flags = link["flags"]
    lower = link.get_attr("IFLA_LINK")
    is_here = link.get_attr("IFLA_LINK_NETNSID") is None and lower != link["index"]
    below = links.get(lower) if is_here and depth else None
    return Adapter(
        name=link.name,
        kind=link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
        is_up=bool(flags & _IFF_UP),
        is_broadcast=bool(flags & _IFF_BROADCAST),
        is_loopback=bool(flags & _IFF_LOOPBACK),
        master=link.get_attr("IFLA_MASTER"),
        lower=None if below is None else _adapter(below, links, depth - 1),
    )


def _router_mac(interface: str) -> str | None:
    """Return the MAC of the adapter's router, or None where there is none or it is away."""
    index = _index_of(interface)
    router = _default_router(index)
    if router is None:
        return None
    mac = _mac(index, router)
    if mac is None:
        neighbours.speak_to(router, interface, index)
        deadline = time.monotonic() + _RESOLVE_WITHIN_S
        while mac is None and time.monotonic() < deadline:
            time.sleep(_RESOLVE_EVERY_S)
            mac = _mac(index, router)
    return mac


def _default_router(index: int) -> str | None:
    """Return the gateway of the best default route by the adapter ``index``, IPv4 first.

    Of the main table only: a VPN puts a default route of its own into another one.
    """
    from sshvpn.system.network import rtnetlink

    if not index:
        return None
    for family in (socket.AF_INET, socket.AF_INET6):
        routers: list[tuple[int, str]] = []
        for route in rtnetlink.routes(family):
            if route["dst_len"] == 0 and route.get_attr("RTA_TABLE") == _MAIN_TABLE:
                metric = route.get_attr("RTA_PRIORITY") or 0
                routers += [(metric, router) for router in _gateways(route, index)]
        if routers:
            return min(routers)[1]
    return None


def _gateways(route: Any, index: int) -> Iterator[str]:
    """Yield the gateways of ``route`` that are by the adapter ``index``."""
    for hop in route.get_attr("RTA_MULTIPATH") or ():
        if hop["oif"] == index:
            yield from _gateway_of(hop)
    if route.get_attr("RTA_OIF") == index:
        yield from _gateway_of(route)


def _gateway_of(hop: Any) -> Iterator[str]:
    via = hop.get_attr("RTA_VIA")  # an IPv6 gateway of an IPv4 route (RFC 5549)
    gateway = via["addr"] if via else hop.get_attr("RTA_GATEWAY")
    if gateway:
        yield gateway


def _mac(index: int, address: str) -> str | None:
    """Return the MAC that the kernel has for a neighbour, confirmed or not, or None."""
    known = neighbours.find(index, address)
    return known.mac if known else None

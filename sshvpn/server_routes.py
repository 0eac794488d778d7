"""What the server's own routes mean for a tunnel; pure.

::

    what is wanted ───┐
                      ├──> the adapters by which the server forwards what comes from the tunnel
    the server's facts┘    ├──> whether one address is led to so
                           └──> what is in the way of a LAN that is routed into the tunnel there
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from sshvpn.errors import TakenError, UsageError
from sshvpn.model import DEFAULT_ROUTE, TunnelProfile
from sshvpn.plan import prefixes
from sshvpn.remote.facts import PREPARED_DEVICE, Facts, RemoteRoute

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_IPV6 = 6


def ways_out(profile: TunnelProfile, server: Facts) -> list[str]:
    """Return the server's adapters by which the routed networks are reached, sorted."""
    own = _own_device(server)
    known = [(r.prefix, ways) for r in _known(server) if (ways := set(r.interfaces) - {"lo", own})]
    found: set[str] = set()
    for wanted in _wanted_networks(profile):
        # Those inside the wanted network, and the narrowest that holds all of it. Who wants all
        # does not mean the tunnels of other gateways.
        inside = [w for p, w in known if p.version == wanted.version and is_in(p, wanted)]
        if wanted.prefixlen == 0:
            inside = [{w for w in ways if not w.startswith(PREPARED_DEVICE)} for ways in inside]
        around = [(p, w) for p, w in known if p.version == wanted.version and is_in(wanted, p)]
        around.sort(key=lambda entry: -entry[0].prefixlen)
        found.update(*inside, *(ways for _, ways in around[:1]))
    return sorted(found)


def reaches_ipv6(server: Facts) -> bool:
    """Whether the server has a default route of IPv6."""
    return any(r.prefix.version == _IPV6 and r.prefix.prefixlen == 0 for r in _known(server))


def is_led_to(profile: TunnelProfile, server: Facts, address: Address) -> bool:
    """Whether what comes from the tunnel for ``address`` arrives.

    It is the server's own, or reached by an adapter to which the routed networks lead.
    """
    if address.is_loopback or any(address == own.address for own in server.addresses):
        return True
    holding = [r for r in _known(server) if address in r.prefix]
    if address.is_unspecified or not holding:
        return False
    narrowest = max(holding, key=lambda route: route.prefix.prefixlen)
    # Of several next hops any may be taken.
    ways = narrowest.interfaces
    return bool(ways) and set(ways) <= set(ways_out(profile, server))


def in_the_way(server: Facts, lan: prefixes.Network) -> UsageError | TakenError | None:
    """Return why ``lan``, which is ours, cannot lead into the tunnel at the server; None: it can.

    Were it the server's own as well, that would lose what it has there, the connection of ssh
    first. A wider route of the server, its default route above all, only gives way within it.
    """
    hint = "leave out --no-nat (nat = false): it then appears under the tunnel's addresses"
    for network, interface in _own_networks(server):
        if prefixes.has_overlap(network, lan):
            return UsageError(
                f"the route back to the LAN {lan} overlaps {network}, the server's own network on "
                f"{interface}",
                hint,
            )
    for route in _other_ways(server):
        is_link = route.via is None and bool(route.interfaces)
        if route.prefix == lan or (is_link and is_in(route.prefix, lan)):
            return TakenError(
                f"the server has a route to {route.prefix} already, "
                f"by {route.via or ', '.join(route.interfaces) or 'another way'}",
                hint,
            )
    return None


def _own_device(server: Facts) -> str | None:
    return server.device.name if server.device else None


def _own_networks(server: Facts) -> Iterator[tuple[prefixes.Network, str]]:
    """Yield the networks that the server has addresses in, but for the tunnel's."""
    own = _own_device(server)
    for one in server.addresses:
        if one.interface != own:
            yield one.network, one.interface
            if one.address not in one.network:  # point to point: the network is the peer's
                yield ipaddress.ip_network(one.address), one.interface


def _other_ways(server: Facts) -> Iterator[RemoteRoute]:
    """Yield the routes of the main table that are not the tunnel's."""
    own = _own_device(server)
    for route in server.routes:
        if route.table == "main" and own not in route.interfaces:
            yield route


def _known(server: Facts) -> Iterator[RemoteRoute]:
    """Yield the routes by which packets leave, but for those into the tunnel itself."""
    own = _own_device(server)
    for route in server.routes:
        if route.kind == "unicast" and set(route.interfaces) != {own}:
            yield route


def _wanted_networks(profile: TunnelProfile) -> list[prefixes.Network]:
    texts = [route for route in profile.routes if route != DEFAULT_ROUTE]
    if profile.has_default:
        texts += [prefixes.ALL4, prefixes.ALL6]
    return [prefixes.parse(text) for text in texts]


def is_in(inner: prefixes.Network, outer: prefixes.Network) -> bool:
    """Whether all of ``inner`` is in ``outer``; never across families."""
    return inner.prefixlen >= outer.prefixlen and prefixes.has_overlap(inner, outer)

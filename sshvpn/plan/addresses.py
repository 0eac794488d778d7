"""The tunnel's own addresses: stable for a profile, colliding with nothing; pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable

from sshvpn.errors import TakenError, UsageError
from sshvpn.plan import prefixes
from sshvpn.plan.request import TunnelAddresses

POOLS = ("100.64.0.0/10", "172.16.0.0/12", "10.0.0.0/8", "198.18.0.0/15")
"""Where IPv4 addresses are looked for, in this order.

RFC 6598 first: homes and offices use RFC 1918. RFC 2544's benchmark range is the last resort.
"""
ULA = "fd00::/8"
_LENGTH4 = 30
_LENGTH6 = 126


def pick(
    seed: str, taken: Iterable[str], *, wanted: str | None = None, has_ipv6: bool = True
) -> TunnelAddresses:
    """Return the addresses of the tunnel ``seed`` (its label).

    ``taken`` are the prefixes of all addresses and routes of both sides; default routes among
    them take nothing. ``wanted`` is what ``--address`` says: ADDRESS/LENGTH of this end, or a
    prefix; the other family is picked as if nothing was said. The same seed gets the same
    addresses as long as these are free.

    Raises TakenError where ``wanted`` collides or every pool is full, UsageError where it has
    no room for two.
    """
    networks = [ipaddress.ip_network(prefix, strict=False) for prefix in taken]
    networks = [network for network in networks if network.prefixlen > 0]
    chosen = _wanted(wanted, networks) if wanted else None
    is_four = chosen is not None and chosen[0].version == 4  # noqa: PLR2004 (the family's name)
    four = chosen if chosen and is_four else _picked(seed, POOLS, _LENGTH4, networks)
    if not has_ipv6:
        return TunnelAddresses(str(four[0]), str(four[1]))
    six = chosen if chosen and not is_four else _picked(seed, (ULA,), _LENGTH6, networks)
    return TunnelAddresses(str(four[0]), str(four[1]), str(six[0]), str(six[1]))


_Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _picked(
    seed: str, pools: tuple[str, ...], length: int, taken: list[prefixes.Network]
) -> tuple[_Interface, _Interface]:
    for pool in pools:
        found = _free(seed, ipaddress.ip_network(pool), length, taken)
        if found is not None:
            return _ends(found)
    raise TakenError(
        "no addresses are left for the tunnel: routes cover every pool",
        "name a free network yourself with --address",
    )


def _free(
    seed: str, pool: prefixes.Network, length: int, taken: list[prefixes.Network]
) -> prefixes.Network | None:
    """Return the first free prefix at or behind the seed's own place, around the pool once."""
    size = 2 ** (pool.max_prefixlen - length)
    first = int(pool.network_address)
    count = pool.num_addresses // size
    digest = hashlib.sha256(f"{pool} {seed}".encode()).digest()
    place, seen = int.from_bytes(digest[:16], "big") % count, 0
    while seen < count:
        candidate = ipaddress.ip_network((first + place * size, length))
        blocker = next((n for n in taken if prefixes.has_overlap(n, candidate)), None)
        if blocker is None:
            return candidate
        # Behind what is in the way, at once: it may cover millions of places.
        behind = (int(blocker.broadcast_address) - first) // size + 1
        step = max(behind - place, 1)
        seen += step
        place = 0 if place + step >= count else place + step
    return None


def _wanted(text: str, taken: list[prefixes.Network]) -> tuple[_Interface, _Interface]:
    try:
        given = ipaddress.ip_interface(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not an address", "write it as 10.99.0.1/30") from error
    network = given.network
    blocker = next((n for n in taken if prefixes.has_overlap(n, network)), None)
    if blocker is not None:
        raise TakenError(f"the tunnel's address {text} collides with {blocker}", "name another")
    if given.ip == network.network_address and network.max_prefixlen - network.prefixlen > 1:
        return _ends(network)
    local, remote = _ends(network)
    return (given, remote) if given.ip != remote.ip else (remote, local)


def _ends(network: prefixes.Network) -> tuple[_Interface, _Interface]:
    spare = network.max_prefixlen - network.prefixlen
    if spare == 0:
        raise UsageError(f"{network} has no room for two addresses", "a /30 or /126 has")
    # Of two addresses both can be used (RFC 3021, RFC 6164); else the first is the network's.
    start = int(network.network_address) + (0 if spare == 1 else 1)
    length = network.prefixlen
    return (
        ipaddress.ip_interface((start, length)),
        ipaddress.ip_interface((start + 1, length)),
    )

"""Arithmetic of prefixes; pure. Prefixes are text in the form that :mod:`ipaddress` prints."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from sshvpn.errors import UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ALL4 = "0.0.0.0/0"
ALL6 = "::/0"

_NO_MORE_THAN_MACHINES = 2


def parse(text: str) -> Network:
    """Return the prefix that ``text`` says; an address alone is a prefix of that one.

    Raises UsageError, also for host bits that are set: the prefix that is meant is not known.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise UsageError(f"{text!r} is not a network", "write it as 10.20.0.0/16") from error
        raise UsageError(f"{text} has host bits set", f"did you mean {meant}?") from error


def has_overlap(one: Network, other: Network) -> bool:
    """Whether the two share an address; never across families."""
    return one.version == other.version and (
        one.network_address <= other.broadcast_address  # type: ignore[operator]
        and other.network_address <= one.broadcast_address  # type: ignore[operator]
    )


def why_no_machine(address: str, network: str) -> str:
    """Return what ``address`` is where no machine of ``network`` can have it, "" where one can.

    RFC 1122, section 3.2.1.3; of IPv6 the routers' anycast address (RFC 4291, section 2.6.1). A
    network of two has nothing but machines (RFC 3021, RFC 6164).
    """
    known = ipaddress.ip_network(network)
    wanted = ipaddress.ip_address(address)
    if known.num_addresses <= _NO_MORE_THAN_MACHINES:
        return ""
    if wanted == known.network_address:
        return f"the address of {network} itself"
    if known.version == 4 and wanted == known.broadcast_address:  # noqa: PLR2004 (the family's name)
        return f"the broadcast address of {network}"
    return ""


def without(wanted: Iterable[Network], excluded: Iterable[Network]) -> list[Network]:
    """Return ``wanted`` less ``excluded``, in as few prefixes as possible, IPv4 first."""
    kept = list(wanted)
    for hole in excluded:
        kept = [piece for network in kept for piece in _cut(network, hole)]
    four = [n for n in kept if isinstance(n, ipaddress.IPv4Network)]
    six = [n for n in kept if isinstance(n, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]


def _cut(network: Network, hole: Network) -> list[Network]:
    if not has_overlap(network, hole):
        return [network]
    if hole.prefixlen <= network.prefixlen:
        return []
    if isinstance(network, ipaddress.IPv4Network) and isinstance(hole, ipaddress.IPv4Network):
        return list(network.address_exclude(hole))
    if isinstance(network, ipaddress.IPv6Network) and isinstance(hole, ipaddress.IPv6Network):
        return list(network.address_exclude(hole))
    raise AssertionError((network, hole))

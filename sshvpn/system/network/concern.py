"""Whether a change that the kernel tells of concerns a tunnel, or another one alone; pure.

With fifty tunnels each would else compare both its ends again for every step of each other's
start. What another tunnel has bears its marks (sshvpn.plan.marks); whatever does not surely bear
another tunnel's concerns everybody. Over the bytes of rtnetlink(7) and nfnetlink.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from sshvpn.plan import marks
from sshvpn.plan.netlink import attributes, messages

# linux/rtnetlink.h: the kind of message, and how long what stands before its attributes is.
_LINKS, _ADDRESSES, _ROUTES, _RULES, _NETCONF = (16, 17), (20, 21), (24, 25), (32, 33), (80, 81)
_ADDRESS_SIZE, _LINK_SIZE, _ROUTE_SIZE, _RULE_SIZE, _NETCONF_SIZE = 8, 16, 12, 12, 4
_IFLA_IFNAME, _RTA_OIF, _RTA_PRIORITY, _FRA_PRIORITY, _NETCONFA_IFINDEX = 3, 4, 6, 6, 1
_UNREACHABLE = 7

# linux/netfilter/nfnetlink.h, nf_tables.h
_NFTABLES, _NEW_GENERATION = 10, 15
_NFTABLES_SIZE, _NFTA_TABLE = 4, 1
"""Of a table, and of all that is in one, the first attribute is the table's name."""

NameOf = Callable[[int], str | None]
"""Returns the name of the adapter with that number, None where there is none (any more)."""


def concerns_routing(data: bytes, unit: int, name_of: NameOf) -> bool:
    """Whether NETLINK_ROUTE tells of anything but the devices and rules of others than ``unit``.

    Of an adapter that is gone only its end counts, not what went with it.
    """
    return any(_is_routing_ours(kind, body, unit, name_of) for kind, body in messages(data))


def concerns_firewall(data: bytes, label: str) -> bool:
    """Whether NETLINK_NETFILTER tells of anything but the tables of others than ``label``.

    That a transaction has ended says nothing: what it changed is told before.
    """
    return any(_is_firewall_ours(kind, body, label) for kind, body in messages(data))


def _is_routing_ours(kind: int, body: bytes, unit: int, name_of: NameOf) -> bool:  # noqa: PLR0911 (a list)
    if kind in _LINKS:
        name = attributes(body, _LINK_SIZE).get(_IFLA_IFNAME, b"")
        return _is_device_ours(name.rstrip(b"\0").decode("utf-8", "replace"), unit)
    if kind in _ADDRESSES and len(body) >= _ADDRESS_SIZE:
        return _is_device_ours(name_of(_number(body[4:8])), unit)
    if kind in _ROUTES and len(body) >= _ROUTE_SIZE:
        return _is_route_ours(body, unit, name_of)
    if kind in _RULES:
        priority = attributes(body, _RULE_SIZE).get(_FRA_PRIORITY)
        of = None if priority is None else marks.unit_of_priority(_number(priority))
        return of in (None, unit)
    if kind in _NETCONF:
        index = attributes(body, _NETCONF_SIZE).get(_NETCONFA_IFINDEX)
        # "all" and "default" have negative numbers.
        if index is None or _number(index) >> 31:
            return True
        return _is_device_ours(name_of(_number(index)), unit)
    return True


def _is_route_ours(body: bytes, unit: int, name_of: NameOf) -> bool:
    protocol, kind = body[5], body[7]
    found = attributes(body, _ROUTE_SIZE)
    if protocol == marks.PROTOCOL and kind == _UNREACHABLE and _RTA_PRIORITY in found:
        of = _number(found[_RTA_PRIORITY]) - marks.twin_metric(0)
        return of == unit or not 0 <= of < marks.UNITS
    if _RTA_OIF not in found:  # of several ways, or of none
        return True
    return _is_device_ours(name_of(_number(found[_RTA_OIF])), unit)


def _is_device_ours(name: str | None, unit: int) -> bool:
    return name is not None and marks.unit_of(name) in (None, unit)


def _is_firewall_ours(kind: int, body: bytes, label: str) -> bool:
    if kind >> 8 != _NFTABLES:
        return True
    if kind & 0xFF == _NEW_GENERATION:
        return False
    name = attributes(body, _NFTABLES_SIZE).get(_NFTA_TABLE, b"").rstrip(b"\0")
    return marks.table_label(name.decode("ascii", "replace")) in (None, label)


def _number(value: bytes) -> int:
    return int.from_bytes(value[:4], sys.byteorder)

"""Whether a change that the kernel tells of concerns a tunnel, or another one alone; pure.

With fifty tunnels each would else compare both its ends again for every step of each other's
start. What another tunnel has bears its marks (sshvpn.plan.marks); whatever does not surely bear
another tunnel's concerns everybody. Over the messages of rtnetlink(7) and nfnetlink, as pyroute2
reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from pyroute2.netlink.exceptions import NetlinkDecodeError, NetlinkError
from pyroute2.netlink.marshal import Marshal
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from sshvpn.plan import marks
from sshvpn.system.network.messages import MESSAGES, Link, Netconf, let_go

NameOf = Callable[[int], str | None]
"""Returns the name of the adapter with that number, None where there is none (any more)."""

# linux/rtnetlink.h, linux/netfilter/nf_tables.h
_UNREACHABLE = 7
_NEW_GENERATION = NFNL_SUBSYS_NFTABLES << 8 | 15


class _Nftables(nfgen_msg):  # type: ignore[misc]
    """Of a table, and of all that is in one, the first attribute is the table's name."""

    __slots__ = ()
    nla_map = ((1, "NFTA_TABLE", "cdata"),)


class _Firewall(Marshal):  # type: ignore[misc]
    default_message_class = _Nftables


_FIREWALL = _Firewall()


def concerns_routing(data: bytes, unit: int | None, name_of: NameOf) -> bool:
    """Whether NETLINK_ROUTE tells of anything but the devices and rules of others than ``unit``.

    Of an adapter that is gone only its end counts, not what went with it. What a driver tells of
    its radio (Wireless Extensions, in each scan) concerns nobody; with no ``unit`` all else does.
    """
    told = (one for one in _messages(MESSAGES, data) if not _is_of_a_radio(one))
    return any(unit is None or _is_routing_ours(one, unit, name_of) for one in told)


def concerns_firewall(data: bytes, label: str) -> bool:
    """Whether NETLINK_NETFILTER tells of anything but the tables of others than ``label``.

    That a transaction has ended says nothing: what it changed is told before.
    """
    return any(_is_firewall_ours(one, label) for one in _messages(_FIREWALL, data))


def _messages(marshal: Marshal, data: bytes) -> Iterator[Any]:
    """Yield the messages in ``data``, and None for a rest that cannot be read."""
    read = 0
    try:
        for message in marshal.parse(data):
            read += message["header"]["length"]
            try:
                yield message
            finally:
                let_go(message)
    except (struct.error, NetlinkError, NetlinkDecodeError):
        yield None
        return
    if read != len(data):
        yield None


def _is_of_a_radio(message: Any) -> bool:
    return isinstance(message, Link) and message.get_attr("IFLA_WIRELESS") is not None


def _is_routing_ours(message: Any, unit: int, name_of: NameOf) -> bool:
    match message:
        case Link():
            return _is_device_ours(message.name, unit)
        case ifaddrmsg():
            return _is_device_ours(name_of(message["index"]), unit)
        case rtmsg():
            return _is_route_ours(message, unit, name_of)
        case fibmsg():
            priority = message.get_attr("FRA_PRIORITY")
            return priority is None or marks.unit_of_priority(priority) in (None, unit)
        case Netconf():
            # "all" and "default" have negative numbers.
            index = message.get_attr("NETCONFA_IFINDEX", -1)
            return index < 0 or _is_device_ours(name_of(index), unit)
    return True


def _is_route_ours(route: Any, unit: int, name_of: NameOf) -> bool:
    metric = route.get_attr("RTA_PRIORITY")
    if route["proto"] == marks.PROTOCOL and route["type"] == _UNREACHABLE and metric is not None:
        of = metric - marks.twin_metric(0)
        return of == unit or not 0 <= of < marks.UNITS
    device = route.get_attr("RTA_OIF")
    # None of several ways, or of none.
    return device is None or _is_device_ours(name_of(device), unit)


def _is_device_ours(name: str | None, unit: int) -> bool:
    return name is not None and marks.unit_of(name) in (None, unit)


def _is_firewall_ours(message: Any, label: str) -> bool:
    if not isinstance(message, _Nftables):
        return True
    kind = message["header"]["type"]
    if kind >> 8 != NFNL_SUBSYS_NFTABLES:
        return True
    if kind == _NEW_GENERATION:
        return False
    name = message.get_attr("NFTA_TABLE", b"").rstrip(b"\0")
    return marks.table_label(name.decode("ascii", "replace")) in (None, label)

"""Routes as the kernel tells of them (rtnetlink(7)), and which of them are whose. Pure."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sshvpn.plan import marks
from sshvpn.plan.request import KnownRoute
from sshvpn.plan.state import Route

# linux/rtnetlink.h
_UNICAST, UNREACHABLE = 1, 7
LOCAL_TABLE = 255
FAMILIES: Mapping[int, str] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104
"""The families that matter here, each with the address of its default route."""


class SeenRoute(NamedTuple):
    """What matters here of a route."""

    prefix: str
    device: str | None
    metric: int
    table: int
    kind: int
    protocol: int


def seen(message: Any, names: Mapping[int, str]) -> SeenRoute:
    """Return the route of a message of pyroute2's; ``names`` are the adapters'."""
    return SeenRoute(
        f"{message.get_attr('RTA_DST') or FAMILIES[message['family']]}/{message['dst_len']}",
        names.get(message.get_attr("RTA_OIF")),
        message.get_attr("RTA_PRIORITY") or 0,
        message.get_attr("RTA_TABLE") or message["table"],
        message["type"],
        message["proto"],
    )


def ours(routes: Iterable[SeenRoute]) -> Iterator[tuple[Route, int]]:
    """Yield those of the program's, each with its unit."""
    for route in routes:
        if route.protocol != marks.PROTOCOL:
            continue
        if route.kind == UNREACHABLE:
            unit = route.metric - marks.twin_metric(0)
            if 0 <= unit < marks.UNITS:
                yield Route(route.prefix, None, route.metric, route.table), unit
        elif route.kind == _UNICAST and route.device is not None:
            found = marks.unit_of(route.device)
            if found is not None:
                yield Route(route.prefix, route.device, route.metric, route.table), found


def known(routes: Iterable[SeenRoute]) -> list[KnownRoute]:
    """Return those to other machines, of all tables; none of LOCAL_TABLE is among ``routes``."""
    routes = list(routes)
    units = {(route.prefix, route.device, route.table): unit for route, unit in ours(routes)}
    found = []
    for route in routes:
        if route.kind not in (_UNICAST, UNREACHABLE):
            continue
        if route.prefix.startswith(("fe80:", "ff00:")):
            continue
        # IPv6's unreachable routes stand on the loopback device.
        via = None if route.kind == UNREACHABLE else route.device
        unit = marks.unit_of(via) if via else None
        if via is None and route.protocol == marks.PROTOCOL:
            unit = units.get((route.prefix, None, route.table))
        found.append(KnownRoute(route.prefix, via, route.table, unit))
    return found

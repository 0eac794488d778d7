"""What the helper lets through: a tunnel's own objects, and nothing else.

The steps come from a process of an ordinary user. Whatever is not plainly part of the tunnel
that this helper was opened for is refused before anything is touched. Pure, but for the list of
adapters that is handed in.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Collection
from typing import Any

from sshvpn.frozen import dataclass
from sshvpn.plan import marks, steps
from sshvpn.plan.state import (
    GONE,
    MAIN_TABLE,
    Accept,
    Address,
    Firewall,
    Link,
    PolicyRule,
    ProxyNeighbour,
    Route,
    Setting,
    Sysctl,
    UnknownTable,
)

_CGROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:\\-]*(/[A-Za-z0-9_][A-Za-z0-9_.@:\\-]*)*")
_LONGEST_CGROUP = 512
_ADAPTER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}")
_SMALLEST_MTU, _LARGEST_MTU = 68, 65535
_VALUES = {
    Setting.FORWARDING4: {"1"},
    Setting.RP_FILTER: {"2"},
    Setting.FORWARDING6: {"1"},
    Setting.FORCE_FORWARDING6: {"1"},
    Setting.ACCEPT_RA: {"2"},
    Setting.PROXY_NDP: {"1"},
}
_OWN_VALUES = {
    **_VALUES,
    Setting.ACCEPT_RA: {"0"},
    Setting.ADDR_GEN_MODE: {"1"},
    Setting.ROUTER_SOLICITATIONS: {"0"},
}
_PLAIN_VALUE = re.compile(r"-?[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Scope:
    """The one tunnel that a helper may touch, for user ``actor``.

    ``service`` is the cgroup of the service that the helper itself is part of, if it is.
    """

    label: str
    unit: int
    actor: int
    service: str | None = None

    @property
    def device(self) -> str:
        """The tunnel's device."""
        return marks.device_name(self.unit)


def check(step: steps.Step, scope: Scope, adapters: Collection[str]) -> None:
    """Raise ValueError for a step that does not belong to ``scope``; ``adapters`` exist now."""
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        if isinstance(value, str):
            _need(value == scope.label, "another label")
        elif value is not None:
            _CHECKS[type(value)](value, scope, adapters)
    if isinstance(step, steps.SetSysctl):
        # What was held before is looked up by whoever goes back to it; what is asked for is on a
        # list. One that is let go of may have lost its adapter.
        _need(step.sysctl.interface in ("all", *adapters), "there is no such adapter")
        is_own = step.sysctl.interface == scope.device
        allowed = (_OWN_VALUES if is_own else _VALUES).get(step.sysctl.setting, set())
        _need(step.sysctl.value in allowed, "no value that this setting may get")


def _link(link: Link, scope: Scope, _: Collection[str]) -> None:
    _need(link.unit == scope.unit, "another device")
    _need(link.label in ("", scope.label), "another label")
    _need(scope.actor in (0, link.owner) and 0 <= link.owner < 1 << 32, "another owner")
    _need(_SMALLEST_MTU <= link.mtu <= _LARGEST_MTU, "no MTU for a tunnel")


def _address(address: Address, scope: Scope, _: Collection[str]) -> None:
    _need(address.device == scope.device, "another device")
    interface = ipaddress.ip_interface(address.cidr)
    _need(str(interface) == address.cidr and "%" not in address.cidr, "not in its usual form")
    _unicast(str(interface.ip))


def _route(route: Route, scope: Scope, _: Collection[str]) -> None:
    _need(route.device in (None, scope.device), "another device")
    own = marks.METRIC if route.device else marks.twin_metric(scope.unit)
    _need(route.metric == own, "another metric")
    _prefix(route.prefix)
    if route.table == MAIN_TABLE:
        _need(not route.prefix.endswith("/0"), "a default route in the main table")
    else:
        _need(route.table == marks.routing_table(scope.unit), "another table")


def _rule(rule: PolicyRule, scope: Scope, _: Collection[str]) -> None:
    _need(marks.unit_of_priority(rule.priority) == scope.unit, "another priority")
    _need(rule.table in (MAIN_TABLE, marks.routing_table(scope.unit)), "another table")
    _need(rule.mark is None or 0 < rule.mark < 1 << 32, "no mark")
    _need(rule.uid is None or 0 < rule.uid < (1 << 32) - 1, "no user")
    _need(not rule.is_not or rule.mark is not None, "nothing to negate")


def _neighbour(neighbour: ProxyNeighbour, _: Scope, adapters: Collection[str]) -> None:
    _adapter(neighbour.interface, adapters)
    _unicast(neighbour.address)


def _firewall(wall: Firewall, scope: Scope, _: Collection[str]) -> None:
    _need(wall.label == scope.label, "another label")
    _need(wall.device == scope.device, "another device")
    for address in wall.own:
        _unicast(address)
    for lan in wall.lans:
        _name(lan.interface)
        _prefix(lan.network)
    for prefix in wall.routed:
        _prefix(prefix)
    for port in wall.published:
        _pair(port.address, port.target)
        _need(0 < port.port < 1 << 16 and 0 < port.target_port < 1 << 16, "no port")
    for appearance in wall.appearances:
        _name(appearance.interface)
        _pair(appearance.address, appearance.target)
    for adapter in wall.confined:
        _need(adapter.family in ("ip", "ip6"), "no family")
        if adapter.interface is not None:
            _name(adapter.interface)
    _need(wall.mark is None or 0 < wall.mark < 1 << 32, "no mark")
    cgroup = wall.ssh_cgroup
    if cgroup is not None:
        _need(len(cgroup) <= _LONGEST_CGROUP and bool(_CGROUP.fullmatch(cgroup)), "no cgroup")
        name = cgroup.rpartition("/")[2]
        is_own = name == marks.cgroup_name(scope.label) or cgroup == scope.service
        _need(is_own, "another cgroup")


def _unknown_table(table: UnknownTable, scope: Scope, _: Collection[str]) -> None:
    _need(table.label == scope.label, "another label")


def _sysctl(sysctl: Sysctl, scope: Scope, _: Collection[str]) -> None:
    if sysctl.interface == "all":
        _need(sysctl.setting is Setting.FORWARDING6, "a setting of all adapters")
    elif sysctl.interface != scope.device:
        _name(sysctl.interface)
        is_ours = marks.unit_of(sysctl.interface) is not None
        _need(not is_ours and sysctl.interface != "default", "another device")
    for value in (sysctl.value, sysctl.before):
        _need(value == GONE or bool(_PLAIN_VALUE.fullmatch(value)), "no value")


def _accept(accept: Accept, scope: Scope, _: Collection[str]) -> None:
    _name(accept.incoming)
    _name(accept.outgoing)
    _need(scope.device in (accept.incoming, accept.outgoing), "another device")
    _need(accept.incoming != accept.outgoing, "from a device to itself")


_CHECKS: dict[type[Any], Callable[[Any, Scope, Collection[str]], None]] = {
    Link: _link,
    Address: _address,
    Route: _route,
    PolicyRule: _rule,
    ProxyNeighbour: _neighbour,
    Firewall: _firewall,
    UnknownTable: _unknown_table,
    Sysctl: _sysctl,
    Accept: _accept,
}


def _need(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise ValueError(otherwise)


def _name(text: str) -> None:
    _need(_ADAPTER.fullmatch(text) is not None, "no adapter's name")


def _adapter(name: str, adapters: Collection[str]) -> None:
    _name(name)
    _need(name in adapters, f"there is no adapter {name}")


def _prefix(text: str) -> None:
    _need(str(ipaddress.ip_network(text)) == text, "not in its usual form")


def _unicast(text: str) -> None:
    address = ipaddress.ip_address(text)
    _need(str(address) == text and "%" not in text, "not in its usual form")
    odd = address.is_multicast or address.is_loopback or address.is_unspecified
    _need(not odd, "not the address of a machine")


def _pair(address: str, target: str) -> None:
    _unicast(address)
    _unicast(target)
    _need((":" in address) == (":" in target), "two families")

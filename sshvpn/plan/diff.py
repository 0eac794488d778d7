"""From what is to what is wanted, in an order that is safe at every step; pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeVar

from sshvpn.plan import steps
from sshvpn.plan.state import (
    GONE,
    NetworkState,
    PolicyRule,
    Route,
    Sysctl,
    UnknownTable,
    nothing,
)
from sshvpn.plan.steps import Step

T = TypeVar("T")


def diff(current: NetworkState, desired: NetworkState) -> tuple[Step, ...]:
    """Return the steps that make ``desired`` of ``current``; none where they are equal.

    ``diff(current, nothing(label))`` is the teardown. After any prefix of the steps, nothing
    of the tunnel's traffic can go where it must not. Both are of one label.
    """
    if current.label != desired.label:
        raise ValueError(f"{current.label} and {desired.label} are two tunnels")
    if _must_begin_anew(current, desired):
        empty = nothing(current.label)
        return (*_changes(current, empty), *_changes(empty, desired))
    return tuple(_changes(current, desired))


def _must_begin_anew(current: NetworkState, desired: NetworkState) -> bool:
    # A device has one number and one owner for its life; all else of it can be changed.
    old, new = current.link, desired.link
    return bool(old and new and (old.unit, old.owner) != (new.unit, new.owner))


def _changes(current: NetworkState, desired: NetworkState) -> Iterator[Step]:
    """Yield first all that is added or changed, then in the opposite order what goes.

    Added before deleted, so that a prefix that is cut anew has a route or a twin at all times.
    """
    # The device is made down: what it may do is settled before it can carry a packet.
    if desired.link and not current.link:
        yield steps.AddLink(dataclasses.replace(desired.link, is_up=False))
    # The rules of access come before any way that they must watch; on the way down they go last.
    if desired.table and desired.table != current.table:
        if isinstance(desired.table, UnknownTable):
            raise ValueError("nobody can want an unknown table")
        yield steps.LoadTable(desired.table, current.table)
    # The device's own settings come before it goes up, or it would make itself a link-local
    # address and ask for routers.
    own = desired.link.name if desired.link else None
    current, larger = _with_ipv6(current, desired)
    yield from larger
    yield from _set_sysctls(current, desired, lambda sysctl: sysctl.interface == own)
    yield from _link_changes(current, desired)
    for address in _new(current.addresses, desired.addresses):
        yield steps.AddAddress(address)
    # A twin comes before its route: the prefix leads nowhere, then into the tunnel, and at no
    # moment to the default route.
    for route in sorted(desired.routes - current.routes, key=_route_order):
        yield steps.AddRoute(route)
    # An address is answered for once there is a way to it.
    for neighbour in _new(current.neighbours, desired.neighbours):
        yield steps.AddNeighbour(neighbour)
    # A rule comes after what stands in its table, and the exceptions (lower numbers) before it.
    for rule in sorted(desired.rules - current.rules, key=_rule_order):
        yield steps.AddRule(rule)
    # Forwarding comes when all is ready; routers' advertisements are kept before it (accept_ra
    # sorts first), because switching to forwarding forgets the routes they gave.
    gone = {_key(sysctl) for sysctl in current.sysctls if sysctl.value == GONE}
    yield from _set_sysctls(
        current, desired, lambda sysctl: sysctl.interface != own and _key(sysctl) not in gone
    )
    for accept in _new(current.accepts, desired.accepts):
        yield steps.AddAccept(accept, desired.label)
    yield from _deletions(current, desired)


def _with_ipv6(current: NetworkState, desired: NetworkState) -> tuple[NetworkState, list[Step]]:
    """Return ``current`` with a device that is large enough for its settings, and the steps.

    Where somebody gave it less than IPv6 needs, the kernel took its settings away.
    """
    was, wanted = current.link, desired.link
    lacks = any(s.value == GONE and was and s.interface == was.name for s in current.sysctls)
    if not lacks or was is None or wanted is None:
        return current, []
    larger = dataclasses.replace(was, mtu=wanted.mtu, is_up=False)
    return dataclasses.replace(current, link=larger), [steps.SetLink(larger, was)]


def _link_changes(current: NetworkState, desired: NetworkState) -> Iterator[Step]:
    if desired.link is None:
        return
    was = current.link or dataclasses.replace(desired.link, is_up=False)
    if desired.link != was:
        yield steps.SetLink(desired.link, was)


def _deletions(current: NetworkState, desired: NetworkState) -> Iterator[Step]:
    own = current.link.name if current.link else None
    for accept in reversed(_new(desired.accepts, current.accepts)):
        yield steps.DeleteAccept(accept, current.label)
    yield from _restore_sysctls(current, desired, lambda sysctl: sysctl.interface != own)
    # The catch-all goes before its exceptions, or ssh itself would be caught for a moment.
    for rule in sorted(current.rules - desired.rules, key=_rule_order, reverse=True):
        yield steps.DeleteRule(rule)
    for neighbour in reversed(_new(desired.neighbours, current.neighbours)):
        yield steps.DeleteNeighbour(neighbour)
    for route in sorted(current.routes - desired.routes, key=_route_order, reverse=True):
        yield steps.DeleteRoute(route)
    for address in reversed(_new(desired.addresses, current.addresses)):
        yield steps.DeleteAddress(address)
    yield from _restore_sysctls(current, desired, lambda sysctl: sysctl.interface == own)
    if current.link and not desired.link:
        # Down first, so that the inverse of what follows makes a device that is down.
        down = dataclasses.replace(current.link, is_up=False)
        if current.link != down:
            yield steps.SetLink(down, current.link)
        yield steps.DeleteLink(down)
    if current.table and not desired.table:
        yield steps.DropTable(current.table)


def _restore_sysctls(
    current: NetworkState, desired: NetworkState, is_meant: Callable[[Sysctl], bool]
) -> Iterator[Step]:
    kept = {_key(sysctl) for sysctl in desired.sysctls}
    for sysctl in reversed(_in_order(current.sysctls)):
        if is_meant(sysctl) and _key(sysctl) not in kept:
            yield steps.RestoreSysctl(sysctl)


def _set_sysctls(
    current: NetworkState, desired: NetworkState, is_meant: Callable[[Sysctl], bool]
) -> Iterator[Step]:
    held = {_key(sysctl): sysctl for sysctl in current.sysctls}
    for sysctl in _in_order(desired.sysctls):
        was = held.get(_key(sysctl))
        if is_meant(sysctl) and (was is None or was.value != sysctl.value):
            yield steps.SetSysctl(sysctl, was)


def _in_order(sysctls: frozenset[Sysctl]) -> list[Sysctl]:
    return sorted(sysctls, key=lambda s: (s.setting.name, s.interface))


def _route_order(route: Route) -> tuple[bool, str]:
    return route.device is not None, str(route)


def _rule_order(rule: PolicyRule) -> tuple[int, bool]:
    return rule.priority, rule.is_ipv6


def _key(sysctl: Sysctl) -> tuple[str, str]:
    return sysctl.setting.value, sysctl.interface


def _new(before: frozenset[T], after: frozenset[T]) -> list[T]:
    return sorted(after - before, key=str)

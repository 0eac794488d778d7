"""The steps by which the kernel is changed: typed, each with its inverse; pure.

What a step says is all that it does: there is no text in one that the helper would take as it
comes. :mod:`sshvpn.plan.render` gives the same as commands that a person can type as root.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sshvpn.frozen import dataclass
from sshvpn.plan.state import (
    GONE,
    Accept,
    Address,
    Firewall,
    Link,
    PolicyRule,
    ProxyNeighbour,
    Route,
    Sysctl,
    UnknownTable,
)


@dataclass(frozen=True, slots=True)
class AddLink:
    """Make the device; it is down, whatever ``link.is_up`` says."""

    link: Link


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Delete the device, and with it its addresses and routes."""

    link: Link


@dataclass(frozen=True, slots=True)
class SetLink:
    """Change MTU, names and state of the device that is there."""

    link: Link
    before: Link


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give the device an address."""

    address: Address


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Take an address from the device."""

    address: Address


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a route, or an unreachable twin."""

    route: Route


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Delete it."""

    route: Route


@dataclass(frozen=True, slots=True)
class AddRule:
    """Add a policy rule."""

    rule: PolicyRule


@dataclass(frozen=True, slots=True)
class DeleteRule:
    """Delete it."""

    rule: PolicyRule


@dataclass(frozen=True, slots=True)
class AddNeighbour:
    """Answer for an address."""

    neighbour: ProxyNeighbour


@dataclass(frozen=True, slots=True)
class DeleteNeighbour:
    """Do so no longer."""

    neighbour: ProxyNeighbour


@dataclass(frozen=True, slots=True)
class LoadTable:
    """Load our nft table in one transaction, instead of ``before``."""

    table: Firewall
    before: Firewall | UnknownTable | None


@dataclass(frozen=True, slots=True)
class DropTable:
    """Drop our nft table."""

    table: Firewall | UnknownTable


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Hold a setting at a value; ``held`` says that the tunnel held it before, at which value."""

    sysctl: Sysctl
    held: Sysctl | None = None


@dataclass(frozen=True, slots=True)
class RestoreSysctl:
    """Let go of a setting; the last tunnel that does puts back what was before."""

    sysctl: Sysctl


@dataclass(frozen=True, slots=True)
class AddAccept:
    """Insert a rule at the head of a foreign chain."""

    accept: Accept
    label: str


@dataclass(frozen=True, slots=True)
class DeleteAccept:
    """Delete it."""

    accept: Accept
    label: str


Step = (
    AddLink | DeleteLink | SetLink
    | AddAddress | DeleteAddress
    | AddRoute | DeleteRoute
    | AddRule | DeleteRule
    | AddNeighbour | DeleteNeighbour
    | LoadTable | DropTable
    | SetSysctl | RestoreSysctl
    | AddAccept | DeleteAccept
)  # fmt: skip


def inverse(step: Step) -> Step | None:
    """Return the step that undoes ``step``; None where nothing can.

    That is after an UnknownTable was replaced or dropped: nobody knows what it held; and after a
    setting was let go of whose adapter is no more.
    """
    match step:
        case SetLink():
            return SetLink(step.before, step.link)
        case LoadTable() | DropTable():
            return _table_before(step)
        case SetSysctl():
            if step.held is None or step.held.value == GONE:
                return RestoreSysctl(step.sysctl)
            return SetSysctl(step.held, step.sysctl)
        case RestoreSysctl():
            return None if step.sysctl.value == GONE else SetSysctl(step.sysctl)
        case _:
            opposite = _OPPOSITE[type(step)]
            values = {f.name: getattr(step, f.name) for f in dataclasses.fields(step)}
            undo: Step = opposite(**values)
            return undo


_PAIRS: tuple[tuple[type[Any], type[Any]], ...] = (
    (AddLink, DeleteLink),
    (AddAddress, DeleteAddress),
    (AddRoute, DeleteRoute),
    (AddRule, DeleteRule),
    (AddNeighbour, DeleteNeighbour),
    (AddAccept, DeleteAccept),
)
_OPPOSITE: dict[type[Any], type[Any]] = dict([*_PAIRS, *((b, a) for a, b in _PAIRS)])


def _table_before(step: LoadTable | DropTable) -> Step | None:
    match step:
        case LoadTable(before=None):
            return DropTable(step.table)
        case LoadTable(before=Firewall() as before):
            return LoadTable(before, step.table)
        case DropTable(table=Firewall() as table):
            return LoadTable(table, None)
        case _:
            return None

"""Links, addresses, routes, rules and proxy neighbours, by netlink.

Typed functions of our own around pyroute2, which drops keywords that it does not know without a
word: what is not a parameter here cannot be said. Kernel errors become errors of the program
here. Settings and nft are in :mod:`sysctl` and :mod:`firewall`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Iterator
from typing import Any

from sshvpn.errors import PrivilegeError, SshvpnError, TakenError
from sshvpn.plan import marks
from sshvpn.plan.request import KnownAddress, KnownRoute
from sshvpn.plan.state import Address, Link, PolicyRule, ProxyNeighbour, Route
from sshvpn.privileged.proxies import proxy_neighbours
from sshvpn.privileged.routes import (
    FAMILIES,
    LOCAL_TABLE,
    UNREACHABLE,
    SeenRoute,
    known,
    ours,
    seen,
)
from sshvpn.privileged.tun import create_tun

# linux/if.h, linux/rtnetlink.h, linux/fib_rules.h, linux/neighbour.h
_IFF_UP = 0x1
_SCOPE_LINK = 253
_TO_TABLE, _INVERT = 1, 2
_NTF_PROXY = 8
_NO_SUPPRESSION = 0xFFFFFFFF
_IS_NOTED = False
"""What a dump's ``match`` returns of a message that need not be kept: each is 17 kB here, and those
of many tunnels all at once would be megabytes."""
_GONE = {errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ENXIO}


class Netlink:
    """One netlink socket in this process's network namespace. Close it; one thread at a time."""

    def prepare(self) -> None:
        """Load what is slow to load, so that the first question need not wait; may be left out."""
        # What cannot be loaded is told when it is needed.
        with contextlib.suppress(Exception):
            _ = self._ip

    @functools.cached_property
    def _ip(self) -> Any:
        from pyroute2 import IPRoute

        return IPRoute(ext_ack=True)

    def close(self) -> None:
        """Close the socket; twice is fine."""
        if "_ip" in vars(self):
            self._ip.close()

    # -- links -----------------------------------------------------------------------------------

    def create_link(self, link: Link) -> None:
        """Make the device, down; all or nothing. Raises TakenError where the name is taken."""
        if self._index(marks.ssh_device_name(link.unit)) is not None:
            raise TakenError(f"the device name {marks.ssh_device_name(link.unit)} is taken")
        create_tun(link)
        bare = Link(link.unit, "", link.owner, mtu=0, is_up=False, ssh_name=False)
        down = Link(link.unit, link.label, link.owner, link.mtu, is_up=False)
        try:
            self.set_link(down, bare)
        except BaseException:
            self.delete_link(link)
            raise

    def set_link(self, link: Link, before: Link) -> None:
        """Change what differs between the two."""
        index = self._need(link.name)
        with _told(f"the device {link.name}"):
            if link.label != before.label:
                text = marks.alias(link.label) if link.label else ""
                self._ip.link("set", index=index, ifalias=text)
            if link.ssh_name != before.ssh_name:
                verb = "property_add" if link.ssh_name else "property_del"
                self._ip.link(verb, index=index, altname=marks.ssh_device_name(link.unit))
            if before.is_up and not link.is_up:
                self._ip.link("set", index=index, state="down")
            # One that is up makes itself an address when it is large enough for IPv6 again.
            if link.mtu != before.mtu:
                self._ip.link("set", index=index, mtu=link.mtu)
            if link.is_up and not before.is_up:
                self._ip.link("set", index=index, state="up")

    def delete_link(self, link: Link) -> None:
        """Delete the device; not there is fine."""
        index = self._index(link.name)
        if index is not None:
            with _told(f"the device {link.name}", is_deletion=True):
                self._ip.link("del", index=index)

    def links(self) -> list[Link]:
        """Return every tun device that bears our name."""
        units = (marks.unit_of(name) for _, name in socket.if_nameindex())
        links = (self.link(unit) for unit in units if unit is not None)
        return [link for link in links if link is not None]

    def link(self, unit: int) -> Link | None:
        """Return the unit's tun device; None where there is none."""
        index = self._index(marks.device_name(unit))
        if index is None:
            return None
        # One at a time: a message with all that the kernel tells of a device is 100 kB here.
        with _told(f"the device {marks.device_name(unit)}", is_deletion=True):
            for message in self._ip.link("get", index=index):
                return _link(message, unit)
        return None

    def is_taken(self, name: str) -> bool:
        """Whether a device answers to ``name``."""
        return self._index(name) is not None

    # -- addresses -------------------------------------------------------------------------------

    def create_address(self, address: Address) -> None:
        """Add it. Raises TakenError where it is there."""
        with _told(f"the address {address.cidr}"):
            self._ip.addr("add", **self._address(address))

    def delete_address(self, address: Address) -> None:
        """Delete it; not there is fine."""
        if self._index(address.device) is not None:
            with _told(f"the address {address.cidr}", is_deletion=True):
                self._ip.addr("delete", **self._address(address))

    def _address(self, address: Address) -> dict[str, Any]:
        local, _, length = address.cidr.partition("/")
        index = self._need(address.device)
        return {"index": index, "address": local, "prefixlen": int(length)}

    def known_addresses(self) -> list[KnownAddress]:
        """Return all addresses of all adapters but the loopback's and link-local ones."""
        names = self._names()
        found: list[KnownAddress] = []

        def note(message: Any) -> bool:
            name = names.get(message["index"], "")
            # Of a point-to-point link, the local end is the one that is ours.
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            is_local = message["scope"] != 0  # host or link
            if name and text and not is_local:
                found.append(KnownAddress(name, f"{text}/{message['prefixlen']}"))
            return _IS_NOTED

        self._ip.addr("dump", match=note)
        return found

    def addresses(self, unit: int) -> frozenset[Address]:
        """Return the addresses of the unit's device, without any that the kernel gave it."""
        device = marks.device_name(unit)
        return frozenset(
            Address(device, known.cidr)
            for known in self.known_addresses()
            if known.interface == device
        )

    # -- routes ----------------------------------------------------------------------------------

    def create_route(self, route: Route) -> None:
        """Add it. Raises TakenError where one of that prefix, metric and table is there."""
        with _told(f"the route {route.prefix}"):
            self._ip.route("add", **self._route(route))

    def delete_route(self, route: Route) -> None:
        """Delete exactly this one, of our protocol number; not there is fine."""
        if route.device is None or self._index(route.device) is not None:
            with _told(f"the route {route.prefix}", is_deletion=True):
                self._ip.route("del", **self._route(route))

    def _route(self, route: Route) -> dict[str, Any]:
        words: dict[str, Any] = {
            "dst": route.prefix,
            "family": _family(route.prefix),
            "table": route.table,
            "priority": route.metric,
            "proto": marks.PROTOCOL,
        }
        if route.device is None:
            return {**words, "type": UNREACHABLE}
        if words["family"] == socket.AF_INET:
            words["scope"] = _SCOPE_LINK  # as iproute2 has it for what needs no next hop
        return {**words, "oif": self._need(route.device)}

    def routes(self, unit: int) -> frozenset[Route]:
        """Return the unit's routes and twins."""
        return frozenset(route for route, of in self._our_routes() if of == unit)

    def _our_routes(self) -> Iterator[tuple[Route, int]]:
        return ours(self._routes())

    def known_routes(self) -> list[KnownRoute]:
        """Return all routes to other machines, of all tables."""
        return known(self._routes())

    def _routes(self) -> list[SeenRoute]:
        names = self._names()
        found: list[SeenRoute] = []

        def note(message: Any) -> bool:
            # This machine's own addresses are most of what there is, and nobody's routes.
            if message["family"] in FAMILIES and message["table"] != LOCAL_TABLE:
                found.append(seen(message, names))
            return _IS_NOTED

        self._ip.route("dump", match=note)
        return found

    # -- rules -----------------------------------------------------------------------------------

    def create_rule(self, rule: PolicyRule) -> None:
        """Add it. Raises TakenError where the same is there."""
        with _told(f"the policy rule {rule.priority}"):
            self._ip.rule("add", **_rule(rule))

    def delete_rule(self, rule: PolicyRule) -> None:
        """Delete it; not there is fine."""
        with _told(f"the policy rule {rule.priority}", is_deletion=True):
            self._ip.rule("del", **_rule(rule))

    def rules(self, unit: int) -> frozenset[PolicyRule]:
        """Return the unit's rules: of our protocol number, in its range of priorities."""
        return frozenset(
            rule for rule in self._our_rules() if marks.unit_of_priority(rule.priority) == unit
        )

    def _our_rules(self) -> Iterator[PolicyRule]:
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in self._ip.get_rules(family=family):
                priority = message.get_attr("FRA_PRIORITY") or 0
                is_ours = message.get_attr("FRA_PROTOCOL") == marks.PROTOCOL
                if message["family"] != family or not is_ours:
                    continue
                users = message.get_attr("FRA_UID_RANGE")
                suppress = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
                yield PolicyRule(
                    priority,
                    family == socket.AF_INET6,
                    message.get_attr("FRA_TABLE") or message["table"],
                    mark=message.get_attr("FRA_FWMARK"),
                    is_not=bool(message["flags"] & _INVERT),
                    uid=_first_user(users),
                    is_specific_only=suppress not in (None, _NO_SUPPRESSION),
                )

    # -- proxy neighbours ------------------------------------------------------------------------

    def create_neighbour(self, neighbour: ProxyNeighbour) -> None:
        """Answer for the address; twice is fine (the kernel keeps one)."""
        with _told(f"answering for {neighbour.address}"):
            self._ip.neigh("add", **self._neighbour(neighbour))

    def delete_neighbour(self, neighbour: ProxyNeighbour) -> None:
        """Answer no longer; not there is fine."""
        if self._index(neighbour.interface) is not None:
            with _told(f"answering for {neighbour.address}", is_deletion=True):
                self._ip.neigh("del", **self._neighbour(neighbour))

    def _neighbour(self, neighbour: ProxyNeighbour) -> dict[str, Any]:
        return {
            "dst": neighbour.address,
            "ifindex": self._need(neighbour.interface),
            "family": _family(neighbour.address),
            "flags": _NTF_PROXY,
            "protocol": marks.PROTOCOL,
        }

    def neighbours(self, unit: int) -> frozenset[ProxyNeighbour]:
        """Return the unit's: of our protocol number, with a route of the unit behind them."""
        proxies = proxy_neighbours()
        if not proxies:
            return frozenset()
        ways = {route.prefix.partition("/")[0] for route in self.routes(unit)}
        return frozenset(n for n in proxies if n.address in ways)

    # -- units -----------------------------------------------------------------------------------

    def units(self) -> set[int]:
        """Return every unit of which something is left in the kernel."""
        found = {link.unit for link in self.links()}
        found |= {unit for _, unit in self._our_routes()}
        priorities = {marks.unit_of_priority(rule.priority) for rule in self._our_rules()}
        return found | {unit for unit in priorities if unit is not None}

    def _index(self, name: str) -> int | None:
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    def _need(self, name: str) -> int:
        index = self._index(name)
        if index is None:
            raise SshvpnError(f"there is no adapter {name}")
        return index

    def _names(self) -> dict[int, str]:
        return dict(socket.if_nameindex())


def adapters() -> list[str]:
    """Return the names of all adapters."""
    return [name for _, name in socket.if_nameindex()]


def _link(message: Any, unit: int) -> Link | None:
    info = message.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "tun":
        return None
    data = info.get_attr("IFLA_INFO_DATA")
    names = message.get_attr("IFLA_PROP_LIST")
    others = [value for _, value in names["attrs"]] if names else []
    owner = data.get_attr("IFLA_TUN_OWNER")
    return Link(
        unit,
        marks.label_in(message.get_attr("IFLA_IFALIAS") or "") or "",
        -1 if owner is None else owner,
        message.get_attr("IFLA_MTU"),
        is_up=bool(message["flags"] & _IFF_UP),
        ssh_name=marks.ssh_device_name(unit) in others,
        has_queues=bool(data.get_attr("IFLA_TUN_MULTI_QUEUE")),
    )


def _family(text: str) -> int:
    return socket.AF_INET6 if ":" in text else socket.AF_INET


def _rule(rule: PolicyRule) -> dict[str, Any]:
    words: dict[str, Any] = {
        "family": socket.AF_INET6 if rule.is_ipv6 else socket.AF_INET,
        "priority": rule.priority,
        "table": rule.table,
        "action": _TO_TABLE,
        "protocol": marks.PROTOCOL,
        "flags": _INVERT if rule.is_not else 0,
    }
    if rule.mark is not None:
        words |= {"fwmark": rule.mark, "fwmask": 0xFFFFFFFF}
    if rule.uid is not None:
        words["uid_range"] = f"{rule.uid}:{rule.uid}"
    if rule.is_specific_only:
        words["suppress_prefixlen"] = 0
    return words


def _first_user(users: Any) -> int | None:
    if users is None:
        return None
    text = users if isinstance(users, str) else f"{users['start']}:{users['end']}"
    return int(str(text).split(":")[0])


@contextlib.contextmanager
def _told(what: str, *, is_deletion: bool = False) -> Iterator[None]:
    """Turn the kernel's errors about ``what`` into the program's."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if is_deletion and error.code in _GONE:
            return
        said = str(error.args[1]) if len(error.args) > 1 else os.strerror(error.code)
        if error.code == errno.EEXIST:
            raise TakenError(f"{what} is there already") from error
        if error.code in (errno.EPERM, errno.EACCES):
            raise PrivilegeError(f"{what}: {said}") from error
        raise SshvpnError(f"{what}: {said}") from error

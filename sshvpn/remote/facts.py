"""What the agent finds on the server, and how its lines tell it; pure.

Each fact is a line; docs/agent-protocol.md has them all. They are collected here until the agent
says ``ready``. Its text is not trusted: what cannot be understood is a ValueError, IndexError or
KeyError, and text for people passes `errors.printable`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from enum import Enum
from typing import Final

from sshvpn.errors import printable
from sshvpn.frozen import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PREPARED_DEVICE: Final = "sshvpnr"
"""How the names of the devices begin that agents make, for logins with sudo and for pumps."""


class Rights(str, Enum):
    """What the login may do on the server."""

    ROOT = "uid"
    SUDO = "sudo"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Device:
    """The server's tun of this session. ``owner`` is a uid, None for nobody in particular."""

    name: str
    index: int
    is_up: bool
    mtu: int
    owner: int | None


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """An address of the server; ``network`` is the peer's where it is point to point."""

    interface: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    network: Network


@dataclass(frozen=True, slots=True)
class RemoteRoute:
    """A route of the server. ``interfaces``: of all its next hops, as far as ip tells them.

    ``via`` is the address of one of them, or None; ``table`` is as ip names it.
    """

    kind: str
    prefix: Network
    via: str | None
    interfaces: tuple[str, ...]
    table: str


@dataclass(frozen=True, slots=True)
class Adapter:
    """Settings of an adapter; None where the kernel has no such setting.

    ``all`` and ``default`` are adapters here, as in /proc/sys.
    """

    name: str
    forwarding: int | None
    rp_filter: int | None
    forwarding6: int | None
    force_forwarding6: int | None
    disable_ipv6: int | None
    accept_ra: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the agent found, complete.

    ``closed`` are chains of others that drop what is forwarded or published, in the agent's
    words; ``has_all_routes`` is False when there were too many to say. ``rights_code`` and
    ``rights_reason`` say what mends missing rights. ``before`` are the settings (paths below
    /proc/sys) that tunnels have changed on the server, with what they were.
    """

    protocol: int
    user: str
    uid: int
    rights: Rights
    rights_code: str
    rights_reason: str
    system: str
    ip: str | None
    firewall: str | None
    device: Device | None
    addresses: tuple[RemoteAddress, ...]
    routes: tuple[RemoteRoute, ...]
    adapters: tuple[Adapter, ...]
    closed: tuple[str, ...]
    has_all_routes: bool
    before: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(slots=True)
class Collected:
    """The facts that have come so far."""

    words: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    device: Device | None = None
    addresses: list[RemoteAddress] = dataclasses.field(default_factory=list)
    routes: list[RemoteRoute] = dataclasses.field(default_factory=list)
    adapters: list[Adapter] = dataclasses.field(default_factory=list)
    closed: list[str] = dataclasses.field(default_factory=list)
    has_all_routes: bool = True
    before: list[tuple[str, int]] = dataclasses.field(default_factory=list)

    def take(self, words: list[str]) -> bool:
        """Take the fact that WORDS tell; False: they are none."""
        if words[0] not in _FACTS:
            return False
        _FACTS[words[0]](self, words[1:])
        return True

    def complete(self) -> Facts:
        """Return them all. Raises KeyError where one is missing."""
        return _finish(self)


def _number(word: str) -> int | None:
    return None if word == "-" else int(word)


def _word(word: str) -> str | None:
    return None if word == "-" else printable(word)


def _take_words(facts: Collected, name: str, words: list[str]) -> None:
    facts.words[name] = [printable(word) for word in words]


def _take_device(facts: Collected, words: list[str]) -> None:
    name, index, state, mtu, owner = words
    facts.device = Device(printable(name), int(index), state == "up", int(mtu), _number(owner))


def _take_address(facts: Collected, words: list[str]) -> None:
    interface, own, *peer = words
    address = ipaddress.ip_interface(own)
    network = ipaddress.ip_network(peer[0], strict=False) if peer else address.network
    facts.addresses.append(RemoteAddress(printable(interface), address.ip, network))


def _take_route(facts: Collected, words: list[str]) -> None:
    family, kind, prefix, via, table, *interfaces = words
    if prefix == "default":
        prefix = "0.0.0.0/0" if family == "4" else "::/0"
    facts.routes.append(
        RemoteRoute(
            printable(kind),
            ipaddress.ip_network(prefix, strict=False),
            _word(via),
            tuple(map(printable, interfaces)),
            printable(table),
        )
    )


def _take_adapter(facts: Collected, words: list[str]) -> None:
    name, *settings = words
    forwarding, rp_filter, forwarding6, force6, disable6, accept_ra = map(_number, settings)
    facts.adapters.append(
        Adapter(printable(name), forwarding, rp_filter, forwarding6, force6, disable6, accept_ra)
    )


def _take_before(facts: Collected, words: list[str]) -> None:
    path, value = words
    facts.before.append((printable(path), int(value)))


def _take_closed(facts: Collected, words: list[str]) -> None:
    facts.closed.append(printable(" ".join(words)))


def _take_cut(facts: Collected, _: list[str]) -> None:
    facts.has_all_routes = False


_FACTS: Final = {
    "hello": lambda facts, words: _take_words(facts, "hello", words),
    "user": lambda facts, words: _take_words(facts, "user", words),
    "rights": lambda facts, words: _take_words(facts, "rights", words),
    "system": lambda facts, words: _take_words(facts, "system", words),
    "tools": lambda facts, words: _take_words(facts, "tools", words),
    "device": _take_device,
    "address": _take_address,
    "route": _take_route,
    "routes-cut": _take_cut,
    "adapter": _take_adapter,
    "before": _take_before,
    "closed": _take_closed,
}


def _finish(facts: Collected) -> Facts:
    words = facts.words
    user, uid = words["user"]
    rights, *reason = words["rights"]
    tools = dict(word.split("=", 1) for word in words["tools"])
    return Facts(
        protocol=int(words["hello"][0]),
        user=user,
        uid=int(uid),
        rights=Rights(rights),
        rights_code=reason[0] if reason else "",
        rights_reason=" ".join(reason[1:]),
        system=" ".join(words["system"]),
        ip=None if tools["ip"] == "none" else tools["ip"],
        firewall=None if tools["firewall"] == "none" else tools["firewall"],
        device=facts.device,
        addresses=tuple(facts.addresses),
        routes=tuple(facts.routes),
        adapters=tuple(facts.adapters),
        closed=tuple(facts.closed),
        has_all_routes=facts.has_all_routes,
        before=tuple(facts.before),
    )

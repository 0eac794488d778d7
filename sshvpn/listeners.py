"""Which sockets a forward wants, pure: SPECs, ``--bind`` and ``--lan`` against the addresses.

The result is a plain list to be compared with what listens now; an adapter that gains or loses
an address changes the list, and nothing else does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import field

from sshvpn.frozen import dataclass
from sshvpn.model import (
    LOOPBACK4,
    LOOPBACK6,
    Direction,
    Endpoint,
    ForwardProfile,
    ForwardSpec,
    InterfaceAddress,
    Listener,
    TcpEndpoint,
    UnixEndpoint,
)

EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (only where the user wrote *)


@dataclass(frozen=True, slots=True)
class Addresses:
    """What this machine has now, as far as a profile needs it.

    ``interfaces`` has the adapters that the profile names, and only those that exist; ``lan``
    has the addresses of the LAN that may be shared. ``has_ipv6_loopback`` is False on a machine
    without IPv6, where ssh listens on 127.0.0.1 alone too.
    """

    interfaces: Mapping[str, Sequence[InterfaceAddress]] = field(default_factory=dict)
    lan: Sequence[InterfaceAddress] = ()
    has_ipv6_loopback: bool = True


def wanted_listeners(
    profile: ForwardProfile, addresses: Addresses, ports: Mapping[int, int]
) -> tuple[Listener, ...]:
    """Return the listeners that ``profile`` wants, in the order of its SPECs.

    ``ports`` has the port that was found for a SPEC that asked for any (by index): once found,
    it is the same on every address and over every reconnect.
    """
    wanted: dict[Listener, None] = {}
    for index, spec in enumerate(profile.specs):
        for listen, at in _places(profile, spec, addresses, ports.get(index)):
            name, number = (at.interface, at.interface_index) if at else (None, 0)
            wanted[Listener(spec.direction, listen, spec.target, name, index, number)] = None
    return tuple(wanted)


def follows_adapters(profile: ForwardProfile) -> bool:
    """Whether the wanted listeners depend on addresses that come and go."""
    return any(_uses_binds(spec) for spec in profile.specs) and (
        profile.lan or any(not is_address(bind) for bind in profile.binds)
    )


def is_address(bind: str) -> bool:
    """Whether ``bind`` is an address (or ``localhost`` or ``*``), not an adapter's name."""
    if bind in ("localhost", "*"):
        return True
    try:
        ipaddress.ip_address(bind)
    except ValueError:
        return False
    return True


def _uses_binds(spec: ForwardSpec) -> bool:
    is_local = spec.direction is not Direction.REMOTE
    return is_local and spec.bind is None and not isinstance(spec.listen, UnixEndpoint)


def _places(
    profile: ForwardProfile, spec: ForwardSpec, addresses: Addresses, port: int | None
) -> list[tuple[Endpoint, InterfaceAddress | None]]:
    if isinstance(spec.listen, UnixEndpoint):
        return [(spec.listen, None)]
    number = port or spec.listen
    if spec.direction is Direction.REMOTE:
        # The server resolves it; nothing said is its loopback (ssh(1), -R).
        return [(TcpEndpoint(spec.bind or "localhost", number), None)]
    hosts: list[tuple[str, InterfaceAddress | None]]
    if spec.bind is not None:
        hosts = [(host, None) for host in _hosts(spec.bind, addresses)]
    elif profile.binds or profile.lan:
        hosts = _shared_hosts(profile, addresses)
    else:
        hosts = [(host, None) for host in _hosts("localhost", addresses)]
    return [(TcpEndpoint(host, number), found) for host, found in hosts]


def _hosts(bind: str, addresses: Addresses) -> tuple[str, ...]:
    if bind == "*":
        return EVERY_ADDRESS if addresses.has_ipv6_loopback else EVERY_ADDRESS[:1]
    if bind == "localhost":
        return (LOOPBACK4, LOOPBACK6) if addresses.has_ipv6_loopback else (LOOPBACK4,)
    return (bind,)


def _shared_hosts(
    profile: ForwardProfile, addresses: Addresses
) -> list[tuple[str, InterfaceAddress | None]]:
    hosts: list[tuple[str, InterfaceAddress | None]] = []
    for bind in profile.binds:
        if is_address(bind):
            hosts += [(host, None) for host in _hosts(bind, addresses)]
        else:
            hosts += [(found.address, found) for found in addresses.interfaces.get(bind, ())]
    if profile.lan:
        hosts += [(found.address, found) for found in addresses.lan]
    seen: dict[str, InterfaceAddress | None] = {}
    for host, found in hosts:
        seen.setdefault(host, found)
    return list(seen.items())


_SCHEMES = {
    22: "ssh",
    443: "https",
    1883: "mqtt",
    3306: "mysql",
    3389: "rdp",
    5432: "postgresql",
    5900: "vnc",
    6379: "redis",
    8443: "https",
}


def url_of(spec: ForwardSpec, listen: Endpoint) -> str:
    """Return the URL under which ``listen`` is used; the scheme is guessed by the target's port.

    Loopback is written ``localhost``, as people type it. A unix socket has a ``unix:`` URL, a
    SOCKS proxy ``socks5h:`` (names are resolved at the server).
    """
    if isinstance(listen, UnixEndpoint):
        return f"unix:{listen.path}"
    host = "localhost" if listen.host in (LOOPBACK4, *EVERY_ADDRESS) else listen.host
    where = TcpEndpoint(host, listen.port)
    if spec.direction is Direction.DYNAMIC:
        return f"socks5h://{where}"
    if spec.direction is Direction.REMOTE:
        return f"tcp://{where}"
    port = spec.target.port if isinstance(spec.target, TcpEndpoint) else 80
    scheme = _SCHEMES.get(port, "http")
    return f"{scheme}://{where}/" if scheme in ("http", "https") else f"{scheme}://{where}"

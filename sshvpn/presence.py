"""What the machines of the shared networks are told of one session, pure.

::

    snapshot of the session ──────────┐
    that of when it was running last ─┼──> presence ──> names (mDNS) and the portal, sshvpn.lan
    our shared addresses ─────────────┘

A connection that is away for a moment changes nothing but the state that is shown: names and
links stay, since all comes back at the same places. Only the end of the session withdraws them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import Any
from urllib.parse import urlsplit

from sshvpn.frozen import dataclass
from sshvpn.model import InterfaceAddress, LanWishes

LONGEST_LABEL = 63
"""RFC 1035, 2.3.4; in octets."""
_FALLBACK = "sshvpn"
_AWAY = ("starting", "backoff")
_USER_AND_SCHEME = re.compile(r"\A(ssh://)?([^@/]*@)?", re.IGNORECASE)
_PORT = re.compile(r":\d+\Z")
_EVERY = {"0.0.0.0": False, "::": True}  # noqa: S104 (what a forward to * listens on)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something listens: an address of ours, and a port."""

    address: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is IPv6."""
        return ":" in self.address


@dataclass(frozen=True, slots=True)
class Shown:
    """A service of the server's side as the LAN reaches it, at each of ``places``.

    ``scheme`` and ``path`` are those of its URL; ``target`` is what it is at the server, as
    ``status`` says; ``title`` says more, where more is known. ``token`` lets in whoever has the
    page: there only where that is wished.
    """

    scheme: str
    target: str
    places: tuple[Place, ...]
    path: str = "/"
    title: str = ""
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that is shared: its number in the kernel, our addresses as ADDRESS/LENGTH.

    ``appears_as`` is the address of this network under which the remote host itself appears.
    """

    name: str
    index: int
    addresses: tuple[str, ...]
    appears_as: str | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Our addresses without their lengths."""
        return tuple(address.partition("/")[0] for address in self.addresses)


@dataclass(frozen=True, slots=True)
class Presence:
    """All that the LAN is told. ``label`` is the name that is asked for, one DNS label.

    ``state`` and ``since`` are those of the session; ``networks`` are routed behind the host.
    ``has_names``: they are told by mDNS, too.
    """

    label: str
    state: str
    since: str
    adapters: tuple[Adapter, ...]
    services: tuple[Shown, ...]
    networks: tuple[str, ...]
    has_names: bool

    @property
    def is_over(self) -> bool:
        """Whether it comes back only when a person does something about it."""
        return self.state == "failed"


def label_of(name: str) -> str:
    """Return ``name`` (a profile, a HOST as typed) as one label of a host name (RFC 1123, 2.1).

    Of a host name its first part; an address with dashes; what cannot be said is a dash.
    """
    text = _USER_AND_SCHEME.sub("", name.strip(), count=1)
    bare = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    if bare.count(":") < 2:  # noqa: PLR2004 (more colons: an IPv6 address)
        bare = _PORT.sub("", bare)
    try:
        first = str(ipaddress.ip_address(bare.partition("%")[0])).replace("::", "-0-")
    except ValueError:
        first = bare.partition(".")[0]
    dashed = re.sub(r"[^a-z0-9]+", "-", first.lower()).strip("-")
    return dashed[:LONGEST_LABEL].rstrip("-") or _FALLBACK


def presence(
    wishes: LanWishes,
    snapshot: Mapping[str, Any],
    shared: Sequence[InterfaceAddress],
    running: Mapping[str, Any] | None,
    token: str = "",
) -> Presence | None:
    """Return what the LAN is to be told now, None: nothing.

    ``shared`` are our addresses on networks that may be shared with, now. ``running`` is the
    last snapshot whose state was running, None: there was none. ``token`` is the notebook's, if
    it has one; it is told only where it is wished.
    """
    state = str(snapshot["state"])
    if not shared or running is None or not snapshot["records"] or state == "stopping":
        return None
    records = running["records"]
    appearances = tuple(_appearances(records[0]))
    here = {one.address for one in shared}
    services = _services(records, token if wishes.tokens else "")
    return Presence(
        label=label_of(str(snapshot["name"])),
        state=state,
        since=str(snapshot["records"][0]["since"]),
        adapters=tuple(_adapters(shared, appearances)),
        services=tuple(_still_there(services, shared, here)),
        networks=_networks(records[0], appearances),
        has_names=wishes.announce,
    )


def _adapters(shared: Iterable[InterfaceAddress], appearances: Sequence[str]) -> Iterator[Adapter]:
    found: dict[tuple[str, int], list[InterfaceAddress]] = {}
    for one in shared:
        found.setdefault((one.interface, one.interface_index), []).append(one)
    for (name, index), addresses in found.items():
        networks = [ipaddress.ip_network(one.network) for one in addresses]
        appears = (a for a in appearances if any(ipaddress.ip_address(a) in n for n in networks))
        cidrs = tuple(f"{one.address}/{one.prefix_length}" for one in addresses)
        yield Adapter(name, index, cidrs, next(appears, None))


def _still_there(
    services: Iterable[Shown], shared: Sequence[InterfaceAddress], here: set[str]
) -> Iterator[Shown]:
    for service in services:
        places = [
            place
            for listed in service.places
            for place in _spelled_out(listed, shared)
            if place.address in here
        ]
        if places:
            yield replace(service, places=tuple(dict.fromkeys(places)))


def _spelled_out(place: Place, shared: Iterable[InterfaceAddress]) -> Iterator[Place]:
    if place.address not in _EVERY:
        yield place
        return
    for one in shared:
        if one.is_ipv6 == _EVERY[place.address]:
            yield Place(one.address, place.port)


# From the records of status ------------------------------------------------------------------


def _services(records: Sequence[Mapping[str, Any]], token: str) -> tuple[Shown, ...]:
    found: dict[tuple[Shown, int], list[Place]] = {}
    for record in records:
        is_notebook = record.get("notebook") is not None
        title, key = ("Jupyter", token) if is_notebook else ("", "")
        for url, target, place in _listed(record):
            scheme, _, rest = (url or "tcp:").partition(":")
            path = urlsplit(rest).path or "/"
            service = Shown(scheme, str(target), (), path, title, key)
            found.setdefault((service, place.port), []).append(place)
    return tuple(replace(service, places=tuple(at)) for (service, _), at in found.items())


def _listed(record: Mapping[str, Any]) -> Iterator[tuple[str | None, str, Place]]:
    for one in record.get("published") or ():
        yield from _listed_at(one["url"], one["target"], [one["listen"]])
    if record.get("direction") in ("local", "dynamic"):
        yield from _listed_at(record["url"], record["target"], record["listen"])


def _listed_at(
    url: str | None, target: str, places: Iterable[str]
) -> Iterator[tuple[str | None, str, Place]]:
    for text in places:
        address, _, port = text.rpartition(":")
        if port.isdecimal():  # else it is a unix socket
            yield url, target, Place(address.strip("[]"), int(port))


def _appearances(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the addresses of the LAN that are routed to the remote host: where it appears."""
    lans = [ipaddress.ip_network(lan["network"]) for lan in record.get("lan") or ()]
    for prefix in record.get("routes") or ():
        network = ipaddress.ip_network(prefix)
        if network.num_addresses == 1 and any(network.network_address in lan for lan in lans):
            yield str(network.network_address)


def _networks(record: Mapping[str, Any], appearances: Sequence[str]) -> tuple[str, ...]:
    hosts = {str(ipaddress.ip_network(address)) for address in appearances}
    return tuple(prefix for prefix in record.get("routes") or () if prefix not in hosts)


# To the process that tells -------------------------------------------------------------------


def to_json(told: Presence) -> dict[str, Any]:
    """Return ``told`` as plain data."""
    return asdict(told)


def from_json(plain: Mapping[str, Any]) -> Presence:
    """Return what :func:`to_json` made ``plain`` of."""
    adapters = [{**one, "addresses": tuple(one["addresses"])} for one in plain["adapters"]]
    services = [
        {**one, "places": tuple(Place(**place) for place in one["places"])}
        for one in plain["services"]
    ]
    return Presence(
        **{
            **plain,
            "adapters": tuple(Adapter(**one) for one in adapters),
            "services": tuple(Shown(**one) for one in services),
            "networks": tuple(plain["networks"]),
        }
    )

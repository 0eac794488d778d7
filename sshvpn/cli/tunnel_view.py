"""What the record of a tunnel says to a person, in words; pure.

A record is one of ``tunnels`` in ``status --json``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sshvpn.cli.told import told
from sshvpn.cli.words import human_bytes, human_ms

Record = Mapping[str, Any]
Fact = tuple[str, Sequence[str]]
"""A label, and what it says: one line or more."""

_EVERYTHING = {"0.0.0.0/0": "everything by IPv4", "::/0": "everything by IPv6"}
_SHOWN_ROUTES = 6


def ways(record: Record) -> list[Fact]:
    """Return by which ways it can be used; what does not hold is left out."""
    facts: list[Fact] = []
    if record["remote_addresses"]:
        facts.append(("remote host", [", ".join(addresses(record))]))
    if routed(record):
        facts.append(("routes", [routes(record)]))
    if record["lan"]:
        facts.append(("shared with", networks(record)))
    facts += appearances(record)
    if record["published"]:
        facts.append(("published", [published(one) for one in record["published"]]))
    return [*facts, *told(record)]


def routes(record: Record, most: int = _SHOWN_ROUTES) -> str:
    """Return the networks that are routed, on one line; ``most`` of them."""
    found = routed(record)
    if all(prefix in found for prefix in _EVERYTHING):
        found = ["everything", *(prefix for prefix in found if prefix not in _EVERYTHING)]
    said = [_EVERYTHING.get(prefix, prefix) for prefix in found]
    more = len(said) - most
    return ", ".join([*said[:most], *([f"and {more} more"] if more > 0 else [])])


def routed(record: Record) -> list[str]:
    """Return the networks behind the remote host that are routed."""
    return [prefix for prefix in record["routes"] if not _is_appearance(prefix, record)]


def appearances(record: Record) -> list[Fact]:
    """Return under which addresses of the LAN the remote host appears there."""
    found = [bare(prefix) for prefix in record["routes"] if _is_appearance(prefix, record)]
    return [("there it is", found)] if found else []


def _is_appearance(prefix: str, record: Record) -> bool:
    # An address of a LAN is routed to the remote host only where that appears under it: a
    # network that overlaps one of this machine's own is refused.
    network = ipaddress.ip_network(prefix)
    return network.num_addresses == 1 and any(
        network.network_address in ipaddress.ip_network(lan["network"]) for lan in record["lan"]
    )


def networks(record: Record) -> list[str]:
    """Return the LANs that it is shared with, a line an adapter."""
    by_interface: dict[str, list[str]] = {}
    for lan in record["lan"]:
        by_interface.setdefault(lan["interface"], []).append(lan["network"])
    return [
        f"{', '.join(dict.fromkeys(found))} on {interface}"
        for interface, found in by_interface.items()
    ]


def published(one: Mapping[str, Any]) -> str:
    """Return where one service is published, and which it is."""
    return f"{one['url'] or one['listen']} -> {one['target']}"


def figures(record: Record) -> str:
    """Return the round trip and what was carried, as far as they are known."""
    parts = []
    rtt_ms, received, sent = (record.get(key) for key in ("rtt_ms", "rx_bytes", "tx_bytes"))
    if rtt_ms is not None:
        parts.append(f"{human_ms(rtt_ms)} there and back")
    if received is not None:
        parts.append(f"{human_bytes(received)} in")
    if sent is not None:
        parts.append(f"{human_bytes(sent)} out")
    return ", ".join(parts)


def address(record: Record) -> str | None:
    """Return the remote host's address inside the tunnel; None: it has none yet."""
    return None if record["remote_address"] is None else bare(record["remote_address"])


def addresses(record: Record) -> list[str]:
    """Return all its addresses there; none where it has none yet."""
    return [bare(one) for one in record["remote_addresses"] or ()]


def bare(cidr: str) -> str:
    """Return the address of ``ADDRESS/LENGTH``."""
    return cidr.partition("/")[0]


def aligned(facts: Iterable[Fact], indent: str = "  ") -> list[str]:
    """Return ``facts`` as lines, what they say below each other."""
    known = list(facts)
    width = max((len(label) for label, _ in known), default=0)
    return [
        f"{indent}{label if number == 0 else '':<{width}}  {text}".rstrip()
        for label, texts in known
        for number, text in enumerate(texts)
    ]

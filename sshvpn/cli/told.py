"""What the local network is told of a session, as a person reads it; pure.

A record is one of ``status --json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def told(record: Mapping[str, Any]) -> list[tuple[str, Sequence[str]]]:
    """Return its names there, and where its portal is; what there is not is left out."""
    facts: list[tuple[str, Sequence[str]]] = []
    if names := record.get("names"):
        facts.append(("by name", [", ".join(names)]))
    if urls := record.get("portal"):
        # Who has an IPv6 address there has an IPv4 one as well, nearly always.
        facts.append(("portal", [url for url in urls if "[" not in url] or list(urls)))
    return facts


def is_told(record: Mapping[str, Any], *, announce: bool, portal: bool) -> bool:
    """Whether all that is wanted of it is there."""
    return bool((record["names"] or not announce) and (record["portal"] or not portal))

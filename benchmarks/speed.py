"""Bytes a second through one forward, one TCP stream, each against its peer."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from benchmarks.office import Office
from benchmarks.table import Row, paired

DIRECTIONS = {"push": "to the server", "pull": "from the server"}


class Bound(NamedTuple):
    """At least this many times as fast as the peer."""

    ours: str
    peer: str
    push: float
    pull: float


BOUNDS = (
    Bound("openssh", "ssh", push=1.4, pull=1.25),
    Bound("openssh", "ssh same cipher", push=0.97, pull=0.97),
    Bound("sshtunnel", "library", push=1.3, pull=1.3),
)
WORDS = {
    "ssh": "ssh -L",
    "ssh same cipher": "ssh -L, same cipher",
    "library": "the library",
}


def measure(office: Office, *, rounds: int, size: int) -> list[Row]:
    """Measure ours and the peers in turn, in the other order every other round."""
    ways = list(dict.fromkeys(way for bound in BOUNDS for way in (bound.ours, bound.peer)))
    rates: dict[tuple[str, str], list[float]] = {}
    for way in ways:
        office.transfer(way, "push", size // 8)
    for number in range(rounds):
        for verb in DIRECTIONS:
            for way in ways if number % 2 else reversed(ways):
                rates.setdefault((way, verb), []).append(office.transfer(way, verb, size))
    return [_row(bound, verb, rates) for bound in BOUNDS for verb in DIRECTIONS]


def _row(bound: Bound, verb: str, rates: dict[tuple[str, str], list[float]]) -> Row:
    ours, peer = rates[bound.ours, verb], rates[bound.peer, verb]
    ratio = paired(ours, peer)
    least = bound.push if verb == "push" else bound.pull
    return Row(
        f"{bound.ours}, {DIRECTIONS[verb]}; {WORDS[bound.peer]}",
        _rate(ours),
        _rate(peer),
        str(ratio),
        f">= {least}",
        ratio.median >= least,
    )


def _rate(rates: list[float]) -> str:
    return f"{statistics.median(rates) / 1e6:.0f} MB/s"

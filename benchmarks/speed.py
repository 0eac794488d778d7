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


class Sample(NamedTuple):
    """One transfer: how fast, and what it cost the processes at this end."""

    rate: float
    cpu_s_per_gb: float


def measure(office: Office, *, rounds: int, size: int) -> list[Row]:
    """Measure ours and the peers in turn, in the other order every other round."""
    ways = list(dict.fromkeys(way for bound in BOUNDS for way in (bound.ours, bound.peer)))
    samples: dict[tuple[str, str], list[Sample]] = {}
    for way in ways:
        office.transfer(way, "push", size // 8)
    for number in range(rounds):
        for verb in DIRECTIONS:
            for way in ways if number % 2 else reversed(ways):
                samples.setdefault((way, verb), []).append(_sample(office, way, verb, size))
    return [_row(bound, verb, samples) for bound in BOUNDS for verb in DIRECTIONS]


def _sample(office: Office, way: str, verb: str, size: int) -> Sample:
    before = office.cpu_s(way)
    rate = office.transfer(way, verb, size)
    return Sample(rate, (office.cpu_s(way) - before) * 1e9 / size)


def _row(bound: Bound, verb: str, samples: dict[tuple[str, str], list[Sample]]) -> Row:
    ours, peer = samples[bound.ours, verb], samples[bound.peer, verb]
    ratio = paired([sample.rate for sample in ours], [sample.rate for sample in peer])
    least = bound.push if verb == "push" else bound.pull
    return Row(
        f"{bound.ours}, {DIRECTIONS[verb]}; {WORDS[bound.peer]}",
        _cell(ours),
        _cell(peer),
        str(ratio),
        f">= {least}",
        ratio.median >= least,
    )


def _cell(samples: list[Sample]) -> str:
    rate, cpu_s = (statistics.median(column) for column in zip(*samples, strict=True))
    return f"{rate / 1e6:.0f} MB/s, {cpu_s:.2f} s/GB"

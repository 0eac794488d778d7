"""What of ``stream`` has no bound of its own: IPv6 beside IPv4, and several connections beside one.

::

    lan ── gateway ══ stream ══ server                                    one flow, of each family
    gateway ══ stream, --streams N ══[ 20 ms each way, 1 %, 200 Mbit/s ]══ server    several flows
"""

from __future__ import annotations

import statistics
from collections import defaultdict

from benchmarks import ways
from benchmarks.far import LOSSY, shaped
from benchmarks.network import DIRECTIONS, TRANSFER_S, load, transfer_for
from benchmarks.office import Office
from benchmarks.table import Row, paired
from tests.lab.process import read_line

STREAMS = FLOWS = 4
SECONDS = 8.0


def measure_families(office: Office, *, rounds: int) -> list[Row]:
    """Measure one TCP stream of IPv6 and one of IPv4 in turn, from the LAN machine."""
    ways.prepare(office)
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    for number in range(rounds):
        with ways.ours(office, "stream"):
            those = list(enumerate(ways.addresses(office)[:2]))
            for verb in DIRECTIONS:
                for which, address in those if number % 2 else reversed(those):
                    transfer_for(office.lab.lan, address, verb, 0.3)
                    rate = transfer_for(office.lab.lan, address, verb, TRANSFER_S)
                    rates[verb, which].append(rate)
    return [
        Row(
            f"stream, IPv6, a LAN machine {DIRECTIONS[verb]}; IPv4",
            f"{statistics.median(rates[verb, 1]) / 1e6:.0f} MB/s",
            f"{statistics.median(rates[verb, 0]) / 1e6:.0f} MB/s",
            str(paired(rates[verb, 1], rates[verb, 0])),
        )
        for verb in DIRECTIONS
    ]


def measure_streams(office: Office, *, rounds: int) -> list[Row]:
    """Measure several flows at once over the lossy path, by several connections and by one."""
    ways.prepare(office)
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    with shaped(office, LOSSY):
        for number in range(rounds):
            for streams in (1, STREAMS) if number % 2 else (STREAMS, 1):
                with ways.ours(office, "stream", streams=streams) as address:
                    for verb in DIRECTIONS:
                        rates[verb, streams].append(_together(office, address, verb))
    return [
        Row(
            f"stream, {FLOWS} flows, 40 ms, 1 % loss, 200 Mbit/s, {DIRECTIONS[verb]}, "
            f"--streams {STREAMS}; --streams 1",
            f"{statistics.median(rates[verb, STREAMS]) * 8e-6:.0f} Mbit/s",
            f"{statistics.median(rates[verb, 1]) * 8e-6:.0f} Mbit/s",
            str(paired(rates[verb, STREAMS], rates[verb, 1])),
        )
        for verb in DIRECTIONS
    ]


def _together(office: Office, address: str, verb: str) -> float:
    """Return the bytes a second of all flows, which run at the same time."""
    words = load(f"{verb}-for", address, SECONDS)
    flows = [office.lab.gateway.popen(words) for _ in range(FLOWS)]
    try:
        return sum(float(read_line(flow, SECONDS + 60)) for flow in flows)
    finally:
        for flow in flows:
            flow.end()

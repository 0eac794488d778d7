"""Long paths: one that loses packets, and one that is narrow.

::

    gateway ══ the way ══[ 20 ms each way, a loss of 1 %, 200 Mbit/s ]══ server
    lan ── gateway ══ the way ══[ 20 ms each way, 50 Mbit/s ]══ server      ping beside bytes

The outer connection of the peer, ``ssh -w``, is paced by cubic at both ends, which is what most
kernels come with; ours starts with reno at both ends, and gets what it gets. The TCP inside the
tunnels is paced by this kernel's default, the same for all.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import ways
from benchmarks.network import BESIDE, DIRECTIONS, OURS, ping_ms
from benchmarks.office import HERE, LOAD_PORT, PLAIN_PYTHON, Office
from benchmarks.table import Row, paired
from tests.lab import Wan, wait_until

LOSSY = Wan(delay_ms=20, loss=0.01, rate_mbit=200)
NARROW = Wan(delay_ms=20, rate_mbit=50)
SECONDS, PING_S = 8.0, 5.0
TIMES_FASTER = 25.0
PATH_MS, QUEUE_MS = 40.0, 25.0
PEER = "ssh -w, cubic"
FORWARD_PORT = 7200
CONFIG = "/home/alice/.config/sshvpn/config.toml"
FORWARD = f"""
[forwards.far]
host = "server"
specs = ["{FORWARD_PORT}:{LOAD_PORT}"]
congestion_control = "both"
"""


def measure_lossy(office: Office, *, rounds: int) -> list[Row]:
    """Measure both transports and a forward over the lossy path, from the gateway."""
    those: dict[str, ways.Way] = {
        **ways.transports(),
        "stream, ssh handed our connection": partial(
            ways.ours, transport="stream", is_handed_over=True
        ),
        "forward": forward,
        PEER: partial(ways.ssh_w, congestion_control="cubic"),
    }
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    with shaped(office, LOSSY):
        for number in range(rounds):
            for name in list(those) if number % 2 == 0 else list(reversed(those)):
                try:
                    with those[name](office) as where:
                        for verb in DIRECTIONS:
                            rates[name, verb].append(_rate(office, where, verb))
                except ways.NotHereError as error:
                    _left_out(name, error)
                    del those[name]
    return [
        _lossy_row(name, verb, rates[name, verb], rates[PEER, verb])
        for name in those
        if name != PEER
        for verb in DIRECTIONS
    ]


def _rate(office: Office, where: str, verb: str) -> float:
    place = where if ":" in where else f"{where}:{LOAD_PORT}"
    words = [*PLAIN_PYTHON, f"{HERE}/load.py", f"{verb}-for", place, str(SECONDS)]
    return float(office.lab.gateway.run(words, timeout=300).stdout)


@contextmanager
def forward(office: Office) -> Iterator[str]:
    """Forward a port by OpenSSH, and wait until both ends of its connection are seen to."""
    lab = office.lab
    with ways.paced_by("reno", lab.gateway, lab.server):
        lab.gateway.write(CONFIG, FORWARD)
        lab.sshvpn("forward", "-b", "--engine", "openssh", "far")
    try:
        wait_until(lambda: _remote_end(office) != "unknown", 10, what="the server's end is not set")
        yield f"127.0.0.1:{FORWARD_PORT}"
    finally:
        office.down("far")
        lab.gateway.run(["rm", CONFIG])


def _remote_end(office: Office) -> str:
    (record,) = json.loads(office.lab.sshvpn("status", "far", "--json").stdout)["forwards"]
    return str(record["congestion_control"]["remote"])


def _lossy_row(name: str, verb: str, ours: list[float], peer: list[float]) -> Row:
    ratio = paired(ours, peer)
    return Row(
        f"{name}, 40 ms, 1 % loss, 200 Mbit/s, {DIRECTIONS[verb]}; {PEER}",
        f"{statistics.median(ours) * 8e-6:.0f} Mbit/s",
        f"{statistics.median(peer) * 8e-6:.1f} Mbit/s",
        str(ratio),
        f">= {TIMES_FASTER:g}",
        ratio.median >= TIMES_FASTER,
    )


def measure_narrow(office: Office, *, rounds: int) -> list[Row]:
    """Measure how long a ping takes beside a bulk transfer, from the LAN machine."""
    those: dict[str, ways.Way] = {
        **ways.transports(),
        PEER: partial(ways.ssh_w, congestion_control="cubic"),
    }
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with shaped(office, NARROW):
        for _ in range(rounds):
            for name in list(those):
                try:
                    with those[name](office) as address:
                        for verb in BESIDE:
                            ms = ping_ms(office.lab.lan, address, verb, PING_S)
                            found[name, verb].append(ms)
                except ways.NotHereError as error:
                    _left_out(name, error)
                    del those[name]
    return [
        _narrow_row(name, verb, found[name, verb], found[PEER, verb])
        for name in those
        if name != PEER
        for verb in BESIDE
    ]


def _narrow_row(name: str, verb: str, ours: list[float], peer: list[float]) -> Row:
    ms, is_bound = statistics.median(ours), name == OURS
    return Row(
        f"{name}, ping while bytes are {BESIDE[verb]}, 40 ms, 50 Mbit/s; {PEER}",
        f"{ms:.0f} ms",
        f"{statistics.median(peer):.0f} ms",
        bound=f"< {PATH_MS:g} + {QUEUE_MS:g} ms" if is_bound else "-",
        ok=ms < PATH_MS + QUEUE_MS if is_bound else None,
    )


@contextmanager
def shaped(office: Office, wan: Wan) -> Iterator[None]:
    """Let the way between gateway and server be WAN meanwhile."""
    ways.prepare(office)
    office.lab.shape(wan)
    try:
        yield
    finally:
        office.lab.unshape()


def _left_out(name: str, error: ways.NotHereError) -> None:
    print(f"  left out: {name}: {error}", file=sys.stderr, flush=True)

"""The VPN against those that people would take instead, from a LAN machine whose MTU is 1500.

::

    lan ──1500── gateway ══ stream, w, ssh -w, OpenVPN … ══ server
                    └───── ssh, a byte stream ─────────────┘

One way stands at a time; each round goes over all of them, every other round backwards. A ratio
is the median over the rounds of what ran in the same one.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ways
from benchmarks.office import HERE, LOAD_PORT, PLAIN_PYTHON, SAME_CIPHER, Office
from benchmarks.table import Row, paired
from tests.lab import LabMachine
from tests.lab.process import read_line

DIRECTIONS = {"push": "to the server", "pull": "from the server"}
BESIDE = {"push": "pushed", "pull": "pulled"}
"""What is done with the bytes beside a ping."""
COUNT_PORT = 7100
DATAGRAM = 200
TRANSFER_S, BLAST_S, PING_S = 2.0, 3.0, 3.0
OURS, PEER = "stream", "ssh -w"
BYTES = {"bytes": "ssh HOST cat", "bytes to cat": "ssh HOST head to cat"}
"""The byte streams. From the server the first one has nobody who reads what ssh writes."""
TIMES_FASTER, TIMES_PACKETS = 8.0, 8.0
OF_BYTES, OF_CPU = 0.75, 1.3
PING_MS = 3.0
MEMORY_MB = 30


@dataclass
class Samples:
    """What one way did, round by round: each list has a number a round.

    ``rate`` in bytes a second and ``cpu`` in seconds a gigabyte, by direction; ``programs`` as
    ``cpu``, of what writes a byte stream and reads it; ``packets`` a second; ``ping_ms`` the median
    beside bytes, by their direction; ``memory_mb`` the most of each end.
    """

    rate: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    programs: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    packets: list[float] = field(default_factory=list)
    ping_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory_mb: dict[str, float] = field(default_factory=dict)


def measure(office: Office, *, rounds: int, size: int) -> list[Row]:
    """Measure all that is here; what is not is told, and left out of the table."""
    ways.prepare(office)
    found: dict[str, Samples] = defaultdict(Samples)
    those: dict[str, ways.Way] = {**ways.transports(), **ways.PEERS}
    for number in range(rounds):
        names = list(those)
        for name in names if number % 2 == 0 else reversed(names):
            try:
                with those[name](office) as address:
                    _sample(office, name, address, found[name])
            except ways.NotHereError as error:
                print(f"  left out: {name}: {error}", file=sys.stderr, flush=True)
                del those[name]
                found.pop(name, None)
        for verb in DIRECTIONS:
            _byte_stream(office, verb, verb, size, found["bytes"])
        _byte_stream(office, "pull-cat", "pull", size, found["bytes to cat"])
    return list(_rows(found))


# Samples ------------------------------------------------------------------------------------


def _sample(office: Office, name: str, address: str, into: Samples) -> None:
    lan = office.lab.lan
    # Whatever is slow at first (a route, a window, a cache) is before the clock.
    transfer_for(lan, address, "push", 0.3)
    for verb in DIRECTIONS:
        before = _cpu_s(office)
        rate = transfer_for(lan, address, verb, TRANSFER_S)
        into.rate[verb].append(rate)
        into.cpu[verb].append((_cpu_s(office) - before) / (rate * TRANSFER_S) * 1e9)
    if name in (*ways.transports(), PEER):
        into.packets.append(_blast(office, address))
        for verb in BESIDE:
            into.ping_ms[verb].append(ping_ms(lan, address, verb, PING_S))
    if name in ways.transports():
        for machine, mb in _memory_mb(office).items():
            into.memory_mb[machine] = max(into.memory_mb.get(machine, 0.0), mb)


def transfer_for(machine: LabMachine, address: str, verb: str, seconds: float) -> float:
    """Move what can be moved from MACHINE in SECONDS; return bytes a second."""
    return float(machine.run(load(f"{verb}-for", address, seconds), timeout=300).stdout)


def load(verb: str, address: str, *numbers: float, port: int = LOAD_PORT) -> list[str]:
    """Return the words that run load.py towards the server."""
    where = f"{address}:{port}"
    return [*PLAIN_PYTHON, f"{HERE}/load.py", verb, where, *map(str, numbers)]


def _blast(office: Office, address: str) -> float:
    """Return the datagrams a second that arrive when they are sent as fast as can be."""
    counter = office.lab.server.popen(load("count", "0.0.0.0", port=COUNT_PORT))
    try:
        assert read_line(counter, 10) == "ready\n"
        office.lab.lan.run(load("blast", address, BLAST_S, DATAGRAM, port=COUNT_PORT), timeout=60)
        return float(read_line(counter, 40))
    finally:
        counter.end()


def ping_ms(machine: LabMachine, address: str, verb: str, seconds: float) -> float:
    """Return the median round trip to ADDRESS while MACHINE pushes or pulls bytes there, in ms."""
    bulk = machine.popen(load(f"{verb}-for", address, seconds + 1.5))
    try:
        ping = ["ping", "-n", "-i0.05", "-W2", f"-c{int(seconds / 0.05)}", address]
        said = machine.run(ping, user="root", timeout=60, check=False).stdout
    finally:
        bulk.wait(300)
    # The first ones went before the bulk had begun.
    times = [float(text) for text in re.findall(r"time=([\d.]+) ms", said)][10:]
    return statistics.median(times) if times else float("inf")


def _byte_stream(office: Office, how: str, verb: str, size: int, into: Samples) -> None:
    words = [*PLAIN_PYTHON, f"{HERE}/bytestream.py", how, "server", SAME_CIPHER, str(size)]
    took = json.loads(office.lab.gateway.run(words, timeout=600).stdout)
    into.rate[verb].append(size / took["seconds"])
    into.cpu[verb].append(took["cpu_s"] / size * 1e9)
    into.programs[verb].append(took["programs_s"] / size * 1e9)


def _cpu_s(office: Office) -> float:
    """Return the CPU time so far of all processes at both ends, but those of the load."""
    ends = (office.lab.gateway, office.lab.server)
    return sum(_process_cpu_s(proc) for end in ends for proc, _ in _processes(end))


def _processes(machine: LabMachine) -> list[tuple[Path, str]]:
    """Return the directories in /proc and the command lines of MACHINE's processes."""
    return [
        (machine.host_path(f"/proc/{pid}"), line)
        for pid, line in machine.processes().items()
        if "load.py" not in line
    ]


def _process_cpu_s(proc: Path) -> float:
    try:
        ticks = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0.0
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _memory_mb(office: Office) -> Mapping[str, float]:
    """Return the resident memory of what carries packets at each end, ssh and sshd apart.

    At the gateway the supervisor and its helper carry none: they are those of every tunnel.
    """
    ends = ((office.lab.gateway, ("pump_local",)), (office.lab.server, ("python", "sshvpn-agent")))
    return {
        machine.name: max(
            (
                _rss_mb(proc)
                for proc, line in _processes(machine)
                if any(word in line for word in words)
            ),
            default=0.0,
        )
        for machine, words in ends
    }


def _rss_mb(proc: Path) -> float:
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", (proc / "status").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


# The table ----------------------------------------------------------------------------------


def _rows(found: Mapping[str, Samples]) -> Sequence[Row]:
    rows: list[Row] = []
    for verb in DIRECTIONS:
        for name in (n for n in ways.transports() if n in found):
            # What w cannot do from a LAN is told beside its peer alone.
            others = (*ways.PEERS, *BYTES) if name == OURS else (PEER,)
            peers = (n for n in others if n in found and found[n].rate[verb])
            rows += [_rate_row(name, peer, verb, found) for peer in peers]
    for name in (n for n in ways.transports() if n in found):
        rows += _packet_rows(name, found)
    for verb in DIRECTIONS:
        rows += [
            _cpu_row(name, peer, verb, found, is_whole=is_whole)
            for name in ways.transports()
            for peer in BYTES
            for is_whole in (False, True)
            if name in found and found[peer].cpu[verb]
        ]
    for name in (n for n in ways.transports() if n in found):
        for machine, mb in found[name].memory_mb.items():
            if mb:
                rows.append(_memory_row(name, machine, mb))
    return rows


def _rate_row(name: str, peer: str, verb: str, found: Mapping[str, Samples]) -> Row:
    ours, others = found[name].rate[verb], found[peer].rate[verb]
    ratio = paired(ours, others)
    least = {PEER: TIMES_FASTER, **dict.fromkeys(BYTES, OF_BYTES)}.get(peer, 1.0)
    is_bound = name == OURS
    what = f"{BYTES[peer]}, same cipher" if peer in BYTES else peer
    return Row(
        f"{name}, a LAN machine {DIRECTIONS[verb]}; {what}",
        f"{statistics.median(ours) / 1e6:.0f} MB/s",
        f"{statistics.median(others) / 1e6:.0f} MB/s",
        str(ratio),
        f">= {least:g}" if is_bound else "-",
        ratio.median >= least if is_bound else None,
    )


def _packet_rows(name: str, found: Mapping[str, Samples]) -> list[Row]:
    ours, peer = found[name], found[PEER]
    packets = paired(ours.packets, peer.packets)
    is_bound = name == OURS
    return [
        Row(
            f"{name}, UDP of {DATAGRAM} bytes at full blast, packets that arrive; {PEER}",
            f"{statistics.median(ours.packets) / 1e3:.1f} k/s",
            f"{statistics.median(peer.packets) / 1e3:.1f} k/s",
            str(packets),
            f">= {TIMES_PACKETS:g}" if is_bound else "-",
            packets.median >= TIMES_PACKETS if is_bound else None,
        ),
        *(_ping_row(name, verb, found) for verb in BESIDE),
    ]


def _ping_row(name: str, verb: str, found: Mapping[str, Samples]) -> Row:
    ours, peer = (statistics.median(found[one].ping_ms[verb]) for one in (name, PEER))
    is_bound = name == OURS
    return Row(
        f"{name}, ping while bytes are {BESIDE[verb]}, median; {PEER}",
        f"{ours:.1f} ms",
        f"{peer:.1f} ms",
        bound=f"< {PING_MS:g} ms" if is_bound else "-",
        ok=ours < PING_MS if is_bound else None,
    )


def _cpu_row(
    name: str, beside: str, verb: str, found: Mapping[str, Samples], *, is_whole: bool
) -> Row:
    """Return the row beside ssh and sshd alone, or beside the whole of the command line.

    Our pumps are to ssh what head and cat are there: they bring it its bytes, and take them.
    """
    ours, peer = found[name].cpu[verb], found[beside].cpu[verb]
    if is_whole:
        peer = [sum(both) for both in zip(peer, found[beside].programs[verb], strict=True)]
    ratio = paired(ours, peer)
    is_bound = name == OURS
    whose = "all of it" if is_whole else "ssh and sshd"
    return Row(
        f"{name}, CPU of both ends, {DIRECTIONS[verb]}; {BYTES[beside]}, {whose}",
        f"{statistics.median(ours):.2f} s/GB",
        f"{statistics.median(peer):.2f} s/GB",
        str(ratio),
        f"<= {OF_CPU:g}" if is_bound else "-",
        ratio.median <= OF_CPU if is_bound else None,
    )


def _memory_row(name: str, machine: str, mb: float) -> Row:
    return Row(
        f"{name}, memory at the {machine}, ssh apart",
        f"{mb:.1f} MB",
        bound=f"< {MEMORY_MB} MB",
        ok=mb < MEMORY_MB,
    )

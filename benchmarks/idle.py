"""What a background forward costs while nothing goes through it (its ssh apart)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.office import LOAD_PORT, Office
from benchmarks.table import Row

SETTLE_S = 3.0
WATCH_S = 30.0
CPU_PERCENT = 0.1
MEMORY_MB = 40

FORWARDS = {
    "openssh": ("--engine", "openssh"),
    "openssh --bind ADAPTER": ("--engine", "openssh", "--bind", "lan0"),
    "sshtunnel": ("--engine", "sshtunnel"),
    "sshtunnel --bind ADAPTER": ("--engine", "sshtunnel", "--bind", "lan0"),
}


@dataclass(frozen=True, slots=True)
class Use:
    """What a process has used since it was started."""

    cpu_ns: int
    wakeups: int


def measure(office: Office) -> list[Row]:
    """Watch one of each kind, all at the same time, for half a minute."""
    found = {}
    for number, (kind, words) in enumerate(FORWARDS.items()):
        office.forward(f"idle-{number}", *words, f"0:{LOAD_PORT}")
        found[kind] = office.supervisor(f"idle-{number}")
    time.sleep(SETTLE_S)
    before = {kind: use_of(proc) for kind, proc in found.items()}
    time.sleep(WATCH_S)
    rows = []
    for kind, proc in found.items():
        rows += _rows(kind, before[kind], use_of(proc), memory_mb(proc))
    for number in range(len(found)):
        office.down(f"idle-{number}")
    return rows


def _rows(kind: str, before: Use, after: Use, memory: dict[str, float]) -> list[Row]:
    percent = (after.cpu_ns - before.cpu_ns) / 1e7 / WATCH_S
    wakeups = (after.wakeups - before.wakeups) / WATCH_S
    return [
        Row(
            f"{kind}, idle: CPU (times woken)",
            f"{percent:.3f} % ({wakeups:.1f}/s)",
            bound=f"< {CPU_PERCENT} %",
            ok=percent < CPU_PERCENT,
        ),
        *(
            Row(
                f"{kind}, idle: {which.upper()}",
                f"{memory[which]:.1f} MB",
                bound=f"< {MEMORY_MB} MB",
                ok=memory[which] < MEMORY_MB,
            )
            for which in ("Pss", "Rss")
        ),
    ]


def use_of(proc: Path) -> Use:
    """Return what all threads of the process at ``proc`` have used (proc(5))."""
    cpu_ns = wakeups = 0
    for task in (proc / "task").iterdir():
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        status = (task / "status").read_text()
        wakeups += int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[0])
    return Use(cpu_ns, wakeups)


def memory_mb(proc: Path) -> dict[str, float]:
    """Return RSS and PSS, in megabytes."""
    text = (proc / "smaps_rollup").read_text()
    return {
        kind: int(kib) * 1024 / 1e6
        for kind, kib in re.findall(r"^(Rss|Pss):\s*(\d+) kB", text, re.MULTILINE)
    }

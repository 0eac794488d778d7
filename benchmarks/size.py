"""What idle tunnels cost: one, and fifty at once; each with its helper and guard, ssh apart.

Fifty go to one server under fifty names, as aliases of it in ssh_config.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.idle import memory_mb, use_of
from benchmarks.office import Office
from benchmarks.table import Row
from benchmarks.ways import prepare
from tests.lab.contents import ALICE

SETTLE_S = 10.0
WATCH_S = 60.0
MANY = 50
ONE_CPU_PERCENT, ONE_MB = 0.2, 50
MANY_CPU_PERCENT, EACH_MB = 4.0, 40
_ROOTS = ("privileged/main.py", "privileged/guard.py")
"""The helper, and the shell that guards it."""


def measure(office: Office) -> list[Row]:
    """Watch one tunnel for a minute, then fifty."""
    prepare(office)
    config = f"{ALICE.home}/.ssh/config"
    before = office.lab.gateway.read(config)
    aliases = [f"server{number}" for number in range(MANY)]
    lines = f"Host {' '.join(aliases)}\n  HostName server\n  HostKeyAlias server\n  User root\n"
    office.lab.gateway.write(config, before + lines)
    try:
        one, many = _watched(office, aliases[:1]), _watched(office, aliases)
    finally:
        office.lab.gateway.write(config, before)
    return [
        *_rows("one tunnel, idle", one, 1, ONE_CPU_PERCENT, ONE_MB),
        *_rows(f"{MANY} tunnels, idle", many, MANY, MANY_CPU_PERCENT, EACH_MB),
    ]


def _watched(office: Office, names: list[str]) -> tuple[float, float, float]:
    """Return percent of a core, times woken a second, and PSS in megabytes of all together."""
    office.lab.sshvpn("up", *names, "--no-lan", "--timeout", "300", timeout=600)
    try:
        time.sleep(SETTLE_S)
        found = _processes(office, len(names))
        before = [use_of(process) for process in found]
        time.sleep(WATCH_S)
        after = [use_of(process) for process in found]
        memory = sum(memory_mb(process)["Pss"] for process in found)
    finally:
        office.lab.sshvpn("down", "--all", timeout=600)
    pairs = list(zip(before, after, strict=True))
    cpu_ns = sum(late.cpu_ns - early.cpu_ns for early, late in pairs)
    woken = sum(late.wakeups - early.wakeups for early, late in pairs)
    return cpu_ns / 1e7 / WATCH_S, woken / WATCH_S, memory


def _processes(office: Office, count: int) -> list[Path]:
    """Return the directories in /proc of all supervisors, helpers and guards."""
    gateway = office.lab.gateway
    tunnels = json.loads(office.lab.sshvpn("status", "--json").stdout)["tunnels"]
    pids = [int(tunnel["pid"]) for tunnel in tunnels if tunnel["state"] == "running"]
    running = gateway.processes().items()
    helpers = [pid for pid, line in running if any(word in line for word in _ROOTS)]
    assert (len(pids), len(helpers)) == (count, 2 * count), (len(pids), len(helpers))
    return [gateway.host_path(f"/proc/{pid}") for pid in (*pids, *helpers)]


def _rows(
    what: str, seen: tuple[float, float, float], count: int, cpu: float, megabytes: float
) -> list[Row]:
    percent, woken, memory = seen
    each = memory / count
    return [
        Row(
            f"{what}: CPU of all (times woken)",
            f"{percent:.3f} % ({woken:.1f}/s)",
            bound=f"< {cpu} %",
            ok=percent < cpu,
        ),
        Row(
            f"{what}: PSS each, supervisor, helper and guard",
            f"{each:.1f} MB",
            bound=f"< {megabytes} MB",
            ok=each < megabytes,
        ),
    ]

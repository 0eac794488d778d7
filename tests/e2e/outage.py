"""Instruments for outages: how long nothing came through, and when it was noticed and over.

All processes of a laboratory read the same clocks (namespaces have no clocks of their own).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.e2e.vpn import DATAGRAMS, Vpn
from tests.lab import Lab, LabMachine, wait_until

NOTICED_WITHIN_S: Final = 10.0
BACK_WITHIN_S: Final = 2.0
"""What is promised, on a machine that makes a connection in the usual time."""
USUAL_S: Final = 1.0
"""How long a new connection takes, logins and both ends, where the machine is not busy."""
MOST_S: Final = 6.0
"""So much longer at most it may take where the machine is busy: more is no matter of that."""
TRIES: Final = 3

_TICK: Final = """
import select, socket, sys, time
host, port, every = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM)
due = time.time()
while True:
    now = time.time()
    if now >= due:
        due = now + every
        try:
            sock.sendto(repr(now).encode(), (host, port))
        except OSError:
            pass
    if select.select([sock], [], [], max(0, due - time.time()))[0]:
        try:
            sent = sock.recv(100).decode()
        except OSError:
            continue  # what an earlier one was told of: host unreachable
        print(sent, time.time(), flush=True)
"""


class Ticker:
    """Sends a datagram every 50 ms to an echo service, and notes which came back, and when."""

    def __init__(self, machine: LabMachine, host: str, every_s: float = 0.05) -> None:
        """Begin at once; the first answer is there when this returns."""
        self._path = f"/tmp/ticks-{time.monotonic_ns()}"  # noqa: S108 -- in the machine
        self._machine = machine
        machine.write(self._path, "")
        words = [sys.executable, "-u", "-c", _TICK, host, str(DATAGRAMS), str(every_s)]
        with machine.host_path(self._path).open("w") as stream:
            self._child = machine.popen(words, stdout=stream, stderr=stream)
        wait_until(self.answers, 10, what=f"no answer from {host}: {machine.read(self._path)}")

    def answers(self) -> list[float]:
        """Return when answers came (seconds since the epoch), in order."""
        return [at for _, at in self._pairs()]

    def _pairs(self) -> list[tuple[float, float]]:
        """Return when each was sent that was answered, and when its answer came."""
        lines = [line.split() for line in self._machine.read(self._path).splitlines()]
        return [(float(words[0]), float(words[1])) for words in lines if len(words) == 2]

    def wait_after(self, instant: float, timeout: float = 60) -> float:
        """Return when the first answer came to what was sent after INSTANT.

        What was sent before may have been answered, and be read late.
        """
        return next(
            iter(
                wait_until(
                    lambda: [at for sent, at in self._pairs() if sent > instant],
                    timeout,
                    what=f"nothing came through for {timeout} s",
                    every=0.05,
                )
            )
        )

    def end(self) -> None:
        """End it; its file goes, too."""
        self._child.end()
        self._machine.run(["rm", "-f", self._path])


@dataclass(frozen=True)
class Outage:
    """What was measured, in seconds: after its begin it was noticed, and after its end over.

    NOTICED_S is None where it was too short to be noticed.
    """

    what: str
    noticed_s: float | None
    back_s: float

    def __str__(self) -> str:
        """Return it as a line for docs/operations.md."""
        seen = "not noticed" if self.noticed_s is None else f"noticed after {self.noticed_s:.1f} s"
        return f"{self.what}: {seen}, traffic {self.back_s:.2f} s after the way was back"


def states(log: str) -> list[tuple[float, str]]:
    """Return when (seconds since the epoch) a session became what, as its LOG tells."""
    found = []
    for line in log.splitlines():
        match = re.match(r"(\S+) \d+ INFO (starting|running|backoff|failed)\b", line)
        if match:
            at = dt.datetime.fromisoformat(match[1].replace("Z", "+00:00")).timestamp()
            found.append((at, match[2]))
    return found


def became(log: str, state: str, after: float) -> float | None:
    """Return when a session became STATE first after AFTER, None if it has not, by its LOG."""
    return next((at for at, name in states(log) if at >= after and name == state), None)


def wait_became(log: Callable[[], str], state: str, after: float, timeout: float = 60) -> float:
    """Return when a session has become STATE after AFTER; LOG reads its log.

    Raises TimeoutError.
    """
    found = wait_until(lambda: became(log(), state, after), timeout, every=0.05)
    assert found is not None
    return found


def is_within(vpn: Vpn, seconds: float, bound_s: float) -> bool:
    """Whether SECONDS are within BOUND_S, or as much more as a busy machine takes for all it does.

    That is what a new connection, which is asked for then, takes beyond the usual.
    """
    return seconds <= bound_s or seconds <= bound_s + _allowance_s(vpn)


def _allowance_s(vpn: Vpn) -> float:
    # A way that is long or loses packets is no excuse.
    with vpn.lab.unshaped():
        started = time.time()
        vpn.lab.gateway.kill(vpn.record()["pid"], signal.SIGHUP)
        back = wait_became(vpn.log, "running", started)
    return min(max(0.0, back - started - USUAL_S), MOST_S)


def tell(text: str) -> None:
    """Print what was measured: pytest shows it with -rP, and `make faults` collects it."""
    print(f"MEASURED {text}")  # noqa: T201


def measure(
    vpn: Vpn, what: str, ticker: Ticker, begin: Callable[[], None], end: Callable[[], None]
) -> Outage:
    """Do BEGIN and END (which returns when the way is back), and measure what lies between."""
    began = time.time()
    begin()
    end()
    ended = time.time()
    back = ticker.wait_after(ended)
    noticed = became(vpn.log(), "backoff", began)
    outage = Outage(what, None if noticed is None else noticed - began, back - ended)
    tell(str(outage))
    return outage


# Faults ---------------------------------------------------------------------------------------


def own_processes(machine: LabMachine) -> list[int]:
    """Return the processes of ours at MACHINE, ssh's included."""
    running = machine.processes().items()
    return [pid for pid, line in running if "sshvpn" in line or "ssh " in line]


def fall_asleep(lab: Lab) -> Callable[[], None]:
    """Let all processes of ours at the gateway stand still, off the net; return what wakes it."""
    asleep = own_processes(lab.gateway)
    lab.cut()
    for pid in asleep:
        lab.gateway.kill(pid, signal.SIGSTOP)

    def wake() -> None:
        lab.restore()
        for pid in asleep:
            lab.gateway.kill(pid, signal.SIGCONT)

    return wake


def dropping(table: str, rule: str) -> str:
    """Return what loads TABLE, in which what RULE is about is dropped as it goes out."""
    chain = f"chain out {{\ntype filter hook output priority -400;\n{rule} drop\n}}"
    return f"table inet {table} {{\n{chain}\n}}\n"


SILENT: Final = "203.0.113.1"
"""The internet's own address, which lets questions to port 53 vanish."""


@contextlib.contextmanager
def silent_resolver(lab: Lab) -> Iterator[None]:
    """Let the gateway have a resolver that says nothing, and know the server by no other way."""
    lab.internet.nft(
        "table inet mute {\nchain in {\n"
        "type filter hook input priority 0;\nudp dport 53 drop\n}\n}\n"
    )
    hosts, resolv = lab.gateway.read("/etc/hosts"), lab.gateway.read("/etc/resolv.conf")
    without = "".join(
        line for line in hosts.splitlines(keepends=True) if not line.endswith(" server\n")
    )
    lab.gateway.write("/etc/hosts", without, "root", 0o644)
    lab.gateway.write("/etc/resolv.conf", f"nameserver {SILENT}\n", "root", 0o644)
    try:
        yield
    finally:
        lab.gateway.write("/etc/hosts", hosts, "root", 0o644)
        lab.gateway.write("/etc/resolv.conf", resolv, "root", 0o644)
        lab.internet.nft("delete table inet mute")

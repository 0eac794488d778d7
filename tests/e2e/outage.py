"""Instruments for outages: how long nothing came through, and when it was noticed and over.

All processes of a laboratory read the same clocks (namespaces have no clocks of their own).
"""

from __future__ import annotations

import datetime as dt
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.e2e.vpn import DATAGRAMS, Vpn
from tests.lab import LabMachine, wait_until

NOTICED_WITHIN_S: Final = 10.0
BACK_WITHIN_S: Final = 2.0
"""What is promised, on a machine that makes a connection in the usual time."""
USUAL_S: Final = 1.0
"""How long a new connection takes, logins and both ends, where the machine is not busy."""
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
        lines = self._machine.read(self._path).splitlines()
        return [float(line.split()[1]) for line in lines if len(line.split()) == 2]

    def wait_after(self, instant: float, timeout: float = 60) -> float:
        """Return when the first answer after INSTANT came."""
        return next(
            iter(
                wait_until(
                    lambda: [at for at in self.answers() if at > instant],
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


def states(vpn: Vpn) -> list[tuple[float, str]]:
    """Return when (seconds since the epoch) the tunnel became what, as its log tells."""
    found = []
    for line in vpn.log().splitlines():
        match = re.match(r"(\S+) \d+ INFO (starting|running|backoff|failed)\b", line)
        if match:
            at = dt.datetime.fromisoformat(match[1].replace("Z", "+00:00")).timestamp()
            found.append((at, match[2]))
    return found


def noticed_at(vpn: Vpn, since: float) -> float | None:
    """Return when the tunnel left `running` first after SINCE, None if it has not."""
    return next((at for at, state in states(vpn) if at >= since and state == "backoff"), None)


def is_within(vpn: Vpn, seconds: float, bound_s: float) -> bool:
    """Whether SECONDS are within BOUND_S, or as much more as a busy machine takes for all it does.

    That is what a new connection, which is asked for then, takes beyond the usual.
    """
    return seconds <= bound_s or seconds <= bound_s + _allowance_s(vpn)


def _allowance_s(vpn: Vpn) -> float:
    before = len(states(vpn))
    started = time.time()
    vpn.lab.gateway.kill(vpn.record()["pid"], signal.SIGHUP)

    def back_at() -> float | None:
        return next((at for at, state in states(vpn)[before:] if state == "running"), None)

    back = wait_until(back_at, 60, every=0.05)
    assert back is not None
    return max(0.0, back - started - USUAL_S)


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
    noticed = noticed_at(vpn, began)
    outage = Outage(what, None if noticed is None else noticed - began, back - ended)
    tell(str(outage))
    return outage

"""The emulator of a wide-area network between the gateway and the server.

`Wan` says what the link is like, `Emulator` runs it: a process (`_relay.py`) that joins two tap
devices of the `internet` machine and hands frames on when their time has come. Both directions
have the same properties, each on its own:

    frame ──> lost? ──> queue full? ──> [ queue, RATE ] ──> [ DELAY ] ──> out
              LOSS       QUEUE_PACKETS

ARP and neighbour discovery are never lost: a real WAN does not carry them, and a loss there would
cost a second for nothing. `Lab` decides where the devices are plugged in.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from tests.lab.machine import HERE, NO_COVERAGE, Machine
from tests.lab.process import LabError, read_line

TAPS: Final = ("emu-gw", "emu-net")


@dataclass(frozen=True)
class Wan:
    """What the link between gateway and server is like, in each direction.

    DELAY_MS is added one way, so the round trip grows by twice that. LOSS is a probability.
    RATE_MBIT counts frames with their Ethernet headers; None is as fast as the relay can (about
    half a gigabit per second). QUEUE_PACKETS wait for the rate at most, more are dropped. The
    same SEED loses the same frames of the same traffic.
    """

    delay_ms: float = 0
    loss: float = 0
    rate_mbit: float | None = None
    queue_packets: int = 1000
    seed: int = 1


class Emulator:
    """A running relay; `set` changes it while it runs, `stop` ends it and its devices."""

    def __init__(self, machine: Machine, wan: Wan) -> None:
        """Start the relay in MACHINE; its two devices (TAPS) exist when this returns."""
        self._child = machine.popen(
            [sys.executable, "-I", "-S", str(HERE / "_relay.py"), *TAPS],
            user="root", env=NO_COVERAGE, stdin=subprocess.PIPE,
        )  # fmt: skip
        self.set(wan)

    def set(self, wan: Wan, back: Wan | None = None) -> None:
        """Make the link WAN; BACK, if given, is the direction from the server to the gateway.

        Frames on their way keep the time they were given.
        """
        assert self._child.stdin is not None
        both = [dataclasses.asdict(wan), dataclasses.asdict(back or wan)]
        self._child.stdin.write(json.dumps(both) + "\n")
        self._child.stdin.flush()
        if read_line(self._child, 10) != "ready\n":
            self._child.kill()
            raise LabError(f"the emulator ended: {self._child.communicate()[1]}")

    def stop(self) -> None:
        """End it; its devices go with it."""
        self._child.kill()
        self._child.communicate()

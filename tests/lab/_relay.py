"""The process behind `wan.Emulator`: joins two tap devices, with delay, loss, rate and queue.

Run as `python -I -S _relay.py TAP TAP`; reads its settings from standard input, one JSON list of
two objects a line (each way), answers "ready", ends with its standard input.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import json
import os
import random
import select
import struct
import sys
import time
from typing import Any

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
FRAME = 65536
# Frames read from one device before the other one gets its turn.
BATCH = 64


def open_tap(name: str) -> int:
    """Make the tap device NAME, which lives as long as the descriptor returned."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def is_neighbour_talk(frame: bytes) -> bool:
    """Tell whether FRAME is ARP, ICMPv6 neighbour or router discovery, or who hears a multicast.

    It comes when it likes, so it has no throw of the dice: the others would be another's then.
    """
    kind = frame[12:14]
    if kind == b"\x08\x06":
        return True
    if kind != b"\x86\xdd":
        return False
    if frame[20] == 0:  # a hop-by-hop header: MLD's (RFC 3810, 5)
        return frame[54] == 58 and frame[62] in {130, 131, 132, 143}
    return frame[20] == 58 and 133 <= frame[54] <= 137


class Direction:
    """One way of the link. Time is an argument, in seconds."""

    def __init__(self, source: int, target: int) -> None:
        """Carry frames from SOURCE to TARGET, both descriptors of taps."""
        self.source = source
        self.target = target
        self.in_flight: collections.deque[tuple[float, bytes]] = collections.deque()
        self.queued: collections.deque[float] = collections.deque()
        self.free_at = 0.0
        self.last_due = 0.0
        self.seed: int | None = None

    def configure(self, wan: dict[str, Any]) -> None:
        """Take the fields of `Wan`; the dice start again only with another seed."""
        self.delay = wan["delay_ms"] / 1000
        self.loss = wan["loss"]
        self.seconds_per_byte = 8e-6 / wan["rate_mbit"] if wan["rate_mbit"] else 0.0
        self.limit = wan["queue_packets"]
        if self.seed != wan["seed"]:
            self.seed = wan["seed"]
            self.random = random.Random(self.seed)  # noqa: S311 -- it shall be repeatable

    def take(self, frame: bytes, now: float) -> None:
        """Lose FRAME, or give it the time at which it leaves."""
        if self.loss and not is_neighbour_talk(frame) and self.random.random() < self.loss:
            return
        leaves = now
        if self.seconds_per_byte:
            queued = self.queued
            while queued and queued[0] <= now:
                queued.popleft()
            if len(queued) >= self.limit:
                return
            self.free_at = max(now, self.free_at) + len(frame) * self.seconds_per_byte
            queued.append(self.free_at)
            leaves = self.free_at
        # A delay that was made shorter must not let frames overtake each other.
        self.last_due = max(self.last_due, leaves + self.delay)
        self.in_flight.append((self.last_due, frame))

    def read(self, now: float) -> None:
        """Take what has come, up to a batch."""
        for _ in range(BATCH):
            try:
                frame = os.read(self.source, FRAME)
            except (BlockingIOError, OSError):  # the device may be down
                return
            self.take(frame, now)

    def deliver(self, now: float) -> float | None:
        """Hand on what is due, and return the time of the next, None if there is none."""
        in_flight = self.in_flight
        while in_flight and in_flight[0][0] <= now:
            _, frame = in_flight.popleft()
            # Down, or not drained: a frame lost, as on a real wire.
            with contextlib.suppress(OSError):
                os.write(self.target, frame)
        return in_flight[0][0] if in_flight else None


def main() -> None:
    """Relay until the standard input ends."""
    left, right = map(open_tap, sys.argv[1:])
    directions = [Direction(left, right), Direction(right, left)]
    control = sys.stdin.fileno()
    configured = False
    pending: list[float] = []
    while True:
        timeout = max(0.0, min(pending) - time.monotonic()) if pending else None
        wanted = [control, left, right] if configured else [control]
        # select, because its timeout is finer than a millisecond.
        readable, _, _ = select.select(wanted, [], [], timeout)
        if control in readable:
            line = sys.stdin.buffer.readline()
            if not line:
                return
            for direction, wan in zip(directions, json.loads(line), strict=False):
                direction.configure(wan)
            configured = True
            print("ready", flush=True)  # noqa: T201
        now = time.monotonic()
        for direction in directions:
            if direction.source in readable:
                direction.read(now)
        due = [direction.deliver(time.monotonic()) for direction in directions]
        pending = [when for when in due if when is not None]


if __name__ == "__main__":
    main()

"""Tells that this machine has slept: by its clocks, since nothing else is the same everywhere.

CLOCK_MONOTONIC stands still while a machine is suspended and CLOCK_BOOTTIME does not
(clock_gettime(2)). Where a virtual machine, or this process, was stopped and let go on, both
have leapt; connections have aged all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

TICK_S = 1.0
_SUSPENDED_S = 0.5
"""By so much the clocks may part without a sleep: they are not read in the same instant."""
_STOPPED_S = 5.0
"""A tick that comes so late was not only held up by other work."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """One reading of both clocks, in seconds."""

    monotonic: float
    boot: float


def read_clocks() -> Clocks:
    """Return what they say now; where there is no CLOCK_BOOTTIME they never part."""
    monotonic = time.monotonic()
    which = getattr(time, "CLOCK_BOOTTIME", None)
    return Clocks(monotonic, monotonic if which is None else time.clock_gettime(which))


def slept_s(before: Clocks, now: Clocks, tick_s: float = TICK_S) -> float:
    """Return how long the machine, or this process, stood still between two readings.

    0 where it did not. The second was meant to be ``tick_s`` after the first.
    """
    passed = now.boot - before.boot
    suspended = passed - (now.monotonic - before.monotonic)
    if suspended >= _SUSPENDED_S:
        return suspended
    late = passed - tick_s
    return late if late >= _STOPPED_S else 0.0


async def awakenings(
    read: Callable[[], Clocks] = read_clocks, tick_s: float = TICK_S
) -> AsyncGenerator[float, None]:
    """Yield, after each time that the machine stood still, for how many seconds it did.

    Within ``tick_s`` after it goes on.
    """
    before = read()
    while True:
        await asyncio.sleep(tick_s)
        now = read()
        stood_s = slept_s(before, now, tick_s)
        before = now
        if stood_s:
            yield stood_s

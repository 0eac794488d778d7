"""Tells that this machine has slept: the kernel wakes who waits for that, and its clocks prove it.

A timer of the wall clock that is never due is cancelled when that clock is set, as it is after
each suspension (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET): nobody has to look. That it was a
sleep, and nobody who set the clock, is told by CLOCK_MONOTONIC, which stands still while a machine
is suspended, and CLOCK_BOOTTIME, which does not (clock_gettime(2)). Where a virtual machine, or
this process, was stopped and let go on, both have leapt, and nobody is told: so the clocks are read
every few seconds, too. Connections have aged all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import AsyncGenerator, Callable

from sshvpn.frozen import dataclass
from sshvpn.waiting import within

TICK_S = 4.0
"""With what is late below: what stops for 9 s is noticed, as soon as it goes on. Whose way was cut
meanwhile is told sooner, by what TCP had to repeat."""
_SUSPENDED_S = 0.5
"""By so much the clocks may part without a sleep: they are not read in the same instant."""
_STOPPED_S = 5.0
"""A tick that comes so late was not only held up by other work."""

_CLOCK_REALTIME = 0
_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_NEVER_S = (1 << 31) - 1 if ctypes.sizeof(ctypes.c_long) == 4 else 1 << 40  # noqa: PLR2004
"""The year 2038 is the last of a 32-bit clock; then nothing can be told any more."""


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

    0 where it did not. The second was meant to be ``tick_s`` after the first, at the latest.
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

    After a suspension at once, else within ``tick_s`` after it goes on.
    """
    with contextlib.closing(ClockAlarm()) as alarm:
        before = read()
        while True:
            await alarm.wait(tick_s)
            now = read()
            stood_s = slept_s(before, now, tick_s)
            before = now
            if stood_s:
                yield stood_s


class ClockAlarm:
    """Tells in the running loop when the wall clock has been set. Close it.

    Where the kernel has no such timer, or none that is never due, nothing is ever told.
    """

    def __init__(self) -> None:
        self._set = asyncio.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_REALTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd >= 0:
            self._arm()
            asyncio.get_running_loop().add_reader(self._fd, self._hear)

    def close(self) -> None:
        """Tell nothing more. Twice is fine."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    async def wait(self, timeout_s: float) -> bool:
        """Wait for so long, and return whether the clock has been set meanwhile."""
        self._set.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await within(timeout_s, self._set.wait())
        return self._set.is_set()

    def _arm(self) -> None:
        if time.time() >= _NEVER_S:  # it would be due at once, again and again
            return
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        never = (ctypes.c_long * 4)(0, 0, _NEVER_S, 0)  # struct itimerspec
        self._libc.timerfd_settime(self._fd, flags, never, None)

    def _hear(self) -> None:
        with contextlib.suppress(OSError):  # ECANCELED is what it says
            os.read(self._fd, 8)
        self._arm()
        self._set.set()

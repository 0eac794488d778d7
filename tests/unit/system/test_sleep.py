"""Whether the machine slept, told by two clocks that are handed in."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import pathlib
import time
from collections.abc import Iterator

import pytest

from sshvpn.system import sleep
from sshvpn.system.sleep import TICK_S, ClockAlarm, Clocks, awakenings, read_clocks, slept_s

BEFORE = Clocks(monotonic=100.0, boot=500.0)


def test_a_tick_that_comes_in_time_or_late_is_no_sleep() -> None:
    for late in (0.0, 0.3, 3.0):
        tick = TICK_S + late
        assert slept_s(BEFORE, Clocks(100.0 + tick, 500.0 + tick)) == 0.0


def test_a_suspended_machine_is_told_by_the_clock_that_stood_still() -> None:
    assert slept_s(BEFORE, Clocks(101.0, 501.0 + 3600.0)) == 3600.0


def test_a_short_sleep_is_one_too() -> None:
    assert slept_s(BEFORE, Clocks(101.0, 502.0)) == 1.0


def test_a_stopped_virtual_machine_or_process_is_told_by_both_clocks_that_leapt() -> None:
    assert slept_s(BEFORE, Clocks(131.0, 531.0)) == 31.0 - TICK_S


def test_the_clocks_of_this_machine_are_read() -> None:
    first = read_clocks()
    second = read_clocks()
    assert 0 <= second.monotonic - first.monotonic < 1
    assert 0 <= second.boot - first.boot < 1


def test_each_awakening_is_told_once() -> None:
    readings: Iterator[Clocks] = iter(
        [BEFORE, Clocks(101, 501), Clocks(102, 600), Clocks(103, 601), Clocks(104, 605)]
    )

    async def story() -> list[float]:
        slept = awakenings(lambda: next(readings), tick_s=0.001)
        return [await anext(slept), await anext(slept)]

    assert asyncio.run(story()) == [98.0, 3.0]


def test_nine_seconds_that_a_process_was_stopped_are_told_whenever_they_began() -> None:
    """As long as silence is put up with anyway: whatever was open may be gone."""
    for since_tick in (0.0, 1.0, 2.5, TICK_S):
        passed = since_tick + 9.0
        assert slept_s(BEFORE, Clocks(100.0 + passed, 500.0 + passed)) > 0


def test_a_clock_that_is_set_is_told_at_once_and_one_that_is_not_is_not() -> None:
    async def story() -> tuple[bool, bool]:
        with contextlib.closing(ClockAlarm()) as alarm:
            before = await alarm.wait(0.02)
            expire(alarm)
            return before, await alarm.wait(5)

    assert asyncio.run(story()) == (False, True)


def expire(alarm: ClockAlarm) -> None:
    """Let the timer have something to say, as it has when the clock was set, which is not here."""
    soon = (ctypes.c_long * 4)(0, 0, 0, 1)
    assert alarm._libc.timerfd_settime(alarm._fd, 0, soon, None) == 0


def test_a_clock_that_is_past_its_end_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleep, "_NEVER_S", int(time.time()) - 10)
    told: list[int] = []

    class Counting(ClockAlarm):
        def _hear(self) -> None:
            told.append(1)
            super()._hear()

    async def story() -> None:
        with contextlib.closing(Counting()) as alarm:
            assert not await alarm.wait(0.1)

    asyncio.run(story())
    assert told == []


def test_the_end_of_a_clock_is_far_where_the_kernel_counts_by_64_bits() -> None:
    assert (sleep._NEVER_S > 1 << 32) is (ctypes.sizeof(ctypes.c_long) == 8)


def descriptors() -> int:
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


def test_an_alarm_leaves_no_descriptor() -> None:
    async def story() -> int:
        before = descriptors()
        with contextlib.closing(ClockAlarm()) as alarm:
            await alarm.wait(0)
        return descriptors() - before

    assert asyncio.run(story()) == 0

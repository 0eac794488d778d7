"""Whether the machine slept, told by two clocks that are handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from sshvpn.system.sleep import Clocks, awakenings, read_clocks, slept_s

BEFORE = Clocks(monotonic=100.0, boot=500.0)


def test_a_tick_that_comes_in_time_or_late_is_no_sleep() -> None:
    for late in (0.0, 0.3, 3.0):
        assert slept_s(BEFORE, Clocks(101.0 + late, 501.0 + late)) == 0.0


def test_a_suspended_machine_is_told_by_the_clock_that_stood_still() -> None:
    assert slept_s(BEFORE, Clocks(101.0, 501.0 + 3600.0)) == 3600.0


def test_a_short_sleep_is_one_too() -> None:
    assert slept_s(BEFORE, Clocks(101.0, 502.0)) == 1.0


def test_a_stopped_virtual_machine_or_process_is_told_by_both_clocks_that_leapt() -> None:
    assert slept_s(BEFORE, Clocks(131.0, 531.0)) == 30.0


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

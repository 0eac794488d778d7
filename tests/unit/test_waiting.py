"""Waiting for so long, and no longer than one is wanted."""

from __future__ import annotations

import asyncio

import pytest

from sshvpn.waiting import within


def test_what_ends_in_time_is_returned_and_what_fails_is_raised() -> None:
    async def five() -> int:
        await asyncio.sleep(0)
        return 5

    async def failing() -> None:
        raise OSError("no")

    assert asyncio.run(within(10, five())) == 5
    assert asyncio.run(within(None, five())) == 5
    with pytest.raises(OSError, match="no"):
        asyncio.run(within(10, failing()))


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
def test_what_takes_too_long_is_ended(seconds: float) -> None:
    ended: list[bool] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(seconds, endless()))
    assert ended == [True]


@pytest.mark.parametrize("iterations", range(6))
@pytest.mark.parametrize("fails", [False, True])
def test_a_cancellation_counts_even_if_the_end_comes_with_it(
    *, iterations: int, fails: bool
) -> None:
    async def waited(event: asyncio.Event) -> None:
        await event.wait()
        if fails:
            raise OSError("no")

    async def story() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(within(10, waited(event)))
        await asyncio.sleep(0.01)
        event.set()
        for _ in range(iterations):
            await asyncio.sleep(0)
        is_cancelled = waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled() is is_cancelled

    asyncio.run(story())


def test_what_is_waited_for_ends_with_who_waits() -> None:
    async def story() -> None:
        inner = asyncio.create_task(asyncio.sleep(100))
        waiting = asyncio.create_task(within(10, inner))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert inner.cancelled()

    asyncio.run(story())

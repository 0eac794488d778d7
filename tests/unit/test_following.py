"""Comparing again after each change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from sshvpn.errors import SshvpnError
from sshvpn.following import follow

LOG = logging.getLogger("tests.following")


async def for_ever() -> AsyncIterator[None]:
    await asyncio.Event().wait()
    yield


async def once() -> AsyncIterator[None]:
    yield
    await asyncio.Event().wait()


async def failing() -> AsyncIterator[None]:
    yield
    raise SshvpnError("no more")


def followed(*sources: AsyncIterator[None], times: int, at_once: bool, again: float | None) -> int:
    """Follow until it was compared so many ``times``, and return that number."""
    count = 0

    async def reconcile() -> bool:
        nonlocal count
        count += 1
        return count < times

    async def main() -> None:
        following = follow(
            *sources, reconcile=reconcile, look_again_s=lambda: again, log=LOG, at_once=at_once
        )
        await asyncio.wait_for(following, 20)

    asyncio.run(main())
    return count


def test_a_change_of_any_source_counts() -> None:
    assert followed(for_ever(), once(), times=1, at_once=False, again=None) == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_it_is_compared_at_once_where_that_is_wanted_and_only_there(*, at_once: bool) -> None:
    told: list[bool] = []
    seen: list[bool] = []

    async def late() -> AsyncIterator[None]:
        for _ in range(3):
            await asyncio.sleep(0)
        told.append(True)
        yield

    async def reconcile() -> bool:
        seen.extend(told)
        return False

    async def main() -> None:
        await follow(
            late(), reconcile=reconcile, look_again_s=lambda: None, log=LOG, at_once=at_once
        )

    asyncio.run(main())
    assert seen == ([] if at_once else [True])


def test_what_is_missing_is_looked_for_again_without_a_change() -> None:
    assert followed(for_ever(), times=3, at_once=False, again=0.01) == 3


def test_a_source_that_fails_is_told_and_the_others_are_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert followed(failing(), for_ever(), times=2, at_once=False, again=0.01) == 2
    assert "changes are not followed: no more" in caplog.text


def test_a_bug_in_what_is_compared_or_heard_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sshvpn.following._AFTER_BUG_S", 0.01)
    count = 0

    async def broken() -> AsyncIterator[None]:
        if count == 0:
            raise OSError("no such thing")
        yield

    async def reconcile() -> bool:
        nonlocal count
        count += 1
        if count == 1:
            raise KeyError("a bug")
        return False

    async def main() -> None:
        following = follow(
            once(), broken(), reconcile=reconcile, look_again_s=lambda: None, log=LOG
        )
        await asyncio.wait_for(following, 20)

    asyncio.run(main())
    assert count == 2
    assert "something unexpected: KeyError" in caplog.text
    assert "something unexpected: OSError" in caplog.text

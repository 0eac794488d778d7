"""What the session asks of the helper, also when it stops waiting for the answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from sshvpn.plan.state import ProxyNeighbour
from sshvpn.plan.steps import AddNeighbour, Step
from sshvpn.system.privilege.helper import Helper
from sshvpn.system.privilege.local_end import HelperEnd

UNIT = 5301
NEIGHBOUR = ProxyNeighbour("lan0", "192.0.2.7")


class SlowHelper(Helper):
    """Answers when it is told to, and as the real one: it opens once."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked = threading.Event()
        self.opened = 0
        ours, self._theirs = socket.socketpair()
        super().__init__(ours)

    def _wait(self) -> None:
        self.asked.set()
        assert self.may_answer.wait(10)

    def open(self, label: str, unit: int | None = None) -> int:  # noqa: ARG002 (as the real one)
        self._wait()
        self.opened += 1
        assert self.opened == 1, "open already"
        return UNIT

    def apply(self, steps: Sequence[Step]) -> None:  # noqa: ARG002 (as the real one)
        self._wait()

    def close(self) -> list[str]:
        self.let_go()
        self._theirs.close()
        return []


async def abandoned(helper: SlowHelper, what: asyncio.Task[Any]) -> None:
    """Stop waiting for WHAT while the helper works on it; it ends that nevertheless."""
    await asyncio.to_thread(helper.asked.wait, 10)
    what.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await what
    helper.may_answer.set()


def run(story: Callable[[HelperEnd, SlowHelper], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        helper = SlowHelper()
        end = HelperEnd(helper, "3e8_00", lambda: pytest.fail("another one"))
        try:
            await story(end, helper)
        finally:
            helper.may_answer.set()
            await end.close()

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_an_opening_that_nobody_waited_for_counts() -> None:
    """A login that fails at once gives up the device that is just being made: then is retried."""

    async def story(end: HelperEnd, helper: SlowHelper) -> None:
        await abandoned(helper, asyncio.create_task(end.open()))
        assert await end.open() == UNIT
        assert helper.opened == 1

    run(story)


def test_two_that_open_at_the_same_time_get_the_same_unit() -> None:
    async def story(end: HelperEnd, helper: SlowHelper) -> None:
        helper.may_answer.set()
        assert set(await asyncio.gather(end.open(), end.open())) == {UNIT}

    run(story)


def test_a_neighbour_that_nobody_waited_for_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "sshvpn.system.privilege.local_end"
    monkeypatch.setattr(f"{module}._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(f"{module}.proxy_neighbours", frozenset)

    async def story(end: HelperEnd, helper: SlowHelper) -> None:
        looking = asyncio.create_task(end._look_for_neighbours())
        await abandoned(helper, asyncio.create_task(end.apply([AddNeighbour(NEIGHBOUR)])))
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(end._nudged, 1) == b"\n"  # it is missing, and is told of
        looking.cancel()

    run(story)

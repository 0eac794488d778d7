"""The remote host's address of the LAN, and who else has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from sshvpn.boundary import Prober
from sshvpn.errors import TakenError
from sshvpn.tunnel.lan_address import LanAddress
from tests.unit.test_ends import profile

ADDRESS = "192.168.77.50"
MAC = "02:00:00:00:77:50"


class Lan:
    """A LAN in which ``answer`` is awaited, after a while without one."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.is_asked = False

    async def holder_of(self, _interface: str, _address: str, quiet: asyncio.Event) -> str | None:
        self.is_asked = True
        quiet.set()
        try:
            return await self.answer
        finally:
            self.is_asked = False


class Office:
    """An address, and its LAN."""

    def __init__(self) -> None:
        self.lan = Lan()
        self.address = LanAddress(cast("Prober", self.lan))

    async def claim(self) -> None:
        await self.address.claim(ADDRESS, "lan0")

    @property
    def granted(self) -> str | None:
        return self.address.granted(profile(lan_address=ADDRESS)).lan_address


def run(story: Callable[[Office], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        office = Office()
        await asyncio.wait_for(story(office), 20)
        await office.address.close()
        assert not office.lan.is_asked

    asyncio.run(told())


def test_it_is_taken_when_nobody_answers_at_once_and_kept_when_nobody_does_at_all() -> None:
    async def story(office: Office) -> None:
        await office.claim()
        assert office.lan.is_asked
        assert office.granted == ADDRESS
        office.lan.answer.set_result(None)
        await office.address.settle()
        assert office.granted == ADDRESS

    run(story)


def test_an_answer_at_once_refuses_it() -> None:
    async def story(office: Office) -> None:
        office.lan.answer.set_result(MAC)
        with pytest.raises(TakenError, match=rf"{ADDRESS} is in use on lan0, by {MAC}"):
            await office.claim()

    run(story)


def test_after_a_late_answer_it_is_given_up_and_that_is_news() -> None:
    async def story(office: Office) -> None:
        await office.claim()
        changes = office.address.changes()
        office.lan.answer.set_result(MAC)
        await anext(changes)
        assert office.granted is None
        assert MAC in str(office.address.lost)

    run(story)


def test_what_was_given_up_is_claimed_again_and_stays_so_while_the_other_has_it() -> None:
    async def story(office: Office) -> None:
        await office.claim()
        office.lan.answer.set_result(MAC)
        await anext(office.address.changes())
        await office.claim()
        assert office.granted is None
        office.lan.answer = asyncio.get_running_loop().create_future()
        office.lan.answer.set_result(None)
        await office.claim()
        assert office.granted == ADDRESS

    run(story)


def test_who_waits_for_the_last_hears_of_a_late_answer() -> None:
    async def story(office: Office) -> None:
        await office.claim()
        office.lan.answer.set_result(MAC)
        with pytest.raises(TakenError, match=MAC):
            await office.address.settle()

    run(story)


def test_a_claim_that_is_cancelled_leaves_nobody_asking() -> None:
    async def story(office: Office) -> None:
        claiming = asyncio.create_task(office.claim())
        await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        assert not office.lan.is_asked

    run(story)

"""The login that is begun beside the first: when it is taken, and that it never stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sshvpn.errors import (
    AuthenticationError,
    ConnectionLostError,
    HostKeyUnknownError,
    LoginNeededError,
    TunnelRefusedError,
    UnreachableError,
)
from sshvpn.system.openssh.held import Gate
from sshvpn.system.openssh.stderr import DeviceRefusedError
from sshvpn.system.tunnel.second_login import SecondLogin

DEVICE: Any = object()


class Login:
    """A login that was made."""

    is_closed = False

    async def close(self) -> None:
        self.is_closed = True


class Dial:
    """Makes one, once its device is there; raises what stops it BEFORE that, or AFTER it.

    One that ``waits`` not has asked for the device already.
    """

    def __init__(
        self,
        before: Exception | None = None,
        after: Exception | None = None,
        *,
        waits: bool = True,
    ) -> None:
        self.before, self.after, self.waits = before, after, waits
        self.made = Login()
        self.units: list[str] = []
        self.is_cancelled = False

    async def prepared(self, unit: str, gate: Gate | None = None) -> Any:
        self.units.append(unit)
        assert gate is not None
        if self.before is not None:
            raise self.before
        try:
            if self.waits:
                gate.is_reached = True
                await asyncio.shield(gate.is_open)
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        if self.after is not None:
            raise self.after
        return self.made, DEVICE


def play(dial: Dial, story: Callable[[SecondLogin], Awaitable[object]]) -> object:
    async def run() -> object:
        second = SecondLogin(dial, "5600")
        await asyncio.sleep(0)  # it begins
        try:
            return await story(second)
        finally:
            await second.close()
            await second.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others

    return asyncio.run(run())


def test_it_is_taken_for_the_device_that_it_was_begun_for() -> None:
    dial = Dial()
    assert play(dial, lambda second: second.take("5600")) == (dial.made, DEVICE)
    assert dial.units == ["5600"]
    assert not dial.made.is_closed


def test_for_another_device_it_is_ended() -> None:
    dial = Dial()
    assert play(dial, lambda second: second.take("5601")) is None
    assert dial.is_cancelled


@pytest.mark.parametrize(
    ("error", "was_refused"),
    [
        (AuthenticationError("no"), True),
        (LoginNeededError("locked"), True),
        (HostKeyUnknownError("who"), True),
        (UnreachableError("turned away"), False),
        (OSError("no pipe is left"), False),
    ],
)
def test_one_that_did_not_log_in_says_nothing_of_the_tunnel(
    error: Exception, *, was_refused: bool
) -> None:
    async def take(second: SecondLogin) -> object:
        assert await second.take("5600") is None
        return second.was_refused

    assert play(Dial(before=error), take) is was_refused


@pytest.mark.parametrize(
    "error", [TunnelRefusedError("not permitted"), ConnectionLostError("cut"), OSError("gone")]
)
def test_what_stops_one_that_has_asked_for_the_device_is_told(error: Exception) -> None:
    with pytest.raises(type(error)):
        play(Dial(after=error), lambda second: second.take("5600"))


def test_one_that_did_not_wait_says_nothing_of_the_tunnel_either() -> None:
    dial = Dial(after=DeviceRefusedError("not there yet"), waits=False)
    assert play(dial, lambda second: second.take("5600")) is None


@pytest.mark.parametrize("waits", [True, False])
def test_one_that_nobody_takes_is_ended(*, waits: bool) -> None:
    async def fail(_: SecondLogin) -> object:
        await asyncio.sleep(0)
        raise ConnectionLostError("the first one")

    dial = Dial(waits=waits)
    with pytest.raises(ConnectionLostError, match="the first one"):
        play(dial, fail)
    assert (dial.is_cancelled, dial.made.is_closed) == (waits, not waits)


def test_cancelled_while_it_is_taken_it_is_ended() -> None:
    class Slow(Dial):
        async def prepared(self, unit: str, gate: Gate | None = None) -> Any:
            await super().prepared(unit, gate)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.is_cancelled = True
                raise

    async def cancel(second: SecondLogin) -> object:
        taking = asyncio.create_task(second.take("5600"))
        for _ in range(5):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert taking.cancelled()
        return None

    dial = Slow()
    play(dial, cancel)
    assert dial.is_cancelled

"""When an ssh that says nothing is given up, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sshvpn.system.openssh.silence import patience_s, wait_silent

PATIENCE_S = 8.5


class World:
    """Time that passes only while somebody sleeps; LATE_S: by so much the next sleep is longer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, heard: Callable[[float], bool]) -> None:
        self.now = 100.0
        self.late_s = 0.0
        self.looks = 0
        self.is_blind = False
        self._heard_at = self.now
        self._heard = heard
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        end = self.now + seconds + self.late_s
        self.late_s = 0.0
        while self.now < end:
            self.now = round(self.now + 0.1, 6)
            if self._heard(self.now):
                self._heard_at = self.now

    def silence_s(self) -> float | None:
        self.looks += 1
        if self.looks > 1000:
            raise asyncio.CancelledError
        return None if self.is_blind else self.now - self._heard_at

    def until_lost(self) -> float:
        """Return when it was taken for lost."""
        asyncio.run(wait_silent(self.silence_s, PATIENCE_S, lambda: self.now))
        return self.now


def test_one_that_says_nothing_is_given_up_when_ssh_itself_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, lambda _: False)
    assert world.until_lost() == pytest.approx(100.0 + PATIENCE_S, abs=0.2)


def test_what_is_heard_every_three_seconds_is_looked_at_less_often_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch, lambda now: now < 700 and now % 3 == 0)
    assert world.until_lost() == pytest.approx(699.0 + PATIENCE_S, abs=0.2)
    assert world.looks <= 600 / 5


def test_a_machine_that_stood_still_begins_to_wait_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda _: False)
    world.late_s = 60.0
    assert world.until_lost() == pytest.approx(100.0 + PATIENCE_S + 60.0 + PATIENCE_S, abs=0.3)


def test_where_nothing_can_be_seen_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda _: False)
    world.is_blind = True
    with pytest.raises(asyncio.CancelledError):
        world.until_lost()


@pytest.mark.parametrize(
    ("interval", "count", "expected"), [("5", "2", 14.5), ("0", "3", 8.5), ("3", "2", 8.5)]
)
def test_it_is_as_patient_as_ssh(interval: str, count: str, expected: float) -> None:
    config = {"serveraliveinterval": (interval,), "serveralivecountmax": (count,)}
    assert patience_s(config) == expected

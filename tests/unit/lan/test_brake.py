"""How fast names are tried, whatever the neighbours say (RFC 6762, section 8.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from sshvpn.lan import responder as module
from sshvpn.lan.brake import Brake
from sshvpn.lan.responder import Responder
from sshvpn.presence import Adapter, Presence


def waits(*times: float) -> list[float]:
    """Return how many seconds a new brake lets each conflict of those at TIMES wait."""
    brake = Brake()
    return [round(brake.take_conflict(at) - at, 6) for at in times]


def test_fourteen_conflicts_are_tried_past_at_once_and_each_from_the_fifteenth_waits() -> None:
    assert waits(*[n * 0.5 for n in range(18)]) == [0.0] * 14 + [5.0] * 4


def test_who_waits_is_not_let_go_because_it_has_waited() -> None:
    """With a wait after each there are never fifteen in ten seconds again."""
    fast = [n * 0.1 for n in range(15)]
    slow = [1.4 + 5.8 * n for n in range(1, 40)]
    assert waits(*fast, *slow)[14:] == [5.0] * 40


def test_conflicts_that_are_far_apart_cost_nothing() -> None:
    assert set(waits(*[n * 0.75 for n in range(100)])) == {0.0}


def test_after_a_quiet_minute_it_begins_anew() -> None:
    fast = [n * 0.1 for n in range(15)]
    assert waits(*fast, 61.4 - 0.1, 121.4)[-2:] == [5.0, 0.0]


class FakeLink:
    """A link whose name is another's, as often as the test says."""

    made: list[FakeLink]

    def __init__(
        self,
        adapter: Adapter,
        names: Mapping[str, tuple[str, ...]],
        _: frozenset[str],
        conflict: Callable[[], None],
        *,
        not_before: float,
    ) -> None:
        self.adapter, self.names, self.conflict = adapter, names, conflict
        self.not_before = not_before
        self.is_claimed = asyncio.Event()
        FakeLink.made.append(self)

    def show(self, _: object) -> None:
        """Show nothing."""

    async def close(self) -> None:
        """Leave."""


def test_the_next_name_is_probed_for_when_the_brake_says_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "Link", FakeLink)
    FakeLink.made = []
    lan = Adapter("lan0", 3, ("192.168.77.1/24",))
    since = "2026-11-25T20:00:00.000Z"
    presence = Presence("gpu", "running", since, (lan,), (), (), has_names=True)

    async def story() -> None:
        now = asyncio.get_running_loop().time
        responder = Responder(lambda: None)
        await responder.show(presence, None)
        for number in range(1, 16):
            link = FakeLink.made[-1]
            assert len(FakeLink.made) == number
            assert link.not_before <= now()
            link.conflict()
            # What is shown meanwhile, a change of state say, lets nothing go ahead.
            await responder.show(presence, None)
        assert list(FakeLink.made[-1].names) == ["gpu-16.local."]
        assert 4 < FakeLink.made[-1].not_before - now() <= 5
        await responder.show(None, None)

    asyncio.run(story())

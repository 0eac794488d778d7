"""Asking a tunnel whether packets cross it."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any, cast

import pytest

from sshvpn.boundary import Prober, TunnelConnection
from sshvpn.errors import NoAnswerError
from sshvpn.model import TcpCounters
from sshvpn.plan.request import TunnelAddresses
from sshvpn.pulse import ANSWERED_WITHIN_S, KEEPALIVE_S
from sshvpn.tunnel import life as life_module
from sshvpn.tunnel.life import TunnelLife

ADDRESSES = TunnelAddresses("100.64.0.1/30", "100.64.0.2/30")


class Silence:
    """A prober that nobody answers, and a connection of which nothing is heard."""

    tcp: TcpCounters | None = None
    asked = 0

    async def round_trip_s(
        self, _address: str, _source: str, timeout_s: float, *, is_sparing: bool = False
    ) -> float | None:
        del is_sparing
        self.asked += 1
        await asyncio.sleep(timeout_s)
        return None

    def counters(self) -> TcpCounters | None:
        return self.tcp


def test_what_came_before_a_doubt_is_no_answer_to_it() -> None:
    received = [1000]

    async def main() -> Any:
        silence = Silence()
        life = TunnelLife(cast("Prober", silence), lambda: received[0])
        watching = asyncio.create_task(life.watch(ADDRESSES, cast("TunnelConnection", silence)))
        await asyncio.sleep(0)  # it has begun, and waits
        received[0] += 1000  # the last that came, and then the way has changed
        life.doubt()
        return await asyncio.wait_for(watching, ANSWERED_WITHIN_S + KEEPALIVE_S)

    error = asyncio.run(main())
    assert error.code == "no_answer", error.code


def test_a_connection_that_repeats_itself_too_late_is_not_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The probe would wait behind what TCP has to repeat first."""
    caplog.set_level("INFO")
    silence = Silence()
    silence.tcp = TcpCounters(1000, 1000, 0.001, repeats_in_s=6.4, unanswered_s=6.4)

    async def main() -> Any:
        life = TunnelLife(cast("Prober", silence), lambda: 1000)
        return await life.watch(ADDRESSES, cast("TunnelConnection", silence), keepalive_s=0.1)

    error = asyncio.run(asyncio.wait_for(main(), 20))
    assert error.code == "no_answer", error.code
    assert not silence.asked
    assert "nothing acknowledged for 6.4 s, repeated in 6.4 s" in caplog.text


def test_what_waits_behind_a_repeat_is_no_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshvpn.pulse.LOOK_EVERY_S", 0.001)
    monkeypatch.setattr("sshvpn.tunnel.life.MEASURE_EVERY_S", 0.01)
    answering = Loaded()
    answering.tcp = TcpCounters(1000, 1000, 0.001, repeats_in_s=0.3, unanswered_s=0.7)
    received = itertools.count(step=1500)

    async def main() -> None:
        life = TunnelLife(cast("Prober", answering), lambda: next(received))
        connection = cast("TunnelConnection", answering)
        watching = asyncio.create_task(life.watch(ADDRESSES, connection))
        while answering.asked < 3:
            await asyncio.sleep(0.005)
        told = [life.rtt_s]
        answering.tcp = TcpCounters(2000, 2000, 0.001)
        while told[-1] is None:
            told = [*told[:1], life.rtt_s]
            await asyncio.sleep(0.005)
        assert told[0] is None
        watching.cancel()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_who_stood_still_for_long_asks_before_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process was stopped, and nothing crossed meanwhile: the tunnel may be well."""
    monkeypatch.setattr("sshvpn.pulse.LOOK_EVERY_S", 0.01)
    answering = Loaded()

    async def main() -> None:
        life = TunnelLife(cast("Prober", answering), lambda: 1000)
        connection = cast("TunnelConnection", answering)
        watching = asyncio.create_task(life.watch(ADDRESSES, connection, keepalive_s=0.1))
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 -- the loop itself stands still, longer than is borne
        while answering.asked < 3:
            await asyncio.sleep(0.01)
        assert not watching.done()
        watching.cancel()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_tunnel_behind_a_near_first_hop_has_its_own_round_trips_to_answer() -> None:
    """TCP goes to the hop next door, the tunnel half around the world."""
    far = Far()

    async def main() -> None:
        life = TunnelLife(cast("Prober", far), lambda: 1000)
        await life.prove(ADDRESSES)
        connection = cast("TunnelConnection", far)
        watching = asyncio.create_task(life.watch(ADDRESSES, connection))
        await asyncio.sleep(0)
        life.doubt()
        while far.asked < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert not watching.done()
        assert far.patience_s >= 4 * far.takes_s
        watching.cancel()

    asyncio.run(asyncio.wait_for(main(), 20))


class Far(Silence):
    """A prober that is answered from far away."""

    tcp = TcpCounters(1000, 1000, 0.001)
    takes_s = 0.45
    patience_s = 0.0

    async def round_trip_s(
        self, _address: str, _source: str, timeout_s: float, *, is_sparing: bool = False
    ) -> float | None:
        del is_sparing
        self.asked += 1
        self.patience_s = timeout_s
        return self.takes_s


class Queued(Silence):
    """A prober whose packets wait behind others: who does not listen for as long hears nothing."""

    takes_s = 0.25

    async def round_trip_s(
        self, _address: str, _source: str, timeout_s: float, *, is_sparing: bool = False
    ) -> float | None:
        del is_sparing
        self.asked += 1
        await asyncio.sleep(min(timeout_s, self.takes_s))
        return self.takes_s if timeout_s > self.takes_s else None


class Unreachable(Silence):
    """A prober to which nothing can come, which it knows at once."""

    async def round_trip_s(
        self, _address: str, _source: str, _timeout_s: float, *, is_sparing: bool = False
    ) -> float | None:
        del is_sparing
        self.asked += 1
        return None


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prove a tunnel in a tenth of the time."""
    for name in ("FIRST_PROBE_S", "PROBE_S", "LONGEST_PROBE_S", "PROVEN_WITHIN_S"):
        monkeypatch.setattr(life_module, name, getattr(life_module, name) / 10)


@pytest.mark.usefixtures("hasty")
def test_an_answer_behind_a_queue_that_is_longer_than_a_probe_proves_a_tunnel() -> None:
    queued = Queued()
    assert queued.takes_s > life_module.LONGEST_PROBE_S
    life = TunnelLife(cast("Prober", queued), lambda: 1000)
    asyncio.run(life.prove(ADDRESSES))
    assert life.rtt_s == queued.takes_s


@pytest.mark.usefixtures("hasty")
def test_what_the_server_says_of_itself_proves_nothing() -> None:
    """Its kernel sends router solicitations, also where it drops what comes from here."""
    silence, solicitations = Silence(), itertools.count(step=48)
    life = TunnelLife(cast("Prober", silence), lambda: next(solicitations))
    with pytest.raises(NoAnswerError):
        asyncio.run(life.prove(ADDRESSES))


@pytest.mark.usefixtures("hasty")
def test_where_nothing_can_come_it_is_tried_again_but_not_in_a_hurry() -> None:
    unreachable = Unreachable()
    life = TunnelLife(cast("Prober", unreachable), lambda: 1000)
    with pytest.raises(NoAnswerError):
        asyncio.run(life.prove(ADDRESSES))
    assert 5 <= unreachable.asked <= 8


class Loaded(Silence):
    """A prober that measures longer each time, and a connection that is never quiet."""

    def __init__(self) -> None:
        self.asked = 0

    async def round_trip_s(
        self, _address: str, _source: str, timeout_s: float, *, is_sparing: bool = False
    ) -> float | None:
        del timeout_s
        assert is_sparing
        self.asked += 1
        return 0.04 * self.asked


def test_under_load_the_round_trip_is_measured_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sshvpn.pulse.LOOK_EVERY_S", 0.001)
    monkeypatch.setattr("sshvpn.tunnel.life.MEASURE_EVERY_S", 0.1)
    received = itertools.count(step=1500)

    async def main() -> None:
        loaded = Loaded()
        life = TunnelLife(cast("Prober", loaded), lambda: next(received))
        watching = asyncio.create_task(life.watch(ADDRESSES, cast("TunnelConnection", loaded)))
        while loaded.asked < 2:
            await asyncio.sleep(0.001)
        assert next(received) > 10 * 1500, "it is not asked at each look"
        assert life.rtt_s == 0.08
        watching.cancel()

    asyncio.run(asyncio.wait_for(main(), 20))

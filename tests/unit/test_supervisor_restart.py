"""A restart: the edited profile is taken over, or told as wrong while the one before goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sshvpn import errors, lifecycle
from sshvpn.boundary import Prompter
from sshvpn.model import EngineName, ForwardProfile
from sshvpn.spec import parse_forward
from tests.unit.fakes import FakeConnection, FakeEngine, FakePrompter
from tests.unit.test_supervisor import Stage, run

TWO = tuple(parse_forward(text) for text in ("9999:8888", "9998:8888"))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr("sshvpn.forwarding.DRAIN_LOOK_S", 0.001)


def test_a_new_connection_serves_and_the_old_one_ends_with_its_last_flow() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        old = stage.engine.current
        await stage.supervisor.restart(replace(stage.session.profile, specs=TWO))
        assert stage.listen == ["127.0.0.1:9999", "[::1]:9999"]
        assert len(stage.supervisor.snapshot()["records"]) == 2
        assert (old.open, old.is_closed) == ({}, False), "it listens no more, and carries flows"
        old.flows = 0
        await stage.until(lambda: old.is_closed)
        assert not stage.engine.current.is_closed
        await stage.stop()

    run(story)


def test_the_end_ends_connections_that_carry_flows_too() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        await stage.supervisor.restart()
        await stage.supervisor.restart()
        await stage.stop()
        assert [one.is_closed for one in stage.engine.connections] == [True] * 3

    run(story)


@pytest.mark.parametrize(
    "error",
    [
        errors.AuthenticationError("no"),
        errors.LoginNeededError("ask"),
        errors.TakenError("taken"),
        errors.UsageError("wrong"),
    ],
)
def test_a_profile_that_does_not_work_is_told_and_the_one_before_goes_on(
    error: errors.SshvpnError,
) -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        before = stage.session.profile
        stage.engine.errors = [error]
        with pytest.raises(type(error)):
            await stage.supervisor.restart(replace(before, specs=TWO))
        await stage.until_state("running")
        assert stage.session.profile is before
        assert len(stage.engine.connections) == 2
        await stage.stop()

    run(story)


def test_what_time_can_mend_is_waited_for_with_the_new_profile() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        stage.engine.errors = [errors.UnreachableError("away")] * 2
        await stage.supervisor.restart(replace(stage.session.profile, specs=TWO))
        assert stage.session.profile.specs == TWO
        await stage.stop()

    run(story)


class Picky(FakeEngine):
    """Fails with ``error``, for all profiles but one that it has connected before."""

    error: errors.SshvpnError = errors.UnreachableError("away")
    liked: ForwardProfile | None = None

    async def connect(self, profile: ForwardProfile, prompter: Prompter | None) -> FakeConnection:
        if self.liked not in (None, profile):
            raise self.error
        self.liked = profile
        return await super().connect(profile, prompter)


@pytest.mark.parametrize("is_edited", [True, False])
def test_the_one_that_ran_last_goes_on_even_after_two_that_did_not(*, is_edited: bool) -> None:
    async def story() -> None:
        engine = Picky()
        stage = Stage(engine)
        await stage.until_state("running")
        ran = stage.session.profile
        waiting = []
        for profile in (
            replace(ran, specs=TWO),
            replace(ran, specs=TWO[1:]) if is_edited else None,
        ):
            waiting.append(asyncio.create_task(stage.supervisor.restart(profile)))
            await stage.until(lambda: stage.session._adopted is not None)
            await stage.until(lambda: stage.session._adopted is None)
        engine.error = errors.AuthenticationError("no")
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [errors.AuthenticationError] * 2
        await stage.until_state("running")
        assert stage.session.profile is ran
        await stage.stop()

    run(story)


def test_what_can_be_seen_to_be_wrong_changes_nothing() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        for wrong in ({"engine": EngineName.SSHTUNNEL}, {"binds": ("nope0",)}):
            with pytest.raises(errors.UsageError):
                await stage.supervisor.restart(replace(stage.session.profile, **wrong))
        assert len(stage.engine.connections) == 1
        assert not stage.engine.current.is_closed
        await stage.stop()

    run(story)


def test_who_asks_is_asked() -> None:
    async def story() -> None:
        prompter = FakePrompter()
        stage = Stage(FakeEngine(), prompter=prompter)
        await stage.until_state("running")
        await stage.supervisor.restart()
        assert all(stage.engine.prompters)
        await stage.stop()

    run(story)


def test_what_has_failed_is_begun_again() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        stage.engine.errors = [errors.AuthenticationError("no")]
        stage.engine.current.lose(errors.ConnectionLostError("lost"))
        await stage.until_state("failed")
        await stage.supervisor.restart()
        assert stage.supervisor.snapshot()["state"] == "running"
        await stage.stop()

    run(story)


def test_an_end_meanwhile_is_told_to_who_waits() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        stage.engine.errors = [errors.UnreachableError("away")] * 1000
        waiting = asyncio.create_task(stage.supervisor.restart())
        await stage.until_state("backoff")
        await stage.stop()
        with pytest.raises(errors.NotRunningError):
            await waiting
        with pytest.raises(errors.NotRunningError):
            await stage.supervisor.restart()

    run(story)


def test_a_bug_on_the_way_back_is_tried_again_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")

        def go_back() -> bool:
            monkeypatch.undo()
            raise ValueError("a bug")

        monkeypatch.setattr(stage.session, "go_back", go_back)
        stage.engine.errors = [errors.AuthenticationError("no")]
        asked = asyncio.ensure_future(stage.supervisor.restart())
        await stage.until(lambda: len(stage.engine.connections) == 2)
        await stage.until_state("running")
        await asked
        await stage.stop()

    run(story)

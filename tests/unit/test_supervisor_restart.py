"""A restart: the edited profile is taken over, or told as wrong while the one before goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sshvpn import errors, lifecycle
from sshvpn.model import EngineName
from sshvpn.spec import parse_forward
from tests.unit.fakes import FakeEngine, FakePrompter
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

"""A supervisor with a real session and a fake outside: what happens when connections go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from sshvpn import errors, lifecycle
from sshvpn.forwarding import ForwardSession
from sshvpn.model import Destination, ForwardProfile, State
from sshvpn.spec import parse_forward
from sshvpn.supervisor import Supervisor
from tests.unit.fakes import FakeEngine, FakeInterfaces, FakePrompter, FakeTrust

LOST = errors.ConnectionLostError("lost")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr("sshvpn.forwarding.RETRY_LISTENERS_S", 0.01)


class Stage:
    """A supervisor that runs, and what it was seen to say."""

    def __init__(self, engine: FakeEngine, **options: Any) -> None:
        specs = options.pop("specs", ("9999:8888",))
        profile = ForwardProfile(
            name="gpu",
            host="gpu",
            destination=Destination("gpu"),
            specs=tuple(parse_forward(spec) for spec in specs),
            binds=options.pop("binds", ()),
            lan=options.pop("lan", False),
            lan_trusts=options.pop("lan_trusts", False),
        )
        self.engine = engine
        self.interfaces: FakeInterfaces = options.pop("interfaces", None) or FakeInterfaces()
        self.trust: FakeTrust = options.pop("trust", None) or FakeTrust()
        self.session = ForwardSession(profile, engine, self.interfaces, self.trust)
        self.seen: list[Mapping[str, Any]] = []
        self.supervisor = Supervisor(self.session, observe=self.seen.append, **options)
        self.session.on_change = self.supervisor.publish
        self.task = asyncio.create_task(self.supervisor.run())

    async def until(self, condition: Callable[[], bool]) -> None:
        async def poll() -> None:
            while not condition():
                await asyncio.sleep(0.001)

        await asyncio.wait_for(poll(), 5)

    async def until_state(self, state: str) -> None:
        await self.until(lambda: bool(self.seen) and self.seen[-1]["state"] == state)

    async def stop(self) -> errors.SshvpnError | None:
        self.supervisor.stop()
        return await asyncio.wait_for(self.task, 5)

    @property
    def listen(self) -> list[str]:
        where: list[str] = self.supervisor.snapshot()["records"][0]["listen"]
        return where

    @property
    def last_error(self) -> Any:
        return self.supervisor.snapshot()["records"][0]["last_error"]


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_running_has_no_null_but_the_error_and_the_retry() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        record = stage.supervisor.snapshot()["records"][0]
        empty = {key for key, value in record.items() if value is None}
        assert empty == {"last_error", "retry_at"}
        assert record["listen"] == ["127.0.0.1:9999", "[::1]:9999"]
        assert await stage.stop() is None
        assert stage.engine.current.is_closed

    run(story)


def test_a_lost_connection_is_made_again_with_the_same_port_and_without_a_prompt() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine(), specs=("0:8888",), prompter=FakePrompter())
        await stage.until_state("running")
        before = stage.listen
        stage.engine.current.lose(LOST)
        await stage.until(lambda: stage.supervisor.life.reconnects == 1)
        assert stage.listen == before
        assert [prompter is None for prompter in stage.engine.prompters] == [False, True]
        assert stage.engine.connections[0].is_closed
        await stage.stop()

    run(story)


def test_retries_go_on_over_many_failures() -> None:
    async def story() -> None:
        engine = FakeEngine()
        stage = Stage(engine)
        await stage.until_state("running")
        engine.errors = [errors.UnreachableError("no route")] * 5
        engine.current.lose(LOST)
        await stage.until(lambda: stage.supervisor.life.reconnects == 1)
        assert not engine.errors
        await stage.stop()

    run(story)


def test_a_first_start_that_is_refused_is_told_and_leaves_nothing() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine(errors.AuthenticationError("no")))
        error = await asyncio.wait_for(stage.task, 5)
        assert isinstance(error, errors.AuthenticationError)

    run(story)


def test_a_first_start_ends_with_its_time() -> None:
    async def story() -> None:
        engine = FakeEngine(*[errors.UnreachableError("no route")] * 1000)
        error = await asyncio.wait_for(Stage(engine, timeout_s=0.05).task, 5)
        assert error is not None
        assert error.exit_code == 6

    run(story)


def test_a_taken_port_ends_a_first_start_and_closes_the_connection() -> None:
    async def story() -> None:
        engine = FakeEngine()
        engine.taken["127.0.0.1:9999"] = errors.TakenError("port 9999 is taken")
        stage = Stage(engine)
        error = await asyncio.wait_for(stage.task, 5)
        assert error is not None
        assert error.exit_code == 7
        assert engine.current.is_closed

    run(story)


def test_a_port_that_is_taken_while_away_is_waited_for() -> None:
    async def story() -> None:
        engine = FakeEngine()
        stage = Stage(engine)
        await stage.until_state("running")
        engine.taken["127.0.0.1:9999"] = errors.TakenError("port 9999 is taken")
        engine.current.lose(LOST)
        await stage.until_state("backoff")
        await stage.until(lambda: stage.last_error["code"] == "taken")
        engine.taken.clear()
        await stage.until_state("running")
        await stage.stop()

    run(story)


def test_a_changed_host_key_stays_failed_until_it_is_stopped() -> None:
    async def story() -> None:
        engine = FakeEngine()
        stage = Stage(engine)
        await stage.until_state("running")
        engine.errors = [errors.HostKeyChangedError("changed")]
        engine.current.lose(LOST)
        await stage.until_state("failed")
        assert stage.last_error["code"] == "host_key_changed"
        assert not stage.task.done()
        assert await stage.stop() is None

    run(story)


def test_a_login_that_is_wanted_is_offered_when_somebody_comes() -> None:
    async def story() -> None:
        engine = FakeEngine()
        stage = Stage(engine, prompter=FakePrompter())
        await stage.until_state("running")
        engine.errors = [errors.LoginNeededError("password")]
        engine.current.lose(LOST)
        await stage.until(lambda: (stage.last_error or {}).get("code") == "needs_login")
        assert stage.supervisor.snapshot()["records"][0]["retry_at"] is None
        stage.supervisor.wake(login=True)
        await stage.until_state("running")
        assert engine.prompters[-1] is not None
        await stage.stop()

    run(story)


def test_an_agent_that_is_back_logs_in_without_a_prompt() -> None:
    async def story() -> None:
        engine = FakeEngine()
        stage = Stage(engine, prompter=FakePrompter())
        await stage.until_state("running")
        engine.errors = [errors.LoginNeededError("agent")]
        engine.current.lose(LOST)
        await stage.until(lambda: (stage.last_error or {}).get("code") == "needs_login")
        engine.agent_is_back.set()
        await stage.until_state("running")
        assert engine.prompters[-1] is None
        await stage.stop()

    run(story)


def test_a_new_connection_can_be_asked_for() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        await stage.until_state("running")
        stage.supervisor.reconnect()
        await stage.until(lambda: stage.supervisor.life.reconnects == 1)
        assert len(stage.engine.connections) == 2
        await stage.stop()

    run(story)


def test_a_bug_in_the_engine_is_retried_and_told() -> None:
    class Broken(FakeEngine):
        async def connect(self, *args: Any) -> Any:
            if not self.prompters:
                self.prompters.append(None)
                raise ZeroDivisionError("oops")
            return await super().connect(*args)

    async def story() -> None:
        stage = Stage(Broken())
        await stage.until_state("running")
        told = [snapshot["records"][0]["last_error"] for snapshot in stage.seen]
        assert any("ZeroDivisionError" in (error or {}).get("message", "") for error in told)
        await stage.stop()

    run(story)


# Adapters ------------------------------------------------------------------------------------


def test_an_address_that_comes_and_goes_is_followed() -> None:
    async def story() -> None:
        interfaces = FakeInterfaces(eth0=("192.168.1.5/24",))
        stage = Stage(FakeEngine(), binds=("eth0",), interfaces=interfaces)
        await stage.until_state("running")
        assert stage.listen == ["192.168.1.5:9999"]
        interfaces.change(eth0=("192.168.1.6/24", "fd00::6/64"))
        await stage.until(lambda: stage.listen == ["192.168.1.6:9999", "[fd00::6]:9999"])
        interfaces.change(eth0=())
        await stage.until(lambda: stage.listen == [])
        assert len(stage.engine.connections) == 1
        await stage.stop()

    run(story)


def test_one_taken_address_of_several_is_told_and_tried_again() -> None:
    async def story() -> None:
        interfaces = FakeInterfaces(eth0=("192.168.1.5/24", "fd00::5/64"))
        engine = FakeEngine()
        engine.taken["192.168.1.5:9999"] = errors.TakenError("port 9999 is taken")
        stage = Stage(engine, binds=("eth0",), interfaces=interfaces)
        await stage.until_state("running")
        assert stage.listen == ["[fd00::5]:9999"]
        assert stage.last_error["code"] == "taken"
        engine.taken.clear()
        await stage.until(lambda: "192.168.1.5:9999" in stage.listen)
        assert stage.last_error is None
        await stage.stop()

    run(story)


def test_an_unknown_adapter_is_a_usage_error() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine(), binds=("eth9",))
        with pytest.raises(errors.UsageError, match="eth9"):
            await stage.session.check()
        await stage.stop()

    run(story)


def test_lan_said_on_the_command_line_is_trust() -> None:
    async def story() -> None:
        interfaces = FakeInterfaces(eth0=("192.168.1.5/24",))
        stage = Stage(FakeEngine(), lan=True, lan_trusts=True, interfaces=interfaces)
        await stage.until_state("running")
        assert stage.listen == ["192.168.1.5:9999"]
        assert {network.prefix for network in stage.trust.networks} == {"192.168.1.0/24"}
        await stage.stop()

    run(story)


def test_sharing_pauses_on_another_network_until_that_is_trusted() -> None:
    async def story() -> None:
        interfaces = FakeInterfaces(eth0=("192.168.1.5/24",))
        stage = Stage(FakeEngine(), lan=True, lan_trusts=True, interfaces=interfaces)
        await stage.until_state("running")
        interfaces.change(eth0=("10.9.0.5/24",))
        await stage.until(lambda: stage.listen == [])
        assert stage.supervisor.snapshot()["state"] == "running"
        assert stage.supervisor.snapshot()["records"][0]["state"] == "backoff"
        assert "10.9.0.0/24 on eth0" in stage.last_error["message"]
        stage.trust.remember(interfaces.network_of(interfaces.lan()[0]))
        await stage.until(lambda: stage.listen == ["10.9.0.5:9999"])
        assert stage.supervisor.snapshot()["records"][0]["state"] == "running"
        assert stage.last_error is None
        await stage.stop()

    run(story)


def test_another_router_is_another_network() -> None:
    async def story() -> None:
        interfaces = FakeInterfaces(eth0=("192.168.1.5/24",))
        stage = Stage(FakeEngine(), lan=True, lan_trusts=True, interfaces=interfaces)
        await stage.until_state("running")
        interfaces.router_mac = "02:00:00:00:00:99"
        interfaces.change()
        await stage.until(lambda: stage.listen == [])
        await stage.stop()

    run(story)


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_a_profile_that_shares_asks_once_per_network(answer: str) -> None:
    async def story() -> None:
        interfaces = FakeInterfaces(eth0=("192.168.1.5/24",))
        prompter = FakePrompter(answer)
        stage = Stage(FakeEngine(), lan=True, interfaces=interfaces, prompter=prompter)
        if answer == "y":
            await stage.until_state("running")
            assert await stage.stop() is None
        else:
            error = await asyncio.wait_for(stage.task, 5)
            assert error is not None
            assert "not a trusted network" in str(error)
        assert (len(prompter.asked), prompter.told) == (1, [])

    run(story)


def test_a_lan_that_is_not_there_is_told() -> None:
    async def story() -> None:
        stage = Stage(FakeEngine(), lan=True, lan_trusts=True)
        error = await asyncio.wait_for(stage.task, 5)
        assert error is not None
        assert error.exit_code == 1
        assert "no adapter" in str(error)

    run(story)


@pytest.mark.parametrize("iterations", range(12))
def test_a_restart_may_be_asked_for_while_an_attempt_just_succeeds(iterations: int) -> None:
    async def story() -> None:
        stage = Stage(FakeEngine())
        while not stage.engine.connections:
            await asyncio.sleep(0)
        for _ in range(iterations):
            await asyncio.sleep(0)
        await asyncio.wait_for(stage.supervisor.restart(), 5)
        assert stage.supervisor.life.phase is State.RUNNING
        assert len(stage.engine.connections) > 1
        assert await stage.stop() is None

    run(story)

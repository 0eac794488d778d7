"""The session of a tunnel, over fakes of both its ends."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from sshvpn.boundary import Prompter
from sshvpn.errors import AdapterAwayError, ConnectionLostError, SshvpnError, UsageError
from sshvpn.model import Endpoint, Listener, TcpCounters, TcpPath, TunnelProfile
from sshvpn.plan.request import Bypass, Facts
from sshvpn.plan.state import Firewall, Gate, NetworkState
from sshvpn.plan.steps import Step
from sshvpn.remote import protocol
from sshvpn.sharing import LanSharing
from sshvpn.tunnel.session import TunnelSession
from sshvpn.tunnel.surroundings import Identity, Surroundings
from tests.unit.fakes import FakeInterfaces, FakeTrust
from tests.unit.plan.worlds import ModelKernel
from tests.unit.test_ends import GATEWAY, LABEL, SERVER, profile

UNIT = 5600


class FakeLocal:
    """This machine's end over a model of a kernel."""

    def __init__(self) -> None:
        self.kernel = ModelKernel()
        self.is_closed = False
        self._changed = asyncio.Event()

    def lose(self, thing: object) -> None:
        """Let somebody remove THING of ours."""
        self.kernel.things.remove(thing)
        self._changed.set()

    def gate(self) -> Gate | None:
        table = self.kernel.read(set()).table
        return table.gate if isinstance(table, Firewall) else None

    async def open(self) -> int:
        return UNIT

    async def facts(self) -> Facts:
        return GATEWAY

    async def read(self) -> NetworkState:
        return dataclasses.replace(self.kernel.read(set()), label=LABEL)

    async def apply(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.kernel.make(step)

    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield

    async def bypass(self) -> Bypass:
        raise NotImplementedError

    async def pace(self, sock: socket.socket, name: str) -> None:
        raise NotImplementedError

    async def wait_gone(self) -> SshvpnError:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> Sequence[str]:
        self.is_closed = True
        self.kernel.things.clear()
        return ()


class FakeTunnel:
    """A connection of a tunnel, and the carrier that makes it; one at a time."""

    name, reason, default_mtu, is_guarded = "w", "", 1400, False
    facts: protocol.Facts | None = SERVER

    def __init__(self) -> None:
        self.configured: list[protocol.RemoteEnd] = []
        self.closed: list[bool] = []
        self.takes_s = 0.0
        self.lost: asyncio.Future[SshvpnError] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    async def check(self, profile: TunnelProfile) -> None:
        del profile

    async def peers(self, profile: TunnelProfile) -> Sequence[str]:
        del profile
        return ("203.0.113.20",)

    async def look(
        self, profile: TunnelProfile, label: str, prompter: Prompter | None
    ) -> protocol.Facts:
        raise NotImplementedError

    async def connect(
        self,
        profile: TunnelProfile,
        label: str,
        device: asyncio.Future[int],
        prompter: Prompter | None,
    ) -> FakeTunnel:
        del profile, label, prompter
        assert await device == UNIT
        await asyncio.sleep(self.takes_s)
        return self

    async def wait_login_possible(self) -> None:
        await asyncio.Event().wait()

    async def configure(self, end: protocol.RemoteEnd) -> None:
        self.configured.append(end)

    def doubt_the_server(self) -> None:
        """Tell that something at the server may have undone what was configured."""
        self._changed.set()

    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield

    async def open_listener(self, listener: Listener) -> Endpoint:
        return listener.listen

    async def close_listener(self, listener: Listener) -> None:
        del listener

    async def wait_closed(self) -> SshvpnError:
        return await asyncio.shield(self.lost)

    async def close(self, *, is_lost: bool = False) -> None:
        self.closed.append(is_lost)

    async def tune(
        self, profile: TunnelProfile, pace: Callable[[socket.socket, str], Awaitable[None]]
    ) -> TcpPath:
        del profile, pace
        return TcpPath()

    def counters(self) -> TcpCounters | None:
        return None


class FakeProber:
    """Everybody answers, nothing is taken."""

    async def round_trip_s(
        self, address: str, source: str, timeout_s: float, *, is_sparing: bool = False
    ) -> float | None:
        del address, source, timeout_s, is_sparing
        return 0.01

    def check_may_listen(self, address: str, port: int) -> None:
        del address, port

    def check_free(self, address: str, port: int) -> None:
        del address, port

    async def holder_of(self, interface: str, address: str, quiet: asyncio.Event) -> str | None:
        del interface, address, quiet
        return None


class Stage:
    """A session, and the fakes around it."""

    def __init__(self, **wanted: Any) -> None:
        self.local, self.carrier = FakeLocal(), FakeTunnel()
        interfaces = FakeInterfaces()
        self.session = TunnelSession(
            profile(**wanted),
            Identity(LABEL, f"{LABEL}_x", 1000),
            Surroundings(
                self.local, self.carrier, interfaces, LanSharing(interfaces, FakeTrust()),
                FakeProber(),
            ),
        )  # fmt: skip


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_it_comes_up_with_both_ends_and_the_gate_open() -> None:
    async def story() -> None:
        stage = Stage(lan=False, routes=("10.20.0.0/24",))
        await stage.session.bring_up(None)
        assert stage.local.gate() is Gate.OPEN
        assert len(stage.carrier.configured) == 1
        (record,) = stage.session.describe()
        assert record["device"] == f"sshvpn{UNIT}"
        assert record["routes"] == ["10.20.0.0/24"]
        await stage.session.close()
        assert stage.local.is_closed
        assert stage.carrier.closed == [False]

    run(story)


def test_what_is_removed_comes_back_and_is_told_of() -> None:
    async def story() -> None:
        stage = Stage(lan=False, routes=("10.20.0.0/24",))
        told = asyncio.Event()
        stage.session.on_change = told.set
        await stage.session.bring_up(None)
        before = set(stage.local.kernel.things)
        route = next(iter((await stage.local.read()).routes))
        stage.local.lose(route)
        await until(lambda: stage.local.kernel.things == before)
        stage.carrier.doubt_the_server()
        await until(lambda: len(stage.carrier.configured) == 2)
        await stage.session.close()

    run(story)


def test_a_lost_connection_leaves_the_device_with_the_gate_closed() -> None:
    async def story() -> None:
        stage = Stage(lan=False, routes=("10.20.0.0/24",))
        await stage.session.bring_up(None)
        waiting = asyncio.create_task(stage.session.wait_lost())
        stage.carrier.lost.set_result(ConnectionLostError("gone"))
        assert isinstance(await waiting, ConnectionLostError)
        await stage.session.tear_down()
        assert stage.carrier.closed == [True]
        assert stage.local.gate() is Gate.AWAY
        assert (await stage.local.read()).link is not None
        await stage.session.bring_up(None)
        assert stage.local.gate() is Gate.OPEN
        await stage.session.close()

    run(story)


def test_how_long_a_connection_takes_is_that_of_the_quickest_but_the_first() -> None:
    """The first one may have waited for a person, a later one for a proxy that hung."""
    told: list[float | None] = []

    async def story() -> None:
        stage = Stage(lan=False, routes=("10.20.0.0/24",))
        for takes_s in (1.0, 0.2, 0.5, 0.1):
            stage.carrier.takes_s = takes_s
            await stage.session.bring_up(None)
            told.append(stage.session._life.took_s)
            await stage.session.tear_down()
        await stage.session.close()

    run(story)
    first, second, third, fourth = told
    assert first is None
    assert second is not None
    assert fourth is not None
    assert second == third
    assert 0.2 <= second < 1.0
    assert 0.1 <= fourth < second


def test_an_adopted_profile_is_taken_and_given_back_until_it_has_run() -> None:
    async def story() -> None:
        stage = Stage(lan=False, routes=("10.20.0.0/24",))
        session, first = stage.session, stage.session.profile
        await session.bring_up(None)
        second = dataclasses.replace(first, routes=("10.30.0.0/16",))
        await session.adopt(second)
        assert session.profile == first
        await session.tear_down()
        stage.carrier.facts = dataclasses.replace(SERVER, device=None, rights=protocol.Rights.NONE)
        with pytest.raises(SshvpnError):
            await session.bring_up(None)
        assert session.profile == second
        assert session.go_back()
        assert session.profile == first
        assert not session.go_back()
        stage.carrier.facts = SERVER
        await session.adopt(second)
        await session.bring_up(None)
        assert not session.go_back()
        assert session.describe()[0]["routes"] == ["10.30.0.0/16"]
        await session.close()

    run(story)


def test_an_adapter_that_is_none_is_refused_before_anything_is_changed() -> None:
    async def story() -> None:
        stage = Stage(lan_interfaces=("eth9",))
        with pytest.raises(UsageError, match="eth9"):
            await stage.session.check()
        assert not stage.local.kernel.things

    run(story)


def test_a_service_waits_for_its_adapter_and_a_new_word_is_looked_at_all_the_same() -> None:
    async def story() -> None:
        stage = Stage(lan=True, lan_interfaces=("eth5",), lan_address="192.168.7.9")
        session = stage.session
        with pytest.raises(UsageError, match="--lan-interface eth5: no adapter"):
            await session.check()
        session.is_service = True
        await session.check()
        with pytest.raises(AdapterAwayError, match=r"192\.168\.7\.9 is in no network of the LAN"):
            await session.bring_up(None)
        await session.adopt(None)
        with pytest.raises(UsageError, match="--lan-interface eth6: no adapter"):
            await session.adopt(dataclasses.replace(session.profile, lan_interfaces=("eth6",)))
        await session.close()

    run(story)

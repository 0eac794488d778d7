"""Who tells the LAN follows the session and the adapters, over a fake of what speaks there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from sshvpn import announcing
from sshvpn.announcing import Announcer
from sshvpn.model import (
    Destination,
    InterfaceAddress,
    LanNetwork,
    LanWishes,
    TcpEndpoint,
    TunnelProfile,
)
from tests.unit.test_presence import LAN0, tunnel

PROFILE = TunnelProfile("gpu-box", "gpu-box", Destination("gpu-box"), wishes=LanWishes(portal=0))


class FakeInterfaces:
    """Adapters whose addresses a test changes."""

    def __init__(self) -> None:
        self.shared = list(LAN0)
        self.changed = asyncio.Event()

    def names(self) -> list[str]:
        return ["lan0"]

    def addresses(self, interface: str) -> list[InterfaceAddress]:
        return [one for one in self.shared if one.interface == interface]

    def lan(self) -> list[InterfaceAddress]:
        return self.shared

    def network_of(self, address: InterfaceAddress) -> LanNetwork:
        return LanNetwork(address.interface, address.network, None)

    def counters(self, interface: str) -> None:
        del interface

    async def changes(self, unit: int | None = None) -> AsyncGenerator[None, None]:  # noqa: ARG002
        while True:
            yield None
            await self.changed.wait()
            self.changed.clear()


class FakeTrust:
    """Trusts everybody."""

    def is_trusted(self, network: LanNetwork) -> bool:
        del network
        return True

    def remember(self, network: LanNetwork) -> None:
        del network


class FakeServer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.is_closed = False
        self.reachable: Callable[[tuple[str, ...], tuple[TcpEndpoint, ...]], None]
        self.ended: Callable[[], None]

    async def start(
        self,
        reachable: Callable[[tuple[str, ...], tuple[TcpEndpoint, ...]], None],
        warn: Callable[[str], None],
        ended: Callable[[], None],
    ) -> None:
        del warn
        self.reachable, self.ended = reachable, ended

    async def tell(self, message: Mapping[str, Any]) -> None:
        self.told.append(message)

    async def close(self) -> None:
        self.is_closed = True


class World:
    """An announcer with all that is around it."""

    def __init__(self) -> None:
        self.interfaces = FakeInterfaces()
        self.servers: list[FakeServer] = []
        self.changes = 0
        self.announcer = Announcer(
            PROFILE,
            self.interfaces,
            FakeTrust(),
            self._make,
        )
        self.announcer.on_change = self._note

    def _make(self) -> FakeServer:
        self.servers.append(FakeServer())
        return self.servers[-1]

    def _note(self) -> None:
        self.changes += 1

    def last(self) -> Any:
        """Return what was told last: "nothing" where nobody was told anything yet."""
        told = self.servers[-1].told if self.servers else []
        return told[-1]["presence"] if told else "nothing"

    async def wait(self, condition: Callable[[], bool]) -> None:
        async def poll() -> None:
            while not condition():
                await asyncio.sleep(0.005)

        await asyncio.wait_for(poll(), 5)


def in_world(test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World()
        try:
            await test(world)
        finally:
            await world.announcer.close()

    asyncio.run(run())


def test_nothing_is_started_before_it_runs() -> None:
    async def test(world: World) -> None:
        for state in ("starting", "backoff", "failed", "stopping"):
            world.announcer.observe(tunnel(state))
        await asyncio.sleep(0.05)
        assert world.servers == []

    in_world(test)


def test_it_is_told_once_then_again_when_something_changes() -> None:
    async def test(world: World) -> None:
        for _ in range(3):
            world.announcer.observe(tunnel())
        await world.wait(lambda: isinstance(world.last(), dict))
        world.announcer.observe(tunnel("backoff", published=[], lan=[]))
        await world.wait(lambda: world.last()["state"] == "backoff")
        assert len(world.servers[0].told) == 2
        assert world.last()["services"] == world.servers[0].told[0]["presence"]["services"]

    in_world(test)


def test_an_address_that_goes_and_comes_again_is_followed_while_the_connection_is_away() -> None:
    async def test(world: World) -> None:
        world.announcer.observe(tunnel())
        await world.wait(lambda: isinstance(world.last(), dict))
        before = world.last()
        world.announcer.observe(tunnel("backoff", published=[]))
        for shared in ([], list(LAN0)):
            world.interfaces.shared = shared
            world.interfaces.changed.set()
            await world.wait(lambda wanted=bool(shared): (world.last() is not None) == wanted)  # type: ignore[misc]
        await world.wait(lambda: world.last() is not None)
        assert world.last()["services"] == before["services"]

    in_world(test)


def test_an_address_that_went_before_the_connection_did_comes_again_with_what_was_there() -> None:
    async def test(world: World) -> None:
        world.announcer.observe(tunnel())
        await world.wait(lambda: isinstance(world.last(), dict))
        before = world.last()
        world.interfaces.shared = []
        world.interfaces.changed.set()
        await world.wait(lambda: world.last() is None)
        world.announcer.observe(tunnel("backoff", published=[]))
        world.interfaces.shared = list(LAN0)
        world.interfaces.changed.set()
        await world.wait(lambda: isinstance(world.last(), dict))
        assert world.last()["services"] == before["services"]

    in_world(test)


def test_what_was_never_told_while_it_ran_is_told_after() -> None:
    async def test(world: World) -> None:
        world.announcer.observe(tunnel())
        world.announcer.observe(tunnel("backoff", published=[]))
        await world.wait(lambda: isinstance(world.last(), dict))
        assert (world.last()["state"], len(world.last()["services"])) == ("backoff", 1)

    in_world(test)


def test_at_the_end_all_is_withdrawn_at_once() -> None:
    async def test(world: World) -> None:
        world.announcer.observe(tunnel())
        await world.wait(lambda: isinstance(world.last(), dict))
        world.announcer.withdraw()
        await world.wait(lambda: world.last() is None)
        await world.announcer.close()
        assert world.servers[0].is_closed

    in_world(test)


def test_what_the_process_says_is_told_once() -> None:
    async def test(world: World) -> None:
        world.announcer.observe(tunnel())
        await world.wait(lambda: isinstance(world.last(), dict))
        for _ in range(2):
            world.servers[0].reachable(("gpu-box.local",), (TcpEndpoint("fd77::1", 7748),))
        assert world.announcer.facts() == {
            "names": ["gpu-box.local"],
            "portal": ["http://[fd77::1]:7748/"],
        }
        assert world.changes == 1

    in_world(test)


def test_a_process_that_ends_is_started_again_and_told_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcing, "_START_AGAIN_S", (0.01, 0.02))

    async def test(world: World) -> None:
        world.announcer.observe(tunnel())
        await world.wait(lambda: isinstance(world.last(), dict))
        world.servers[0].reachable(("gpu-box.local",), ())
        world.servers[0].ended()
        assert world.announcer.facts()["names"] == []
        await world.wait(lambda: len(world.servers) == 2 and isinstance(world.last(), dict))
        assert world.servers[0].is_closed

    in_world(test)


def test_an_edited_profile_is_followed() -> None:
    async def test(world: World) -> None:
        world.announcer.adopt(replace(PROFILE, lan=False))
        world.announcer.observe(tunnel())
        await asyncio.sleep(0.05)
        assert world.servers == []
        world.announcer.adopt(PROFILE)
        await world.wait(lambda: isinstance(world.last(), dict))
        world.announcer.adopt(replace(PROFILE, wishes=LanWishes(portal=8080)))
        await world.wait(lambda: world.servers[0].told[-1]["portal"] == 8080)
        world.announcer.adopt(replace(PROFILE, lan_interfaces=("lan1",)))
        await world.wait(lambda: world.last() is None)

    in_world(test)

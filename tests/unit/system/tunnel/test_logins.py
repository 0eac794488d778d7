"""Which logins make a tunnel, and when the second one begins; over a server that is a script."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sshvpn.errors import ConnectionLostError, SshvpnError
from sshvpn.model import Destination, TunnelProfile
from sshvpn.remote.protocol import FIRST_UNIT, Mode
from sshvpn.system.openssh.stderr import DeviceRefusedError
from sshvpn.system.remote_agent.errors import NoRightsError
from sshvpn.system.tunnel.host_memory import HostMemory
from sshvpn.system.tunnel.logins import PREPARE, TunnelLogins

HOST = "alice@server:22"
CONFIG = {"user": ("alice",), "hostname": ("server",), "port": ("22",)}
PROFILE = TunnelProfile(name="office", host="alice@server", destination=Destination("server"))
FIRST = str(FIRST_UNIT)


class Login:
    """One login; what becomes of it is noted in ``said``."""

    def __init__(self, name: str, server: Server) -> None:
        self._name, self._server = name, server

    async def unit(self) -> int:
        """Return the unit, when the server has made the device."""
        await self._server.has_made.wait()
        if self._server.refuses is not None:
            raise self._server.refuses
        return self._server.unit

    async def close(self) -> None:
        """End it."""
        self._server.said.append(f"{self._name} ended")

    async def leave(self) -> None:
        """End it in order."""
        await self.close()


class Server:
    """Implements logins.Dial. The device is there once ``has_made`` is set."""

    def __init__(self, unit: int = FIRST_UNIT) -> None:
        self.unit = unit
        self.has_made = asyncio.Event()
        self.asked_for = asyncio.Event()
        self.refuses: SshvpnError | None = None
        self.hangs = False
        self.was_answered = False
        self.said: list[str] = []

    async def command(self, mode: Mode) -> Any:
        """Log in without a tunnel."""
        self.said.append(mode.value)
        return Login(mode.value, self)

    async def tunnel(self, unit: str, *, needs_agent: bool) -> Any:
        """Log in with one."""
        assert needs_agent
        self.said.append(unit)
        self.asked_for.set()
        if self.hangs:
            await asyncio.Event().wait()
        if not self.has_made.is_set() or unit != str(self.unit):
            raise DeviceRefusedError("not there")
        return Login(unit, self), None


@pytest.fixture
def known(tmp_path: Path) -> TunnelLogins:
    """Return the logins to a host at which preparing worked before."""
    memory = HostMemory(tmp_path / "hosts.json")
    memory.note(HOST, PREPARE)
    return TunnelLogins(memory)


async def connect(logins: TunnelLogins, server: Server) -> None:
    made = asyncio.create_task(logins.connect(PROFILE, CONFIG, server))
    asking = asyncio.create_task(server.asked_for.wait())
    await asyncio.wait({made, asking}, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
    asking.cancel()
    server.has_made.set()
    await asyncio.wait_for(made, 20)


def test_the_second_begins_before_the_device_is_there_where_that_is_known(
    known: TunnelLogins,
) -> None:
    async def story() -> list[str]:
        server = Server()
        waits = server.tunnel

        async def late(unit: str, *, needs_agent: bool) -> Any:
            server.said.append(f"{unit} begins")
            server.asked_for.set()
            await server.has_made.wait()  # a login takes longer than the device
            return await waits(unit, needs_agent=needs_agent)

        server.tunnel = late  # type: ignore[method-assign]
        await connect(known, server)
        return server.said

    assert asyncio.run(story()) == [PREPARE, f"{FIRST} begins", FIRST, f"{PREPARE} ended"]


def test_one_that_came_too_soon_is_made_again(known: TunnelLogins) -> None:
    server = Server()
    asyncio.run(connect(known, server))
    assert server.said == [PREPARE, FIRST, FIRST, f"{PREPARE} ended"]


@pytest.mark.parametrize("hangs", [False, True])
def test_one_for_another_unit_is_ended_and_made_again(known: TunnelLogins, hangs: bool) -> None:
    server = Server(unit=5601)

    async def story() -> None:
        server.hangs = hangs
        made = asyncio.create_task(known.connect(PROFILE, CONFIG, server))
        await server.asked_for.wait()
        server.hangs = False
        server.has_made.set()
        await asyncio.wait_for(made, 20)

    asyncio.run(story())
    assert server.said == [PREPARE, FIRST, "5601", f"{PREPARE} ended"]


def test_one_that_stands_at_anothers_device_is_ended(known: TunnelLogins) -> None:
    server = Server(unit=5601)

    async def tunnel(unit: str, *, needs_agent: bool) -> Any:
        assert needs_agent
        server.said.append(unit)
        server.asked_for.set()
        return Login(unit, server), None

    server.tunnel = tunnel  # type: ignore[method-assign]
    asyncio.run(connect(known, server))
    assert server.said == [PREPARE, FIRST, f"{FIRST} ended", "5601", f"{PREPARE} ended"]


@pytest.mark.parametrize("error", [NoRightsError("no sudo"), ConnectionLostError("lost")])
def test_where_nothing_was_made_both_are_ended(known: TunnelLogins, error: SshvpnError) -> None:
    server = Server()
    server.hangs, server.refuses = True, error

    async def story() -> None:
        made = asyncio.create_task(known.connect(PROFILE, CONFIG, server))
        await server.asked_for.wait()
        server.hangs = False
        server.has_made.set()
        with pytest.raises(type(error)):
            await asyncio.wait_for(made, 20)

    server.unit = 0  # nobody's
    asyncio.run(story())
    assert server.said[:3] == [PREPARE, FIRST, f"{PREPARE} ended"]


def test_who_gives_up_leaves_neither(known: TunnelLogins) -> None:
    server = Server()
    server.hangs = True

    async def story() -> None:
        made = asyncio.create_task(known.connect(PROFILE, CONFIG, server))
        await server.asked_for.wait()
        made.cancel()
        with pytest.raises(asyncio.CancelledError):
            await made
        assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []

    asyncio.run(story())
    assert server.said == [PREPARE, FIRST, f"{PREPARE} ended"]


def test_the_first_one_ever_waits_for_the_unit(tmp_path: Path) -> None:
    server = Server()
    asyncio.run(connect(TunnelLogins(HostMemory(tmp_path / "hosts.json")), server))
    assert server.said == [PREPARE, FIRST, f"{PREPARE} ended"]


def test_a_connection_that_is_made_anew_waits_for_the_unit(known: TunnelLogins) -> None:
    server = Server()
    known.has_stood = True
    asyncio.run(connect(known, server))
    assert server.said == [PREPARE, FIRST, f"{PREPARE} ended"]


def test_who_was_asked_for_a_password_is_asked_once_more_when_all_is_ready(
    known: TunnelLogins,
) -> None:
    server = Server()
    server.was_answered = True
    asyncio.run(connect(known, server))
    assert server.said == [PREPARE, FIRST, f"{PREPARE} ended"]

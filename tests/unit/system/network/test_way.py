"""What counts as another way to the server, and when a silent one is open again."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from sshvpn.model import Destination, SshOptions
from sshvpn.system.network.way import KNOCK_EVERY_S, Lead, SystemWay, is_another

SERVER = Lead("198.51.100.7", "192.0.2.10", "eth0", is_running=True)
ANYWHERE = replace(SERVER, target="192.0.2.1")
NOTHING = Lead("2001:db8::1", "", "", is_running=False)
BEFORE = (ANYWHERE, NOTHING, SERVER)


@pytest.mark.parametrize(
    "moved",
    [replace(SERVER, source="192.0.2.11"), replace(SERVER, source="203.0.113.5", adapter="wlan0")],
)
def test_another_address_or_adapter_is_another_way(moved: Lead) -> None:
    assert is_another(BEFORE, (ANYWHERE, NOTHING, moved))


def test_the_same_is_no_other_and_neither_is_none() -> None:
    assert not is_another(BEFORE, BEFORE)
    lost = [replace(lead, source="", adapter="", is_running=False) for lead in BEFORE]
    assert not is_another(BEFORE, lost), "nothing can be sent: there is nothing to try"
    assert is_another(lost, BEFORE), "it is back"


def test_a_server_whose_address_has_become_known_has_not_moved() -> None:
    assert not is_another(BEFORE[:2], BEFORE)
    elsewhere = replace(SERVER, target="198.51.100.8")
    assert not is_another(BEFORE, (*BEFORE[:2], elsewhere)), "its name has another address"


# Who answers there ------------------------------------------------------------------

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")
_ROOM = 8


class Server:
    """A port of this machine: nothing listens, or it is silent, or it takes connections.

    A listener whose queue is full drops each SYN without a word (listen(2)).
    """

    def __init__(self, closing: ExitStack) -> None:
        self._closing = closing
        self._socket = closing.enter_context(socket.socket())
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    def listen(self) -> None:
        self._socket.listen(_ROOM)

    def fall_silent(self) -> None:
        self.listen()
        for _ in range(_ROOM + 1):
            self._closing.enter_context(socket.create_connection(("127.0.0.1", self.port)))

    def answer(self) -> None:
        for _ in range(_ROOM + 1):
            self._closing.enter_context(self._socket.accept()[0])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return a server at whose port nothing listens; the first knock there is not put off."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    with ExitStack() as closing:
        yield Server(closing)


def way_to(server: Server) -> SystemWay:
    where = Destination("127.0.0.1", port=server.port), SshOptions("/dev/null")
    return SystemWay(lambda: where)


async def knocked(server: Server) -> None:
    """Return when somebody waits for the server to answer (proc_net_tcp.rst: SYN_SENT)."""
    wanted = f":{server.port:04X} 02 "
    connections = Path("/proc/net/tcp")
    while wanted not in await asyncio.to_thread(connections.read_text):
        await asyncio.sleep(0.01)


@needs_ssh
def test_a_server_that_answers_at_once_was_open_all_along(server: Server) -> None:
    server.listen()
    assert not asyncio.run(asyncio.wait_for(way_to(server).wait_open(), 10))


@needs_ssh
def test_a_server_that_has_refused_is_open_again(server: Server) -> None:
    async def main() -> bool:
        waiting = asyncio.create_task(way_to(server).wait_open())
        done, _ = await asyncio.wait({waiting}, timeout=1.5)
        assert not done
        server.listen()
        return await asyncio.wait_for(waiting, 3 * KNOCK_EVERY_S)

    assert asyncio.run(main())


@needs_ssh
@pytest.mark.parametrize("silent_s", [0.3, 0.8, 1.3, 2.8, 3.3])
def test_a_server_that_was_silent_is_open_again(server: Server, silent_s: float) -> None:
    """After 0.8 s of silence the first knock is answered, too: the kernel has sent it again."""
    server.fall_silent()

    async def main() -> bool:
        waiting = asyncio.create_task(way_to(server).wait_open())
        await knocked(server)
        done, _ = await asyncio.wait({waiting}, timeout=silent_s)
        assert not done
        server.answer()
        return await asyncio.wait_for(waiting, 3 * KNOCK_EVERY_S)

    assert asyncio.run(asyncio.wait_for(main(), 20))

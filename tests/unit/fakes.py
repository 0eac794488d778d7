"""Fakes of the border to the outside. The contract suites hold them to the real things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from sshvpn.boundary import Prompter, RemoteCommand
from sshvpn.errors import SshvpnError
from sshvpn.model import (
    Endpoint,
    ForwardProfile,
    InterfaceAddress,
    LanNetwork,
    Listener,
    TcpEndpoint,
    TcpPath,
    Traffic,
)


class FakeConnection:
    """A connection whose listeners open unless ``taken`` has their endpoint."""

    def __init__(self, taken: dict[str, SshvpnError]) -> None:
        self.taken = taken
        self.open: dict[Listener, Endpoint] = {}
        self.is_closed = False
        self.flows = 3
        self._lost: asyncio.Future[SshvpnError] = asyncio.get_running_loop().create_future()

    def lose(self, error: SshvpnError) -> None:
        if not self._lost.done():
            self._lost.set_result(error)

    async def open_listener(self, listener: Listener) -> Endpoint:
        if error := self.taken.get(str(listener.listen)):
            raise error
        where = listener.listen
        if isinstance(where, TcpEndpoint) and where.port == 0:
            where = replace(where, port=40000 + len(self.open))
        self.open[listener] = where
        return where

    async def close_listener(self, listener: Listener) -> None:
        self.open.pop(listener, None)

    async def run(self, command: str) -> RemoteCommand:
        raise SshvpnError(f"nothing runs here: {command}")

    async def wait_closed(self) -> SshvpnError:
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        self.is_closed = True
        self.open.clear()

    def traffic(self) -> Traffic:
        return Traffic(1, 2, self.flows)

    async def tune(self, profile: ForwardProfile) -> TcpPath:
        del profile
        return TcpPath("bbr", "cubic")


class FakeEngine:
    """Connects, or fails with the next of ``errors``."""

    name = "fake"

    def __init__(self, *errors: SshvpnError) -> None:
        self.errors = list(errors)
        self.taken: dict[str, SshvpnError] = {}
        self.connections: list[FakeConnection] = []
        self.prompters: list[Prompter | None] = []
        self.agent_is_back = asyncio.Event()

    async def check(self, profile: ForwardProfile) -> None:
        del profile

    async def wait_login_possible(self) -> None:
        await self.agent_is_back.wait()

    async def connect(self, profile: ForwardProfile, prompter: Prompter | None) -> FakeConnection:
        del profile
        self.prompters.append(prompter)
        if self.errors:
            raise self.errors.pop(0)
        self.connections.append(FakeConnection(self.taken))
        return self.connections[-1]

    @property
    def current(self) -> FakeConnection:
        return self.connections[-1]


class FakeInterfaces:
    """Adapters that a test changes; :meth:`change` tells of it."""

    def __init__(self, **adapters: Sequence[str]) -> None:
        self.adapters = {"lo": ("127.0.0.1/8", "::1/128"), **adapters}
        self.lan_names: tuple[str, ...] = ("eth0",)
        self.router_mac: str | None = "02:00:00:00:00:01"
        self._changed = asyncio.Event()

    def change(self, **adapters: Sequence[str]) -> None:
        self.adapters |= adapters
        self._changed.set()

    def names(self) -> Sequence[str]:
        return list(self.adapters)

    def addresses(self, interface: str) -> Sequence[InterfaceAddress]:
        found = []
        for text in self.adapters.get(interface, ()):
            address, _, length = text.partition("/")
            found.append(InterfaceAddress(interface, address, int(length)))
        return found

    def lan(self) -> Sequence[InterfaceAddress]:
        return [found for name in self.lan_names for found in self.addresses(name)]

    def network_of(self, address: InterfaceAddress) -> LanNetwork:
        return LanNetwork(address.interface, address.network, self.router_mac)

    def counters(self, interface: str) -> tuple[int, int] | None:
        return (0, 0) if interface in self.adapters else None

    async def changes(self, unit: int | None = None) -> AsyncIterator[None]:  # noqa: ARG002
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield


class FakeTrust:
    """Remembers in memory."""

    def __init__(self) -> None:
        self.networks: set[LanNetwork] = set()

    def is_trusted(self, network: LanNetwork) -> bool:
        return network in self.networks

    def remember(self, network: LanNetwork) -> None:
        self.networks.add(network)


class FakePrompter:
    """Answers with the next of ``answers``; None when there is none left."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bool]] = []
        self.told: list[str] = []

    def is_there(self) -> bool:
        return True

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        self.asked.append((prompt, echo))
        return self.answers.pop(0) if self.answers else None

    async def tell(self, text: str) -> None:
        self.told.append(text)

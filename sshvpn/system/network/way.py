"""The way to the server: which adapter of this machine leads there, and whether anybody answers.

What is looked at is the first machine that ssh connects to: the server, or the hop that is
nearest to us. While it does not answer, one SYN is sent to it every half second, which is what
tells soonest, and without a login, that a silent way is open again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import random
import socket
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from sshvpn.errors import SshvpnError
from sshvpn.frozen import dataclass
from sshvpn.model import Destination, SshOptions
from sshvpn.system.network.interfaces import SystemInterfaces
from sshvpn.system.sleep import awakenings
from sshvpn.system.ssh.config import resolve
from sshvpn.system.ssh.peers import RESOLVE_WAIT_S, FirstHop, ask_resolver, first_hop
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.way")

KNOCK_EVERY_S = 0.5
KNOCK_TIMEOUT_S = 3.0
"""How long the answer to one SYN is waited for, while others follow: longer than it takes by
satellite, or on a full link."""
_REPEATED_AFTER_S = 1.0
"""When the kernel sends a SYN again, or its answer, that nobody has answered (RFC 6298, 2.1)."""
RESOLVE_AGAIN_S = 5.0
"""How old an address may be before its name is asked for again."""
_SETTLED_AFTER_S = 0.5
"""How long an adapter may be without its address: one that is renewed goes and comes."""

_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40
_ANYWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses of nobody (RFC 5737, RFC 3849): what leads there is the default route."""


@dataclass(frozen=True, slots=True)
class Lead:
    """What leads to one address: our own address and its adapter; empty where nothing does."""

    target: str
    source: str
    adapter: str
    is_running: bool

    @property
    def is_usable(self) -> bool:
        """Whether anything can be sent."""
        return bool(self.adapter) and self.is_running


class SystemWay:
    """Implements boundary.Way; ``where`` returns where to log in, and how, as it is now."""

    def __init__(self, where: Callable[[], tuple[Destination, SshOptions]]) -> None:
        self._where = where
        self._addresses: tuple[str, ...] = ()
        self._resolved_at = float("-inf")
        self._resolving: asyncio.Future[tuple[str, ...]] | None = None
        self._noted: tuple[Lead, ...] = ()

    # What leads there -------------------------------------------------------------------

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield after the way has become another one, and after the machine has slept."""
        changed, slept = asyncio.Event(), asyncio.Event()
        watchers = [
            asyncio.create_task(_note(SystemInterfaces().changes(), changed)),
            asyncio.create_task(_note(awakenings(), changed, slept)),
        ]
        before = self._leads()
        try:
            while True:
                await changed.wait()
                changed.clear()
                if self.is_gone():
                    await asyncio.sleep(_SETTLED_AFTER_S)
                now = self._leads()
                moved = is_another(before, now)
                before = now
                if slept.is_set():
                    slept.clear()
                    log.info("the machine has slept")
                elif not moved:
                    continue
                yield None
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def note(self) -> None:
        """Remember the way by which a connection was made just now."""
        self._noted = ()
        hop = await self._hop()
        if hop is not None:
            await self._resolve(hop)
            self._noted = _leads(self._addresses)

    def is_gone(self) -> bool:
        """Whether our own address, or its adapter, is gone, and something else leads there."""
        noted = [lead for lead in self._noted if lead.is_usable]
        if not noted:
            return False
        adapters = _adapters()
        if any(adapters.get(lead.source) == lead.adapter and _is_running(lead.adapter)
               for lead in noted):  # fmt: skip
            return False
        return any(lead.is_usable for lead in _leads(tuple(lead.target for lead in noted)))

    def _leads(self) -> tuple[Lead, ...]:
        return _leads((*_ANYWHERE, *self._addresses))

    # Who answers there ------------------------------------------------------------------

    async def wait_open(self) -> bool:
        """Return True once connections are taken that were not taken before.

        False where the first knock is answered, however late, and where it cannot be told. One that
        is lost by chance is taken for silence.
        """
        hop = await self._hop()
        if hop is None:
            return False
        # Many gateways may have lost one server in the same instant.
        await asyncio.sleep(KNOCK_EVERY_S * random.random())  # noqa: S311
        # A name that is still being resolved must not send it off together with the next one.
        addresses = await self._resolve(hop)
        started = time.monotonic()
        first = asyncio.create_task(_is_any_open(addresses, hop.port, KNOCK_TIMEOUT_S))
        knocks = {first}
        try:
            while True:
                next_at = time.monotonic() + KNOCK_EVERY_S
                while (left_s := next_at - time.monotonic()) > 0 and knocks:
                    done, knocks = await asyncio.wait(
                        knocks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if first in done and first.result():
                        return await self._is_quicker(hop, time.monotonic() - started)
                    if any(knock.result() for knock in done):
                        return True
                await asyncio.sleep(max(0.0, next_at - time.monotonic()))
                knocks.add(asyncio.create_task(self._knock(hop, KNOCK_TIMEOUT_S)))
        finally:
            for knock in knocks:
                knock.cancel()
            await asyncio.gather(*knocks, return_exceptions=True)

    async def _is_quicker(self, hop: FirstHop, took_s: float) -> bool:
        """Whether a knock is answered much sooner than the first one, which ``took_s``.

        Then the first was answered when a SYN had been repeated, ours or the server's, and the way
        was silent before.
        """
        if took_s < _REPEATED_AFTER_S:
            return False
        return await self._knock(hop, took_s - _REPEATED_AFTER_S / 2)

    async def _knock(self, hop: FirstHop, timeout_s: float) -> bool:
        """Whether one of the hop's addresses takes a connection within ``timeout_s``."""
        return await _is_any_open(await self._resolve(hop), hop.port, timeout_s)

    # Where it is ------------------------------------------------------------------------

    async def _hop(self) -> FirstHop | None:
        destination, ssh = self._where()
        try:
            config = await resolve(destination, ssh)
        except SshvpnError:
            return None
        if config.keys() & {"bindaddress", "bindinterface"}:
            return None  # what leads there is the user's own choice
        return await first_hop(config, ssh)

    async def _resolve(self, hop: FirstHop) -> tuple[str, ...]:
        """Return the addresses of ``hop``, those of before where the resolver is not there."""
        if self._resolving is None and time.monotonic() - self._resolved_at >= RESOLVE_AGAIN_S:
            self._resolving = ask_resolver(hop)
        if self._resolving is not None:
            await asyncio.wait({self._resolving}, timeout=RESOLVE_WAIT_S)
        if self._resolving is not None and self._resolving.done():
            self._addresses = self._resolving.result() or self._addresses
            self._resolving, self._resolved_at = None, time.monotonic()
        return self._addresses


async def _note(changes: AsyncIterator[object], *events: asyncio.Event) -> None:
    async for _ in changes:
        for event in events:
            event.set()


async def _is_any_open(addresses: Sequence[str], port: int, timeout_s: float) -> bool:
    knocks = {asyncio.create_task(_is_open(one, port, timeout_s)) for one in addresses}
    try:
        while knocks:
            done, knocks = await asyncio.wait(knocks, return_when=asyncio.FIRST_COMPLETED)
            if any(knock.result() for knock in done):
                return True
        return False
    finally:
        for knock in knocks:
            knock.cancel()
        await asyncio.gather(*knocks, return_exceptions=True)


async def _is_open(address: str, port: int, timeout_s: float) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            await within(timeout_s, loop.sock_connect(sock, (address, port)))
    except (OSError, asyncio.TimeoutError):  # a kernel without IPv6 has no socket for it
        return False
    return True


def is_another(before: Sequence[Lead], now: Sequence[Lead]) -> bool:
    """Whether something can be sent now, and what was known of before is led to differently."""
    led = {lead.target: lead for lead in before}
    return any(lead.is_usable for lead in now) and any(
        led.get(lead.target, lead) != lead for lead in now
    )


# Of this machine ---------------------------------------------------------------------------


def _leads(targets: Sequence[str]) -> tuple[Lead, ...]:
    adapters = _adapters()
    found = []
    for target in targets:
        source = _source_to(target)
        adapter = adapters.get(source, "")
        found.append(Lead(target, source, adapter, is_running=_is_running(adapter)))
    return tuple(found)


def _source_to(target: str) -> str:
    """Return our address towards ``target``, "" where no route leads there; nothing is sent."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((target, 9))
        return str(sock.getsockname()[0])
    return ""


def _adapters() -> dict[str, str]:
    """Return the adapter of each address of this machine."""
    import netifaces

    found: dict[str, str] = {}
    for name in netifaces.interfaces():
        with contextlib.suppress(ValueError):  # it has none, or it has gone
            addresses = netifaces.ifaddresses(name)
            for family in (socket.AF_INET, socket.AF_INET6):
                for entry in addresses.get(family, ()):
                    found[entry.get("addr", "").partition("%")[0]] = name.partition(":")[0]
    return found


def _is_running(adapter: str) -> bool:
    """Whether ``adapter`` is up and has its carrier (netdevice(7))."""
    if not adapter:
        return False
    request = struct.pack("16sH14x", adapter.encode(), 0)
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (flags,) = struct.unpack_from("16xH", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        return bool(flags & _IFF_RUNNING)
    return False

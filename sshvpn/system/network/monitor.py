"""Waits for what the kernel tells: of its own changes (netlink(7)), of the end of a socket."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import AsyncGenerator, Callable, Collection, Mapping


def listen(groups: int) -> socket.socket:
    """Return a socket that hears of ``groups``, a bit each (netlink(7), NETLINK_ROUTE)."""
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    monitor = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        monitor.bind((0, groups))
    except OSError:
        monitor.close()
        raise
    return monitor


_DROPPED = b"?"
"""In place of messages that the kernel had no room for: no message, and so of anybody's."""

Heed = Callable[[bytes], bool]
"""Whether what was read of a socket is a change that is waited for."""


def any_change(_: bytes) -> bool:
    """Heed all of it."""
    return True


async def changes(
    monitors: Mapping[socket.socket, Heed], coalesce_s: float
) -> AsyncGenerator[None, None]:
    """Yield once at the start, and after every change; those within ``coalesce_s`` are one.

    The first one lets whoever follows look again: nothing is missed between the last look and
    the beginning. What the kernel had to drop (ENOBUFS) counts as a change. The sockets do not
    block.
    """
    yield None
    while True:
        await _readable(monitors)
        await asyncio.sleep(coalesce_s)
        # All are read to their end, also behind a change that counts.
        found = [_has_change(monitor, heed) for monitor, heed in monitors.items()]
        if any(found):
            yield None


async def _readable(monitors: Collection[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    for monitor in monitors:
        loop.add_reader(monitor, ready.set)
    try:
        await ready.wait()
    finally:
        for monitor in monitors:
            loop.remove_reader(monitor)


def _has_change(sock: socket.socket, heed: Heed) -> bool:
    """Read all that waits; return whether any of it counts."""
    found = False
    while data := _received(sock):
        found = found or heed(data)
    return found


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 16)
    except BlockingIOError:
        return b""
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return _DROPPED


def name_of(index: int) -> str | None:
    """Return the adapter of that number, None where there is none (any more)."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


class HangUp:
    """Calls ``then`` once, in the running loop, when the other end of a socket has been closed.

    What comes over it wakes nobody, and is left to others. Close it before the socket.
    """

    def __init__(self, descriptor: int, then: Callable[[], None]) -> None:
        self._then = then
        self._loop = asyncio.get_running_loop()
        # The loop itself can only be told to wait for what can be read.
        self._epoll = select.epoll()
        self._epoll.register(descriptor, select.EPOLLRDHUP)
        self._loop.add_reader(self._epoll.fileno(), self._hear)

    def _hear(self) -> None:
        self.close()
        self._then()

    def close(self) -> None:
        """Watch no more. Twice is fine."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

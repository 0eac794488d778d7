"""Waits for what the kernel tells of its own changes: netlink(7) sockets that only listen."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator


async def changes(monitor: socket.socket, coalesce_s: float) -> AsyncGenerator[None, None]:
    """Yield once at the start, and after every change; those within ``coalesce_s`` are one.

    The first one lets whoever follows look again: nothing is missed between the last look and
    the beginning. What the kernel had to drop (ENOBUFS) counts as a change. The socket does not
    block.
    """
    while True:
        yield None
        await _readable(monitor)
        await asyncio.sleep(coalesce_s)
        while _has_read(monitor):
            pass


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def _has_read(sock: socket.socket) -> bool:
    """Read one message; what it says does not matter."""
    try:
        sock.recv(1 << 16)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
    return True

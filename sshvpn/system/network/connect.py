"""A TCP connection to the first address of a host that takes one, in the order of the resolver."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable
from typing import Any

from sshvpn.waiting import within

Entry = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""One of what getaddrinfo(3) returns."""

_SO_BINDTODEVICE = 25


async def connect_first(
    entries: Iterable[Entry],
    timeout_s: float,
    *,
    bind_address: str | None = None,
    bind_interface: str | None = None,
) -> socket.socket:
    """Return a non-blocking socket that is connected to the first of ``entries`` that takes it.

    Each is waited for as long as ``timeout_s``. Raises the last one's OSError.
    """
    loop = asyncio.get_running_loop()
    last: OSError = OSError("it has no address")
    for family, kind, protocol, _, address in entries:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a kernel without IPv6
            last = error
            continue
        try:
            _bind(sock, bind_address, bind_interface)
            sock.settimeout(0)
            await within(timeout_s, loop.sock_connect(sock, address))
        except (asyncio.TimeoutError, TimeoutError):
            sock.close()
            last = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


def _bind(sock: socket.socket, address: str | None, interface: str | None) -> None:
    if interface is not None:
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, os.fsencode(interface) + b"\0")
    if address is not None:
        sock.bind((address, 0))

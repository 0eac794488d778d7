"""A kernel without IPv6, and a server whose name has an address of it all the same."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from sshvpn.system.network import connect, way


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the port of a server on loopback, by IPv4; there are no sockets of IPv6."""
    made = socket.socket

    def make(family: int = socket.AF_INET, *rest: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, *rest, **more)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(socket, "socket", make)
        yield listener.getsockname()[1]


def test_the_way_is_open_by_the_other(port: int) -> None:
    assert asyncio.run(way._is_any_open(["::1", "127.0.0.1"], port, 5))
    assert not asyncio.run(way._is_any_open(["::1"], port, 5))


def test_the_next_address_is_taken(port: int) -> None:
    kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    six: Any = (socket.AF_INET6, *kind, ("::1", port, 0, 0))
    four: Any = (socket.AF_INET, *kind, ("127.0.0.1", port))
    with asyncio.run(connect.connect_first([six, four], 5)) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
    with pytest.raises(OSError, match="not supported"):
        asyncio.run(connect.connect_first([six], 5))

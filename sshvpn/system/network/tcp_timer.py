"""In how long a TCP connection repeats itself, asked of the kernel for that one (sock_diag(7)).

TCP_INFO does not tell: it knows when something was sent last, and a repeat that could not leave
this machine, since its adapter has no carrier or there is no route, never was.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from sshvpn.system.network.netlink_question import ask

# linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST = struct.Struct("=BBBxI")
"""The beginning of struct inet_diag_req_v2: family, protocol, extensions, states as bits."""
_ANY_STATE = 0xFFFFFFFF
_PORTS = struct.Struct("!HH")
_INTERFACE_AND_COOKIE = struct.Struct("=III")
_NO_COOKIE = 0xFFFFFFFF
_TIMER_AT, _EXPIRES_AT, _ENOUGH = 2, 52, 56
"""Where idiag_timer and idiag_expires (milliseconds) stand in struct inet_diag_msg."""
REPEATS = 1
"""The timer of what was sent and is not acknowledged; others are of a connection that is well."""


def timer_of(sock: socket.socket) -> tuple[int, float] | None:
    """Return which timer runs for the connection ``sock``, and in how many seconds it ends.

    None where the kernel does not tell. Looked for in this thread's network namespace, without
    waiting.
    """
    with contextlib.suppress(OSError, ValueError):
        for kind, body in ask(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _question(sock)):
            if kind == _SOCK_DIAG_BY_FAMILY and len(body) >= _ENOUGH:
                (milliseconds,) = struct.unpack_from("=I", body, _EXPIRES_AT)
                return body[_TIMER_AT], milliseconds / 1e3
    return None


def _question(sock: socket.socket) -> bytes:
    here, there = sock.getsockname(), sock.getpeername()
    interface = here[3] if sock.family == socket.AF_INET6 else 0
    return b"".join(
        (
            _REQUEST.pack(sock.family, socket.IPPROTO_TCP, 0, _ANY_STATE),
            _PORTS.pack(here[1], there[1]),
            _address(sock.family, here[0]),
            _address(sock.family, there[0]),
            _INTERFACE_AND_COOKIE.pack(interface, _NO_COOKIE, _NO_COOKIE),
        )
    )


def _address(family: int, text: str) -> bytes:
    return socket.inet_pton(family, text.partition("%")[0]).ljust(16, b"\0")

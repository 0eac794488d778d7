"""Keeps a listener to the adapter that it is meant for.

Linux is a weak host (RFC 1122 3.3.4.2): an address of the LAN's adapter answers to whoever
sends a packet for it, by whatever adapter it comes in. A listener that is bound to the device
(SO_BINDTODEVICE, socket(7)) takes only what came by that adapter, and what this machine sends
to the adapter's addresses itself: the kernel counts that as come by the adapter, though it
passes over ``lo``. Anybody else is refused (RST). It needs no privilege since Linux 5.7.

A socket filter would do as well, but newer kernels keep those from unprivileged TCP sockets.

Connections that such a listener accepts stay on the adapter. The adapter is meant by index, not
by name: one that was made anew needs a new listener.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import closing, suppress

from sshvpn.model import TcpEndpoint
from sshvpn.system.network.sockets import ProcessSockets, is_listening

_NAME_LENGTH = 16
"""IFNAMSIZ, with the zero at the end."""


def guard(sock: socket.socket, interface: str) -> None:
    """Take only what comes by ``interface``, or from this machine to an address of it.

    ``sock`` is a TCP socket; before ``listen()``, nobody slips in between. Twice changes
    nothing. Raises OSError, and leaves the socket as it was: ENODEV where there is no such
    adapter, EPERM for an unprivileged user of a kernel before 5.7.
    """
    # Once bound to a device, only a privileged user may bind it again, even to the same.
    if _device_of(sock) != interface:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())


def guard_process_listener(pid: int, endpoint: TcpEndpoint, interface: str) -> bool:
    """Guard the listener of another process (the system's ssh), found by where it listens.

    Returns whether it is guarded now: False where no such listener is found, where there is no
    such adapter, and where the kernel does not let us at the process (Yama, seccomp, Linux
    before 5.7). A connection that came before this call is not undone. Twice changes nothing.
    """
    try:
        wanted = (ipaddress.ip_address(endpoint.host), endpoint.port)
    except ValueError:
        return False
    with closing(ProcessSockets(pid)) as process:
        for _, sock in process.borrow_all():
            with suppress(OSError):
                host, port = sock.getsockname()[:2]
                if is_listening(sock) and (ipaddress.ip_address(host), port) == wanted:
                    guard(sock, interface)
                    return True
    return False


def _device_of(sock: socket.socket) -> str:
    """Return the adapter that ``sock`` is bound to, or ""; "" too when that is gone."""
    try:
        name = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _NAME_LENGTH)
    except OSError:
        return ""
    return name.rstrip(b"\0").decode()

"""Lets a TCP socket of the client's be paced by a congestion control that is root's alone.

The kernel lets everybody choose what net.ipv4.tcp_allowed_congestion_control lists; what has
CAP_NET_ADMIN may choose any, and is who the kernel loads the module for (tcp(7)). The socket is
the client's own already, and nothing of it but this is looked at or changed.
"""

from __future__ import annotations

import os
import socket

from sshvpn.errors import PrivilegeError

CHOICES = ("bbr", "cubic")


def pace(descriptor: int | None, name: object) -> None:
    """Set the congestion control of the TCP socket ``descriptor``, and close it.

    Raises ValueError for what is no such socket or name, PrivilegeError where the kernel has no
    such congestion control.
    """
    if descriptor is None:
        raise ValueError("no socket, or more than one")
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        os.close(descriptor)
        raise ValueError("no socket") from error
    with sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise ValueError("no TCP socket")
        if not isinstance(name, str) or name not in CHOICES:
            raise ValueError("no congestion control of ours")
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode("ascii"))
        except OSError as error:
            raise PrivilegeError(f"no {name} in this kernel: {error.strerror}") from error

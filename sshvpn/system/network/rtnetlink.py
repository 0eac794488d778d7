"""What the kernel answers when it is asked for links, addresses, routes, neighbours (rtnetlink(7)).

By the messages of pyroute2 over a socket of our own; only reads. Each raises OSError where the
kernel refuses or fails. What changes while it is told is asked for again, some times.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, rtnl
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from sshvpn.system.network.messages import MESSAGES, Link, let_go

_INTERRUPTED = 0x10
"""NLM_F_DUMP_INTR: what was being told has changed meanwhile."""
_TRIES = 5
_LARGEST = 1 << 17
"""The kernel answers in pieces of at most 32 KiB, but for a message that is larger."""
_STATUS = struct.Struct("=16xi")
"""Behind its header the last message of a dump has 0, or why the kernel could not go on."""


def links() -> list[Link]:
    """Return all adapters of this network namespace."""
    return _dump(rtnl.RTM_GETLINK, Link())


def addresses(family: int) -> list[Any]:
    """Return the addresses of FAMILY, as pyroute2's ``ifaddrmsg``."""
    return _of_family(family, rtnl.RTM_GETADDR, ifaddrmsg())


def routes(family: int) -> list[Any]:
    """Return the routes of FAMILY in all tables, as pyroute2's ``rtmsg``."""
    return _of_family(family, rtnl.RTM_GETROUTE, rtmsg())


def neighbours(family: int) -> list[Any]:
    """Return the neighbours of FAMILY, as pyroute2's ``ndmsg``; not the proxy ones."""
    return _of_family(family, rtnl.RTM_GETNEIGH, ndmsg())


def _of_family(family: int, kind: int, request: Any) -> list[Any]:
    request["family"] = family
    # A kernel that does not have the family tells of all.
    return [found for found in _dump(kind, request) if found["family"] == family]


def _dump(kind: int, request: Any) -> list[Any]:
    """Return all answers; of what never stands still for as long, those of the last try."""
    request["header"] = {"type": kind, "flags": NLM_F_REQUEST | NLM_F_DUMP, "sequence_number": 1}
    request.encode()
    let_go(request)
    for _ in range(_TRIES):
        told = list(_told(request.data))
        if not any(one["header"]["flags"] & _INTERRUPTED for one in told):
            break
    return told[:-1]


def _told(request: bytes) -> Iterator[Any]:
    """Yield what the kernel answers, NLMSG_DONE as the last."""
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE) as kernel:
        kernel.send(request)
        while True:
            for message in MESSAGES.parse(kernel.recv(_LARGEST)):
                let_go(message)
                kind = message["header"]["type"]
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    (status,) = _STATUS.unpack_from(message.data, message.offset)
                    if status < 0:
                        raise OSError(-status, os.strerror(-status))
                yield message
                if kind == NLMSG_DONE:
                    return

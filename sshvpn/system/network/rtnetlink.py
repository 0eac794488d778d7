"""What the kernel says of links, addresses, routes and neighbours (rtnetlink(7)).

By the messages of pyroute2 over a socket of our own: with its ``IPRoute`` a process loads 5 MB
more, and takes a tenth of a second longer to start on a small machine. What is here only reads.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, nla, nlmsg, rtnl
from pyroute2.netlink.marshal import Marshal
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

_INTERRUPTED = 0x10
"""NLM_F_DUMP_INTR: what was being told has changed meanwhile."""
_TRIES = 5
_LARGEST = 1 << 17
"""The kernel answers in pieces of at most 32 KiB, but for a message that is larger."""


class Link(nlmsg):  # type: ignore[misc]
    """ifinfomsg, with what is asked for here alone.

    pyroute2's own reads the hundred attributes of all kinds of links, and loads 2 MB for it.
    """

    __slots__ = ()
    fields = (
        ("family", "B"),
        ("pad", "B"),
        ("ifi_type", "H"),
        ("index", "i"),
        ("flags", "I"),
        ("change", "I"),
    )
    nla_map = (
        (1, "IFLA_ADDRESS", "lladdr"),
        (3, "IFLA_IFNAME", "cdata"),
        (5, "IFLA_LINK", "uint32"),
        (10, "IFLA_MASTER", "uint32"),
        (11, "IFLA_WIRELESS", "cdata"),
        (18, "IFLA_LINKINFO", "linkinfo"),
        (37, "IFLA_LINK_NETNSID", "int32"),
    )

    class linkinfo(nla):  # type: ignore[misc]  # noqa: N801 (as pyroute2 looks it up)
        """What kind of link it is."""

        __slots__ = ()
        nla_map = ((1, "IFLA_INFO_KIND", "asciiz"),)

    @property
    def name(self) -> str:
        """The adapter's name, as Python has it of what is not UTF-8."""
        return os.fsdecode(self.get_attr("IFLA_IFNAME", b"").rstrip(b"\0"))


class Netconf(nlmsg):  # type: ignore[misc]
    """netconfmsg of linux/netconf.h, which pyroute2 does not have."""

    __slots__ = ()
    fields = (("family", "B"), ("pad", "3s"))
    nla_map = ((1, "NETCONFA_IFINDEX", "int32"),)


class _Messages(Marshal):  # type: ignore[misc]
    msg_map = {  # noqa: RUF012 (pyroute2's, which copies it)
        **dict.fromkeys((rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK), Link),
        **dict.fromkeys((rtnl.RTM_NEWADDR, rtnl.RTM_DELADDR), ifaddrmsg),
        **dict.fromkeys((rtnl.RTM_NEWROUTE, rtnl.RTM_DELROUTE), rtmsg),
        **dict.fromkeys((rtnl.RTM_NEWNEIGH, rtnl.RTM_DELNEIGH), ndmsg),
        **dict.fromkeys((rtnl.RTM_NEWRULE, rtnl.RTM_DELRULE), fibmsg),
        **dict.fromkeys((rtnl.RTM_NEWNETCONF, rtnl.RTM_DELNETCONF), Netconf),
    }


MESSAGES = _Messages()
"""Reads what comes over a socket of NETLINK_ROUTE."""


def links() -> list[Link]:
    """Return all adapters of this network namespace. Raises OSError, as all of these do."""
    return _dump(rtnl.RTM_GETLINK, Link())


def addresses(family: int) -> list[Any]:
    """Return the addresses of FAMILY, as pyroute2's ``ifaddrmsg``."""
    return _dump(rtnl.RTM_GETADDR, _of(family, ifaddrmsg()))


def routes(family: int) -> list[Any]:
    """Return the routes of FAMILY in all tables, as pyroute2's ``rtmsg``."""
    return _dump(rtnl.RTM_GETROUTE, _of(family, rtmsg()))


def neighbours(family: int) -> list[Any]:
    """Return the neighbours of FAMILY, as pyroute2's ``ndmsg``; not the proxy ones."""
    return _dump(rtnl.RTM_GETNEIGH, _of(family, ndmsg()))


def let_go(message: Any) -> None:
    """Let all of MESSAGE be freed once it is not used any more: each part of it holds itself.

    Else it waits for the garbage collector, and a supervisor that hears twenty others start has
    2 MB more ever after.
    """
    for slot in message.get("attrs", ()):
        slot.cell[1].chain = ()
    message.chain = ()


def _of(family: int, request: Any) -> Any:
    request["family"] = family
    return request


def _dump(kind: int, request: Any) -> list[Any]:
    request["header"] = {"type": kind, "flags": NLM_F_REQUEST | NLM_F_DUMP, "sequence_number": 1}
    request.encode()
    for _ in range(_TRIES):
        found = list(_answers(request.data))
        if not any(one["header"]["flags"] & _INTERRUPTED for one in found):
            break
    return found


def _answers(request: bytes) -> Iterator[Any]:
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE) as kernel:
        kernel.send(request)
        while True:
            for message in MESSAGES.parse(kernel.recv(_LARGEST)):
                let_go(message)
                if message["header"]["type"] == NLMSG_DONE:
                    return
                if message["header"]["type"] == NLMSG_ERROR:
                    code = abs(message["error"])
                    raise OSError(code, os.strerror(code))
                yield message

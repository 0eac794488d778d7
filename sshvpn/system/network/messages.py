"""The messages of rtnetlink(7) that a process without privilege reads, as pyroute2 has them; pure.

pyroute2's ``IPRoute`` loads all of them: 5 MB, and 60 ms of CPU or more at each start.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

from pyroute2.netlink import nla, nlmsg, rtnl
from pyroute2.netlink.marshal import Marshal
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg


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


def let_go(message: Any) -> None:
    """Let MESSAGE and its attributes be freed once it is not used any more, and use it till then.

    Each of them holds itself, and some the message. Else they wait for the garbage collector, and a
    supervisor that hears twenty others start has 2 MB more ever after. What is nested in an
    attribute, and read, does wait for it.
    """
    for slot in message.get("attrs", ()):
        part = slot.cell[1]
        part.chain = ()
        if part.own_parent:  # it holds the message, and asks it for its family when it is read
            part.parent = weakref.proxy(message)
    message.chain = ()

"""How many bytes an adapter has carried, asked of the kernel for that one alone (rtnetlink(7)).

/proc/net/dev tells of all: with fifty tunnels each would read fifty lines every few seconds.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from sshvpn.plan.netlink import attributes
from sshvpn.system.network.netlink_question import ask

# linux/rtnetlink.h, linux/if_link.h; since Linux 4.7.
_RTM_NEWSTATS, _RTM_GETSTATS = 92, 94
_IF_STATS_MSG = struct.Struct("=BBHII")
"""struct if_stats_msg: family, padding, the adapter's number, the kinds of counters as bits."""
_IFLA_STATS_LINK_64 = 1
_LINK_STATS = struct.Struct("=4Q")
"""The beginning of struct rtnl_link_stats64: packets received and sent, bytes received and sent."""


def device_counters(name: str) -> tuple[int, int] | None:
    """Return the bytes received and sent by the adapter ``name``, None where it is not there.

    Of this thread's network namespace. Never blocks.
    """
    with contextlib.suppress(OSError):
        question = _question(socket.if_nametoindex(name))
        for kind, body in ask(socket.NETLINK_ROUTE, _RTM_GETSTATS, question):
            found = attributes(body, _IF_STATS_MSG.size).get(_IFLA_STATS_LINK_64, b"")
            if kind == _RTM_NEWSTATS and len(found) >= _LINK_STATS.size:
                _, _, received, sent = _LINK_STATS.unpack_from(found)
                return received, sent
    return None


def _question(index: int) -> bytes:
    return _IF_STATS_MSG.pack(socket.AF_UNSPEC, 0, 0, index, 1 << (_IFLA_STATS_LINK_64 - 1))

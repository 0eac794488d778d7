"""The proxy neighbours of ours, as the kernel lists them.

By hand: pyroute2 cannot ask for them, and they do not show unless asked for.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from sshvpn.plan import marks
from sshvpn.plan.netlink import HEADER, UNREADABLE, attributes, messages
from sshvpn.plan.state import ProxyNeighbour

# linux/netlink.h, linux/rtnetlink.h, linux/neighbour.h
_NTF_PROXY = 8
_RTM_GETNEIGH, _NDA_DST, _NDA_PROTOCOL = 30, 1, 12
_NLM_F_REQUEST, _NLM_F_DUMP, _NLMSG_ERROR, _NLMSG_DONE = 0x1, 0x300, 2, 3
_NDMSG = 12


def proxy_neighbours() -> list[ProxyNeighbour]:
    """Return the proxy neighbours that bear our protocol number (rtnetlink(7), RTM_GETNEIGH)."""
    names = dict(socket.if_nameindex())
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            body = struct.pack("=BxxxiHBB", family, 0, 0, _NTF_PROXY, 0)
            flags = _NLM_F_REQUEST | _NLM_F_DUMP
            head = HEADER.pack(HEADER.size + len(body), _RTM_GETNEIGH, flags, 1, 0)
            kernel.send(head + body)
            for index, values in _dumped_neighbours(kernel):
                if values.get(_NDA_PROTOCOL) == bytes([marks.PROTOCOL]) and index in names:
                    address = socket.inet_ntop(family, values[_NDA_DST])
                    found.append(ProxyNeighbour(names[index], address))
    return found


def _dumped_neighbours(kernel: socket.socket) -> Iterator[tuple[int, dict[int, bytes]]]:
    while True:
        for kind, body in messages(kernel.recv(1 << 16)):
            if kind in (_NLMSG_DONE, _NLMSG_ERROR, UNREADABLE):
                return
            yield struct.unpack_from("=i", body, 4)[0], attributes(body, _NDMSG)

"""The mDNS sockets of one adapter (RFC 6762): what is sent stays on it, and so does what is heard.

Other responders live beside it on port 5353 (avahi-daemon, a browser, python-zeroconf), so the
port is shared, each packet to the group reaches all of them, and nothing may rely on unicast.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from sshvpn.presence import Adapter

PORT = 5353
GROUP4 = "224.0.0.251"
GROUP6 = "ff02::fb"
_HOPS = 255
"""RFC 6762, section 11."""
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29
"""Of linux/in.h and linux/in6.h: only the groups that this socket joined itself."""

Take: TypeAlias = "Callable[[bytes, tuple[str, int]], None]"

log = logging.getLogger("sshvpn.lan")


class Multicast:
    """Joins the group on one adapter, of each family that it has an address of.

    ``take`` is called with each packet of a neighbour (RFC 6762, section 11: others are not
    heard) and where it came from; our own come back too. Raises OSError where the port cannot be
    had. Close it.
    """

    def __init__(self, adapter: Adapter, take: Take) -> None:
        self._networks = [ipaddress.ip_interface(cidr).network for cidr in adapter.addresses]
        self._take = take
        self._transports: list[tuple[asyncio.DatagramTransport, tuple[str, int]]] = []
        self._sockets = []
        try:
            for version in sorted({network.version for network in self._networks}):
                self._sockets.append(_joined(adapter, is_ipv6=version == 6))  # noqa: PLR2004
        except BaseException:
            self.close()
            raise

    async def open(self) -> None:
        """Begin to hear."""
        loop = asyncio.get_running_loop()
        while self._sockets:
            sock = self._sockets.pop()
            group = GROUP6 if sock.family == socket.AF_INET6 else GROUP4
            transport, _ = await loop.create_datagram_endpoint(lambda: _Heard(self), sock=sock)
            self._transports.append((transport, (group, PORT)))

    def send(self, packet: bytes, to: tuple[str, int] | None = None) -> None:
        """Send to the group, by each family; or to one neighbour that has asked from there."""
        for transport, group in self._transports:
            if to is None:
                transport.sendto(packet, group)
            elif (":" in to[0]) == (":" in group[0]):
                transport.sendto(packet, to)

    def close(self) -> None:
        """Leave the group. May be called twice."""
        for transport, _ in self._transports:
            transport.close()
        for sock in self._sockets:
            sock.close()
        self._transports, self._sockets = [], []

    def heard(self, packet: bytes, source: tuple[Any, ...]) -> None:
        """Hand on what a neighbour sent."""
        address = ipaddress.ip_address(str(source[0]).partition("%")[0])
        is_near = address.is_link_local or any(address in network for network in self._networks)
        if is_near:
            self._take(packet, (str(source[0]), int(source[1])))


class _Heard(asyncio.DatagramProtocol):
    def __init__(self, multicast: Multicast) -> None:
        self._multicast = multicast

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._multicast.heard(data, addr)

    def error_received(self, exc: Exception) -> None:
        # The adapter went, or a neighbour refused: whoever follows the adapters knows.
        log.debug("mDNS: %s", exc)


def keep_to(sock: socket.socket, adapter: str) -> None:
    """Let ``sock`` send and hear by ``adapter`` alone (SO_BINDTODEVICE, socket(7)).

    Raises OSError where it is gone.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, adapter.encode())


def _joined(adapter: Adapter, *, is_ipv6: bool) -> socket.socket:
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        keep_to(sock, adapter.name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for level, option, value in _options(adapter.index, is_ipv6=is_ipv6):
            sock.setsockopt(level, option, value)
        sock.bind(("", PORT))
    except BaseException:
        sock.close()
        raise
    return sock


def _options(index: int, *, is_ipv6: bool) -> Iterator[tuple[int, int, int | bytes]]:
    if is_ipv6:
        level = socket.IPPROTO_IPV6
        yield level, socket.IPV6_V6ONLY, 1
        yield level, _IPV6_MULTICAST_ALL, 0
        yield level, socket.IPV6_MULTICAST_IF, index
        yield level, socket.IPV6_MULTICAST_HOPS, _HOPS
        yield level, socket.IPV6_UNICAST_HOPS, _HOPS
        yield level, socket.IPV6_MULTICAST_LOOP, 1  # the others of this machine hear us too
        group = socket.inet_pton(socket.AF_INET6, GROUP6)
        yield level, socket.IPV6_JOIN_GROUP, group + struct.pack("@I", index)
    else:
        level = socket.IPPROTO_IP
        by_adapter = struct.pack("@4s4si", bytes(4), bytes(4), index)  # struct ip_mreqn
        yield level, _IP_MULTICAST_ALL, 0
        yield level, socket.IP_MULTICAST_IF, by_adapter
        yield level, socket.IP_MULTICAST_TTL, _HOPS
        yield level, socket.IP_TTL, _HOPS
        yield level, socket.IP_MULTICAST_LOOP, 1
        group = socket.inet_aton(GROUP4)
        yield level, socket.IP_ADD_MEMBERSHIP, struct.pack("@4s4si", group, bytes(4), index)

"""Who is behind an address of an adapter's own link, as the kernel resolves it (arp(7), RFC 4861).

Asks the kernel to resolve, and reads its table; changes neither. Needs no privilege.
"""

from __future__ import annotations

import contextlib
import socket
from typing import NamedTuple

_INCOMPLETE = 0x01
_REACHABLE = 0x02
_STALE = 0x04
_DELAY = 0x08
_PROBE = 0x10
_PERMANENT = 0x80
"""States of linux/neighbour.h, NUD_*."""
_CONFIRMED = _REACHABLE | _PERMANENT
_VALID = _CONFIRMED | _STALE | _DELAY | _PROBE

DISCARD = 9
"""RFC 863: nobody minds an empty datagram there."""


class Neighbour(NamedTuple):
    """One entry of the kernel's table; ``mac`` is None while it is not resolved."""

    state: int
    mac: str | None

    @property
    def is_incomplete(self) -> bool:
        """Whether the kernel is asking, and has no answer yet."""
        return bool(self.state & _INCOMPLETE)

    @property
    def is_confirmed(self) -> bool:
        """Whether the kernel is sure of it now: that machine was heard, or somebody said so."""
        return bool(self.state & _CONFIRMED)


def find(index: int, address: str) -> Neighbour | None:
    """Return what the kernel knows of ``address`` at the adapter ``index``, None if nothing.

    Proxy entries are in a table of their own, and are not found.
    """
    from sshvpn.system.network import rtnetlink

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for entry in rtnetlink.neighbours(family):
        if entry["ifindex"] == index and entry.get_attr("NDA_DST") == address:
            is_valid = entry["state"] & _VALID
            return Neighbour(entry["state"], entry.get_attr("NDA_LLADDR") if is_valid else None)
    return None


def speak_to(address: str, interface: str, index: int) -> None:
    """Send an empty datagram to the discard port of ``address``, so that the kernel resolves it.

    What the kernel or a firewall refuses is not sent, silently.
    """
    is_ipv6 = ":" in address
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    where = (address, DISCARD, 0, index) if is_ipv6 else (address, DISCARD)
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with contextlib.suppress(OSError), socket.socket(family, kind) as sock:
        keep_to_link(sock, interface)
        sock.sendto(b"", where)


def keep_to_link(sock: socket.socket, interface: str) -> None:
    """Let ``sock`` speak to machines on the adapter's own link, whatever the routes say."""
    with contextlib.suppress(PermissionError):  # before Linux 5.7
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    # IPv6 has no such thing: there an address is on the link if a route says so.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)

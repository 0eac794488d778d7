"""Netlink messages as bytes (netlink(7)): their headers and attributes; pure.

For what pyroute2 cannot ask for (privileged/proxies.py), and for the small questions of every few
seconds (system/network/netlink_question.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE = 0x3FFF
"""NLA_TYPE_MASK: two bits of an attribute's type say how its value is to be read."""
UNREADABLE = 0
"""The kind of what cannot be read; the kernel has no message of it."""


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of each message in ``data``, which is read whole from a socket."""
    at = 0
    while at < len(data):
        if len(data) - at < HEADER.size:
            yield UNREADABLE, b""
            return
        length, kind, *_ = HEADER.unpack_from(data, at)
        if not HEADER.size <= length <= len(data) - at:
            yield UNREADABLE, b""
            return
        yield kind, data[at + HEADER.size : at + length]
        at += _aligned(length)


def attributes(body: bytes, at: int) -> dict[int, bytes]:
    """Return the attributes behind the first ``at`` bytes, as far as they can be read."""
    found: dict[int, bytes] = {}
    while len(body) - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if not _ATTRIBUTE.size <= length <= len(body) - at:
            break
        found.setdefault(kind & _TYPE, body[at + _ATTRIBUTE.size : at + length])
        at += _aligned(length)
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3

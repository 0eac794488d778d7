"""Packets and virtio headers, made by hand."""

from __future__ import annotations

import struct

NEEDS_CSUM = 1


def virtio(  # noqa: PLR0917 (the fields, in their order)
    flags: int = 0, gso: int = 0, header: int = 0, size: int = 0, start: int = 0, offset: int = 0
) -> bytes:
    """Return a virtio_net_hdr (linux/virtio_net.h)."""
    return struct.pack("<BBHHHH", flags, gso, header, size, start, offset)


def ip4(protocol: int, payload: bytes, *, options: bytes = b"", source: int = 1) -> bytes:
    """Return an IPv4 packet to 10.0.0.2, its checksum left out."""
    words = 5 + len(options) // 4
    size = words * 4 + len(payload)
    addresses = bytes([10, 0, 0, source, 10, 0, 0, 2])
    return (
        struct.pack("!BBHHHBBH", 0x40 | words, 0, size, 0, 0, 64, protocol, 0)
        + addresses
        + options
        + payload
    )


def ip6(following: int, payload: bytes) -> bytes:
    """Return an IPv6 packet."""
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + bytes(32) + payload


def tcp(data: bytes, *, words: int = 5, sport: int = 1) -> bytes:
    """Return a segment of TCP."""
    return struct.pack("!HHIIBBHHH", sport, 2, 0, 0, words << 4, 16, 9, 0, 0) + data


def udp(data: bytes, *, sport: int = 1) -> bytes:
    """Return a datagram of UDP."""
    return struct.pack("!HHHH", sport, 2, 8 + len(data), 0) + data

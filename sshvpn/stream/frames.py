"""The frames of the stream transport, pure: what they look like, and what one may hold.

::

    0        8                      32
    +--------+----------------------+------------------
    |  kind  |  length, big-endian  |  length bytes …
    +--------+----------------------+------------------

A packet goes with the virtio_net_hdr that the kernel's tun has in front of it, little-endian
(linux/virtio_net.h), so that a segment of 64 KiB crosses whole. Nothing of the peer's is
believed: any bytes end in sound packets or in one FrameError, and need no more memory than a
Decoder has from the start. The specification is docs/protocol.md.

Runs on the server too: Python 3.6, the standard library alone (see sshvpn.stream.program).
"""

import struct
from typing import Iterator, NamedTuple, Optional, Tuple

VERSION = 1
PACKET, PROBE, ANSWER, HELLO, END = 1, 2, 3, 4, 5

LARGEST_PACKET = 65535
"""Of IP (RFC 791, RFC 8200), and so the largest segment that a tun hands over."""
HEADER = struct.Struct(">I")
VIRTIO = struct.Struct("<BBHHHH")
TOKEN = struct.Struct(">Q")
GREETING = struct.Struct(">HH")
LONGEST_NOISE = 1 << 16
"""Bytes of banner and start-up files that may come before the opening line."""

_LENGTHS = {
    PACKET: (VIRTIO.size + 20, VIRTIO.size + LARGEST_PACKET),
    PROBE: (TOKEN.size, TOKEN.size),
    ANSWER: (TOKEN.size, TOKEN.size),
    HELLO: (GREETING.size, 1024),
    END: (0, 0),
}
"""The shortest and the longest body of each kind."""
_FIRST = {HELLO: _LENGTHS[HELLO]}
_LATER = {kind: lengths for kind, lengths in _LENGTHS.items() if kind != HELLO}
LARGEST_FRAME = HEADER.size + VIRTIO.size + LARGEST_PACKET

# linux/virtio_net.h
_NEEDS_CSUM, _DATA_VALID = 1, 2
_GSO_NONE, _GSO_TCP4, _GSO_TCP6, _GSO_UDP, _GSO_ECN = 0, 1, 4, 5, 0x80
_SMALLEST_SEGMENT = 8
"""The kernel's own (TCP_MIN_GSO_SIZE): with less, one packet would become thousands."""
_MOST_DATAGRAMS = 128
"""Of one segment of UDP (UDP_MAX_SEGMENTS)."""
_TCP_CSUM, _UDP_CSUM = 16, 6
_TCP, _UDP = 6, 17
_SHORT = struct.Struct(">H")


class FrameError(Exception):
    """The peer sent what is no frame, or went away in the middle of one."""


class OpeningError(Exception):
    """The peer does not begin: with CODE where it says why, without where it says nothing."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Hello(NamedTuple):
    """What an end says of itself: the protocol's version, and FEATURES of its kernel."""

    version: int
    features: int


TAKES_UDP_SEGMENTS = 1
"""A feature: this kernel takes segments of UDP (Linux 6.2)."""


def frame(kind: int, body: bytes = b"") -> bytes:
    """Return one frame."""
    return HEADER.pack(kind << 24 | len(body)) + body


def packet_header(length: int) -> bytes:
    """Return what goes before LENGTH bytes of virtio header and packet."""
    return HEADER.pack(PACKET << 24 | length)


def hello(features: int) -> bytes:
    """Return the frame that each end sends first."""
    return frame(HELLO, GREETING.pack(VERSION, features))


def opening(nonce: str) -> bytes:
    """Return the line after which the server's frames begin."""
    return f"\n{nonce} stream {VERSION}\n".encode("ascii")


def refusal(nonce: str, code: str, text: str) -> bytes:
    """Return the line that is said instead."""
    return f"\n{nonce} error {code} {text}\n".encode("ascii", "replace")


def read_hello(body: memoryview) -> Hello:
    """Return what a HELLO says; bytes behind what we know are a later version's."""
    version, features = GREETING.unpack_from(body)
    if version != VERSION:
        raise FrameError(f"the other end speaks version {version}, not {VERSION}")
    return Hello(version, features)


class Opening:
    """Finds the opening line behind what a server may say before it.

    NONCE is new for each connection, but it stands on the command line, and start-up files may
    print that: only a line that begins with NONCE and a word of ours is the server's.
    """

    def __init__(self, nonce: str) -> None:
        self._marks = [f"\n{nonce} {word} ".encode("ascii") for word in ("stream", "error")]
        self._seen = b"\n"  # what comes first begins a line

    def feed(self, data: bytes) -> Optional[bytes]:
        """Return what follows the line, or None where it has not come yet.

        Raises OpeningError: the peer says why there is none, or too much came before it.
        """
        self._seen += data
        places = [at for at in map(self._seen.find, self._marks) if at >= 0]
        if not places:
            if len(self._seen) > 1 + LONGEST_NOISE:
                raise OpeningError("", "it said too much before it began")
            return None
        line, end, rest = self._seen[min(places) + 1 :].partition(b"\n")
        if not end and len(line) <= LONGEST_NOISE:
            return None
        words = line.decode("ascii", "replace").split(None, 3)[1:]
        if words == ["stream", str(VERSION)]:
            self._seen = b""
            return rest
        if words[0] == "error" and len(words) == 3:  # noqa: PLR2004
            raise OpeningError(words[1], words[2])
        raise OpeningError("", "it began with what is no line of ours")

    def cut(self) -> OpeningError:
        """Return what the end of the input means here, with the last of what was said."""
        lines = self._seen.decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return OpeningError("", said[-1][:200] if said else "it ended without a word")


class Decoder:
    """Makes frames of bytes: read into ``room()``, then iterate over ``feed(COUNT)`` to its end.

    The first is HELLO, and no other is.
    ``refused`` counts packets that were left out: what they hold is no packet that a kernel
    should see. That ends nothing, or a user of the tunnel could end it.
    """

    def __init__(self, size: int = 4 * LARGEST_FRAME) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0
        self._lengths = _FIRST
        self.refused = 0

    def room(self) -> memoryview:
        """Return where the next bytes go; never empty between two calls of ``feed``."""
        if len(self._buffer) - self._end < LARGEST_FRAME:
            # Else what has come of a frame stays where it is: it is read behind, not copied.
            kept = self._end - self._begin
            self._view[:kept] = self._view[self._begin : self._end]
            self._begin, self._end = 0, kept
        return self._view[self._end :]

    @property
    def is_between(self) -> bool:
        """Whether the last byte that came was the last of a frame."""
        return self._begin == self._end

    def feed(self, count: int) -> Iterator[Tuple[int, memoryview]]:
        """Yield kind and body of each frame that is whole now; the body lasts until the next.

        Raises FrameError.
        """
        buffer, view = self._buffer, self._view
        at, end, lengths = self._begin, self._end + count, self._lengths
        while end - at >= 4:  # noqa: PLR2004 (HEADER.size; this loop is hot)
            (word,) = HEADER.unpack_from(buffer, at)
            kind, length = word >> 24, word & 0xFFFFFF
            if kind not in lengths:
                raise FrameError(self._out_of_place(kind))
            shortest, longest = lengths[kind]
            if not shortest <= length <= longest:
                raise FrameError(f"a frame of kind {kind} has no {length} bytes")
            start, stop = at + 4, at + 4 + length
            if stop > end:
                break
            if kind != PACKET or is_sound(buffer, start, length):
                yield kind, view[start:stop]
            else:
                self.refused += 1
            if lengths is _FIRST:
                self._lengths = lengths = _LATER
            at = stop
        self._begin, self._end = (at, end) if at < end else (0, 0)

    def _out_of_place(self, kind: int) -> str:
        if self._lengths is _FIRST:
            return f"it begins with a frame of kind {kind}, not with HELLO"
        return "a second HELLO" if kind == HELLO else f"there is no frame of kind {kind}"


def is_sound(buffer: bytearray, start: int, length: int) -> bool:  # noqa: PLR0911 (a list)
    """Whether LENGTH bytes at START are a virtio header and one IP packet that fit each other.

    What the kernel would refuse, or make too much of, is not. Its own checks are those of
    virtio_net_hdr_to_skb (linux/virtio_net.h).
    """
    flags, gso, header, size, csum_start, csum_offset = VIRTIO.unpack_from(buffer, start)
    ip, count = start + 10, length - 10
    version = buffer[ip] >> 4
    if version == 4:  # noqa: PLR2004 (the family's name, here and below)
        upper = (buffer[ip] & 15) * 4
        (said,) = _SHORT.unpack_from(buffer, ip + 2)
        if said != count or not 20 <= upper <= count:  # noqa: PLR2004 (RFC 791, 3.1)
            return False
    elif version == 6 and count >= 40:  # noqa: PLR2004 (RFC 8200, 3)
        upper = 40
        (said,) = _SHORT.unpack_from(buffer, ip + 4)
        if said + 40 != count:
            return False
    else:
        return False
    if not flags and not gso:
        return bool(header <= count)
    if flags & ~(_NEEDS_CSUM | _DATA_VALID) or header > count:
        return False
    if not flags & _NEEDS_CSUM:
        return not gso
    if not upper <= csum_start <= count - csum_offset - 2:
        return False
    return not gso or _is_segment(buffer, ip, count, (gso, size, csum_start, csum_offset))


def _is_segment(buffer: bytearray, ip: int, count: int, said: Tuple[int, int, int, int]) -> bool:
    """Whether a packet of COUNT bytes at IP can be cut as the virtio header SAID."""
    gso, size, upper, csum_offset = said
    version = buffer[ip] >> 4
    kind = gso & ~_GSO_ECN
    protocol = buffer[ip + 9] if version == 4 else None  # noqa: PLR2004
    if kind == (_GSO_TCP4 if version == 4 else _GSO_TCP6):  # noqa: PLR2004
        if csum_offset != _TCP_CSUM or protocol not in (None, _TCP) or upper + 20 > count:
            return False
        header = (buffer[ip + upper + 12] >> 4) * 4
        return header >= 20 and upper + header <= count and size >= _SMALLEST_SEGMENT  # noqa: PLR2004
    if gso == _GSO_UDP and csum_offset == _UDP_CSUM and protocol in (None, _UDP):
        return size > 0 and count - upper - 8 <= size * _MOST_DATAGRAMS
    return False

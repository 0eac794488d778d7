"""Frames: any bytes end in sound packets or one error; what the kernel sees was looked at."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from sshvpn.stream import frames
from sshvpn.stream.frames import Decoder, FrameError, Opening, OpeningError
from tests.unit.stream.packets import NEEDS_CSUM, ip4, ip6, tcp, udp, virtio

NONCE = "0123456789abcdef"


def decoded(data: bytes, piece: int = 1 << 16) -> list[tuple[int, bytes]]:
    """Return the frames that DATA makes when it comes in pieces of so many bytes."""
    decoder, found = Decoder(), []
    while data:
        room = decoder.room()
        count = min(len(room), piece, len(data))
        room[:count] = data[:count]
        data = data[count:]
        found += [(kind, bytes(body)) for kind, body in decoder.feed(count)]
    return found


def is_sound(packet: bytes, header: bytes = virtio()) -> bool:
    data = bytearray(b"\0\0\0" + header + packet)
    return frames.is_sound(data, 3, len(data) - 3)


def packet_frame(packet: bytes, header: bytes = virtio()) -> bytes:
    return frames.packet_header(len(header) + len(packet)) + header + packet


# Frames -----------------------------------------------------------------------------------------

FIRST = frames.hello(0)
WHOLE = [
    frames.hello(1), packet_frame(ip4(17, udp(b"x"))), frames.frame(frames.PROBE, bytes(8)),
    packet_frame(ip4(6, tcp(bytes(65495))), virtio(NEEDS_CSUM, 1, 54, 1460, 20, 16)),
    frames.frame(frames.ANSWER, bytes(8)), frames.frame(frames.END),
]  # fmt: skip


@pytest.mark.parametrize("piece", [1, 3, 1000, 1 << 16])
def test_frames_come_out_as_they_went_in_whatever_pieces_they_come_in(piece: int) -> None:
    sent = WHOLE + WHOLE[1:]
    found = decoded(b"".join(sent), piece)
    assert [frames.frame(kind, body) for kind, body in found] == sent


def test_a_cut_in_the_middle_of_a_frame_is_seen() -> None:
    decoder = Decoder()
    data = FIRST + frames.frame(frames.PROBE, bytes(8))[:5]
    decoder.room()[: len(data)] = data
    assert [kind for kind, _ in decoder.feed(len(data))] == [frames.HELLO]
    assert not decoder.is_between


@pytest.mark.parametrize(
    "header",
    [
        bytes(4), b"\6\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\1", b"\1\1\0\x0a", b"\2\0\0\7",
        b"\3\0\0\x09", b"\4\0\0\3", b"\4\0\4\1", b"\5\0\0\1",
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_is_an_error_before_its_body_comes(header: bytes) -> None:
    with pytest.raises(FrameError, match=f"kind {header[0]}|second HELLO"):
        decoded(FIRST + header)


@pytest.mark.parametrize("body", [b"", bytes(60)], ids=["its header alone", "whole"])
@pytest.mark.parametrize("kind", [frames.PACKET, frames.PROBE, frames.ANSWER, frames.END, 9])
def test_any_other_frame_than_hello_is_no_first_one(kind: int, body: bytes) -> None:
    length = {frames.PACKET: 60, frames.PROBE: 8, frames.ANSWER: 8}.get(kind, 0)
    data = frames.HEADER.pack(kind << 24 | length) + body[:length]
    with pytest.raises(FrameError, match=f"begins with a frame of kind {kind}, not with HELLO"):
        decoded(data)


def test_a_hello_comes_once() -> None:
    with pytest.raises(FrameError, match="a second HELLO"):
        decoded(FIRST + WHOLE[1] + FIRST)


def test_a_packet_that_is_none_is_left_out_and_ends_nothing() -> None:
    decoder = Decoder()
    data = FIRST + packet_frame(bytes(40)) + frames.frame(frames.END)
    decoder.room()[: len(data)] = data
    assert [kind for kind, _ in decoder.feed(len(data))] == [frames.HELLO, frames.END]
    assert decoder.refused == 1


def test_a_hello_of_another_version_is_an_error_and_more_words_are_not() -> None:
    assert frames.read_hello(memoryview(b"\0\1\0\1and more")).features == 1
    with pytest.raises(FrameError, match="version 2"):
        frames.read_hello(memoryview(b"\0\2\0\0"))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([FIRST, b""]),
    st.lists(st.one_of(st.sampled_from(WHOLE), st.binary(max_size=200))), st.integers(1, 999),
)  # fmt: skip
def test_any_bytes_end_in_frames_or_in_one_error(
    first: bytes, parts: list[bytes], piece: int
) -> None:
    """The same that a run by hand does for longer: make fuzz."""
    check_any_bytes(first + b"".join(parts), piece)


def check_any_bytes(data: bytes, piece: int) -> None:
    """Raise AssertionError where DATA does what no input may."""
    decoder, room = Decoder(), 4 * frames.LARGEST_FRAME
    kinds = []
    try:
        while data:
            place = decoder.room()
            assert 0 < len(place) <= room
            count = min(len(place), piece, len(data))
            place[:count] = data[:count]
            data = data[count:]
            for kind, body in decoder.feed(count):
                kinds.append(kind)
                assert (kind == frames.HELLO) == (len(kinds) == 1), "HELLO is the first, and once"
                assert len(body) <= frames.LARGEST_FRAME
                assert kind != frames.PACKET or body[10] >> 4 in (4, 6)
    except FrameError:
        pass


# The virtio header ------------------------------------------------------------------------------

TCP4, TCP6 = ip4(6, tcp(bytes(3000))), ip6(6, tcp(bytes(3000)))
UDP4, UDP6 = ip4(17, udp(bytes(3000))), ip6(17, udp(bytes(3000)))
WITH_OPTIONS = ip4(6, tcp(bytes(3000)), options=bytes([1] * 8))


@pytest.mark.parametrize(
    ("packet", "header"),
    [
        (UDP4, virtio()),
        (UDP6, virtio()),
        (ip4(1, b""), virtio()),
        (ip6(59, b""), virtio()),
        (UDP4, virtio(2)),
        (UDP4, virtio(NEEDS_CSUM, 0, 28, 0, 20, 6)),
        (TCP4, virtio(NEEDS_CSUM, 1, 40, 1460, 20, 16)),
        (TCP4, virtio(NEEDS_CSUM, 0x81, 40, 1460, 20, 16)),
        (WITH_OPTIONS, virtio(NEEDS_CSUM, 1, 48, 1460, 28, 16)),
        (TCP6, virtio(NEEDS_CSUM, 4, 60, 1440, 40, 16)),
        (ip6(0, b"\6\0" + bytes(6) + tcp(bytes(3000))), virtio(NEEDS_CSUM, 4, 68, 1440, 48, 16)),
        (UDP4, virtio(NEEDS_CSUM, 5, 28, 1472, 20, 6)),
        (UDP6, virtio(NEEDS_CSUM, 5, 48, 1452, 40, 6)),
    ],
)
def test_what_a_kernel_sends_is_sound(packet: bytes, header: bytes) -> None:
    assert is_sound(packet, header)


@pytest.mark.parametrize(
    ("packet", "header"),
    [
        (bytes(40), virtio()),
        (b"\x50" + bytes(40), virtio()),
        (UDP4 + b"x", virtio()),
        (UDP4[:-1], virtio()),
        (b"\x44" + UDP4[1:], virtio()),
        (b"\x4f" + ip4(1, b"")[1:], virtio()),
        (UDP6[:39], virtio()),
        (UDP6 + b"x", virtio()),
        (UDP4, virtio(0, 0, len(UDP4) + 1)),
        (UDP4, virtio(4)),
        (UDP4, virtio(0x81, 0, 28, 0, 20, 6)),
        (UDP4, virtio(NEEDS_CSUM, 0, 28, 0, 19, 6)),
        (UDP4, virtio(NEEDS_CSUM, 0, 28, 0, len(UDP4) - 7, 6)),
        (UDP4, virtio(NEEDS_CSUM, 0, 28, 0, 65535, 65535)),
        (TCP4, virtio(0, 1, 40, 1460, 20, 16)),
        (TCP4, virtio(2, 1, 40, 1460, 20, 16)),
        (TCP4, virtio(NEEDS_CSUM, 1, 40, 0, 20, 16)),
        (TCP4, virtio(NEEDS_CSUM, 1, 40, 7, 20, 16)),
        (TCP4, virtio(NEEDS_CSUM, 1, 40, 1460, 20, 6)),
        (TCP4, virtio(NEEDS_CSUM, 1, 40, 1460, len(TCP4) - 19, 16)),
        (TCP4, virtio(NEEDS_CSUM, 4, 40, 1460, 20, 16)),
        (TCP6, virtio(NEEDS_CSUM, 1, 60, 1440, 40, 16)),
        (UDP4, virtio(NEEDS_CSUM, 1, 40, 1460, 20, 16)),
        (TCP4, virtio(NEEDS_CSUM, 3, 40, 1460, 20, 16)),
        (TCP4, virtio(NEEDS_CSUM, 5, 40, 1460, 20, 6)),
        (UDP4, virtio(NEEDS_CSUM, 0x85, 28, 1472, 20, 6)),
        (UDP4, virtio(NEEDS_CSUM, 5, 28, 23, 20, 6)),
        (UDP4, virtio(NEEDS_CSUM, 5, 28, 0, 20, 6)),
        (ip4(6, tcp(bytes(50), words=4)), virtio(NEEDS_CSUM, 1, 40, 20, 20, 16)),
        (ip4(6, tcp(b"", words=15)), virtio(NEEDS_CSUM, 1, 40, 20, 20, 16)),
    ],
)
def test_what_no_kernel_sends_is_not(packet: bytes, header: bytes) -> None:
    assert not is_sound(packet, header)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([TCP4, TCP6, UDP4, UDP6, ip4(1, b""), ip6(59, b"")]),
    st.binary(min_size=10, max_size=10), st.binary(max_size=60),
)  # fmt: skip
def test_any_header_in_front_of_any_packet_is_judged(
    packet: bytes, header: bytes, start: bytes
) -> None:
    whole = start + packet[len(start) :]
    if is_sound(whole, header):
        flags, gso, hdr_len, size, csum_start, csum_offset = frames.VIRTIO.unpack(header)
        assert hdr_len <= len(whole)
        assert not flags & NEEDS_CSUM or csum_start + csum_offset + 2 <= len(whole)
        assert not gso or (flags & NEEDS_CSUM and size > 0)


# The opening ------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [b"", b"Welcome!\n", b"no line end", b"\xff\0\x80" * 999])
@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_the_opening_is_found_behind_any_noise(noise: bytes, piece: int) -> None:
    opening = Opening(NONCE)
    data = noise + frames.opening(NONCE) + FIRST
    got = None
    while data and got is None:
        got, data = opening.feed(data[:piece]), data[piece:]
    assert got is not None
    assert got + data == FIRST


@pytest.mark.parametrize(
    "noise",
    [
        f"exec env python3 -ISc 'BOOT' 9000 {NONCE} one sshvpn-agent:3e8_1\n",
        f"{NONCE} one sshvpn-agent:3e8_1\n",
        f"{NONCE}\n",
        f"{NONCE} \n",
        f"+ {NONCE} stream 1\n",
        f"it has {NONCE} error in it\n",
        f"{NONCE} streams 1\n",
        f"no line end {NONCE}",
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_noise_that_repeats_the_command_line_is_passed_over(noise: str, piece: int) -> None:
    test_the_opening_is_found_behind_any_noise(noise.encode(), piece)


def test_noise_without_end_is_one_error() -> None:
    opening = Opening(NONCE)
    for _ in range(64):
        assert opening.feed(bytes(1024)) is None
    with pytest.raises(OpeningError, match="too much"):
        opening.feed(bytes(1024))


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        (frames.refusal(NONCE, "no_tun", "there is none"), "no_tun", "there is none"),
        (f"{NONCE} error python 3.5.2\n".encode(), "python", "3.5.2"),
        (f"{NONCE} stream 2\n".encode(), "", "no line of ours"),
        (f"{NONCE} error python\n".encode(), "", "no line of ours"),
        (f"{NONCE} one mark\n{NONCE} error python 3.5.2\n".encode(), "python", "3.5.2"),
        (f"{NONCE} stream 1 {'x' * 70000}".encode(), "", "no line of ours"),
    ],
)
def test_a_server_that_does_not_begin_says_why(said: bytes, code: str, text: str) -> None:
    with pytest.raises(OpeningError, match=text) as caught:
        Opening(NONCE).feed(said)
    assert caught.value.code == code


def test_the_last_words_of_one_that_ends_are_told() -> None:
    opening = Opening(NONCE)
    opening.feed(b"Welcome!\nsh: python3: not found\n")
    assert str(opening.cut()) == "sh: python3: not found"

"""The pump: what crosses, in which order, and how it ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from sshvpn.stream import frames
from sshvpn.stream.frames import Decoder, OpeningError
from tests.unit.stream.packets import NEEDS_CSUM, ip4, tcp, udp, virtio
from tests.unit.stream.pumps import NONCE, PLAIN, End, Pair, Peer, eventually

SEGMENT = virtio(NEEDS_CSUM, 1, 40, 1460, 20, 16) + ip4(6, tcp(os.urandom(65495)))


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.here.close()
    made.there.close()


def test_packets_and_segments_cross_both_ways_though_no_kernel_has_offloads(pair: Pair) -> None:
    for packet in (PLAIN, SEGMENT) * 20:
        pair.here.machine.send(packet)
        assert pair.there.machine.recv(1 << 17) == packet
        pair.there.machine.send(packet)
        assert pair.here.machine.recv(1 << 17) == packet


def test_packets_of_a_flow_keep_their_order(pair: Pair) -> None:
    for start in range(0, 2000, 40):  # as many as wait nowhere for long
        numbers = range(start, start + 40)
        packets = [virtio() + ip4(17, udp(number.to_bytes(4, "big") * 300)) for number in numbers]
        for packet in packets:
            pair.here.machine.send(packet)
        assert [pair.there.machine.recv(1 << 17) for _ in packets] == packets


def test_one_that_is_told_says_end_and_both_end_without_an_error(pair: Pair) -> None:
    pair.here.machine.send(PLAIN)
    assert pair.there.machine.recv(1 << 17) == PLAIN
    pair.here.stop()
    assert pair.here.wait() is None
    assert pair.there.wait() is None


def test_what_no_kernel_should_see_is_left_out_and_the_rest_arrives() -> None:
    peer = Peer()
    bad = virtio(NEEDS_CSUM, 1, 40, 0, 20, 16) + ip4(6, tcp(bytes(3000)))
    peer.say(frames.packet_header(len(bad)) + bad + frames.packet_header(len(PLAIN)) + PLAIN)
    assert peer.end.machine.recv(1 << 17) == PLAIN
    peer.say(frames.frame(frames.END))
    assert peer.ended() == ""
    assert "1 refused" in peer.end.pump.account()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"\xff\xff\xff\xff", "no frame of kind 255"),
        (frames.hello(0), "a second HELLO"),
        (frames.frame(frames.ANSWER, bytes(8)), "an answer to nothing"),
        (frames.packet_header(1), "has no 1 bytes"),
        (frames.packet_header(frames.LARGEST_FRAME), f"has no {frames.LARGEST_FRAME} bytes"),
    ],
)
def test_what_is_no_frame_ends_it_with_one_error(said: bytes, error: str) -> None:
    peer = Peer()
    peer.say(said)
    assert error in peer.ended()


@pytest.mark.parametrize("nonce", [None, NONCE], ids=["at the server", "on this machine"])
@pytest.mark.parametrize(
    "said",
    [
        frames.packet_header(len(PLAIN)) + PLAIN,
        frames.packet_header(40) + bytes(40),
        frames.frame(frames.PROBE, bytes(8)),
        frames.frame(frames.ANSWER, bytes(8)),
        frames.frame(frames.END),
        b"\xff\xff\xff\xff",
    ],
    ids=["packet", "none of IP", "probe", "answer", "end", "no frame"],
)
def test_what_comes_before_hello_ends_it_with_one_error(said: bytes, nonce: str | None) -> None:
    """And the kernel sees none of it."""
    peer = Peer(nonce=nonce, hello=False)
    peer.say((b"" if nonce is None else frames.opening(nonce)) + said + frames.hello(0))
    peer.end.wait()
    peer.end.machine.setblocking(False)  # noqa: FBT003
    with pytest.raises(BlockingIOError):
        peer.end.machine.recv(1 << 17)
    assert f"begins with a frame of kind {said[0]}, not with HELLO" in peer.ended()


def test_a_peer_of_another_version_is_told() -> None:
    peer = Peer(hello=False)
    peer.say(frames.frame(frames.HELLO, b"\0\2\0\0 and more"))
    assert peer.ended() == "the other end speaks version 2, not 1"


@pytest.mark.parametrize("is_queued", [False, True], ids=["past the queue", "through it"])
def test_what_is_no_packet_or_larger_than_any_is_left_out(*, is_queued: bool) -> None:
    peer = Peer()
    assert eventually(lambda: peer.end.pump.peer is not None)
    held = peer.end.pump._window
    if is_queued:
        held.arrived = -held.limit  # nothing may go: it gathers in the queue
    largest = virtio() + ip4(17, udp(bytes(65507)))
    for packet in (largest + b"x", virtio() + bytes(19), largest):
        peer.end.machine.send(packet)
    if is_queued:
        assert eventually(lambda: peer.end.pump._queue.size > len(largest) - 1)
        held.arrived = 0
        peer.say(frames.frame(frames.PROBE, bytes(8)))  # it wakes up
    assert peer.hear(frames.PACKET) == largest
    peer.say(frames.frame(frames.END))
    assert peer.ended() == ""


def test_a_frame_that_is_cut_is_an_error_and_so_is_an_end_without_a_word() -> None:
    for said, error in (
        (frames.packet_header(len(PLAIN)) + PLAIN[:9], "cut in the middle of a frame"),
        (b"", "went away without a word"),
    ):
        peer = Peer()
        peer.say(said)
        os.close(peer.out)
        peer.out = os.open("/dev/null", os.O_WRONLY)
        assert error in peer.ended()


def test_garbage_before_the_opening_is_bounded() -> None:
    peer = Peer(nonce=NONCE, hello=False)
    with contextlib.suppress(BrokenPipeError):  # it may have had enough before the last
        for _ in range(70):
            peer.say(bytes(1000))
    assert "too much" in peer.ended()


def test_one_that_ends_before_it_begins_has_its_words_heard() -> None:
    source, out = os.pipe()
    back, sink = os.pipe()
    os.close(back)  # a write is a broken pipe, whenever it comes
    end = End(source, sink, nonce=NONCE)
    os.write(out, frames.refusal(NONCE, "python", "3.5"))
    os.close(out)
    end.start()
    assert isinstance(end.wait(), OpeningError)
    assert end.error is not None
    assert str(end.error) == "3.5"
    end.close()


def test_a_peer_that_reads_nothing_gets_no_more_than_the_window() -> None:
    """What waits longer than that is dropped, and memory stays what it was."""
    peer = Peer()
    for number in range(4000):
        peer.end.machine.send(virtio() + ip4(17, udp(bytes(1400), sport=number % 7)))
    assert eventually(lambda: not peer.end.pump.account().startswith("0 dropped"))
    assert peer.end.pump._queue.size <= 4 << 20
    assert peer.end.pump._window.sent <= (1 << 18) + (1 << 17)
    peer.say(frames.frame(frames.END))
    assert peer.ended() == ""


def test_what_is_sent_at_once_is_probed_in_pieces() -> None:
    """Else a window that goes with one probe is answered at once, and goes at once again."""
    peer = Peer()
    size = 9000
    sent = [virtio() + ip4(17, udp(bytes(size), sport=number)) for number in range(30)]
    assert eventually(lambda: peer.end.pump.peer is not None)
    held = peer.end.pump._window
    held.arrived = -held.limit  # nothing may go: it gathers in the queue
    for packet in sent:
        peer.end.machine.send(packet)
    assert eventually(lambda: peer.end.pump._queue.size > len(sent) * size)
    held.arrived = 0
    peer.say(frames.frame(frames.PROBE, bytes(8)))  # it wakes up
    decoder, gaps, came = Decoder(), [0], 0
    while came < len(sent):
        for kind, body in decoder.feed(os.readv(peer.back, [decoder.room()])):
            if kind == frames.PACKET:
                came += 1
                gaps[-1] += len(body)
            elif kind == frames.PROBE:
                gaps.append(0)
    assert max(gaps) <= held.limit // 8 + 2 * size
    peer.say(frames.frame(frames.END))
    assert peer.ended() == ""


def test_a_peer_that_asks_without_end_and_reads_nothing_is_ended() -> None:
    peer = Peer()
    os.set_blocking(peer.out, False)
    probe = frames.frame(frames.PROBE, bytes(8)) * 100
    deadline = time.monotonic() + 20
    while peer.end.error is None and time.monotonic() < deadline:
        try:
            peer.say(probe)
        except BlockingIOError:  # noqa: PERF203 (it is what is waited for)
            time.sleep(0.001)
        except BrokenPipeError:
            break
    assert "more probes" in peer.ended()


def test_a_probe_is_answered_with_its_token() -> None:
    peer = Peer()
    peer.say(frames.frame(frames.PROBE, b"12345678"))
    assert peer.hear(frames.ANSWER) == b"12345678"
    peer.say(frames.frame(frames.END))
    assert peer.ended() == ""

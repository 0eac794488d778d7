"""What the pump asks of the system: nothing in vain."""

from __future__ import annotations

import os

import pytest

from sshvpn.stream import frames
from tests.unit.stream.packets import ip4, udp, virtio
from tests.unit.stream.pumps import PLAIN, Peer, eventually


class Calls:
    """Counts what the pump asks of the system, which does it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        self.vain_reads: list[int] = []
        monkeypatch.setattr("sshvpn.stream.pump.os", self)

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def writev(self, descriptor: int, pieces: list[bytes]) -> int:
        self.writes += 1
        return os.writev(descriptor, pieces)

    def read(self, descriptor: int, count: int) -> bytes:
        try:
            return os.read(descriptor, count)
        except BlockingIOError:
            self.vain_reads.append(descriptor)
            raise

    def readv(self, descriptor: int, buffers: list[memoryview]) -> int:
        try:
            return os.readv(descriptor, buffers)
        except BlockingIOError:
            self.vain_reads.append(descriptor)
            raise


def test_who_has_no_room_is_not_asked_to_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the pump wakes up for; and what has gathered goes once there is room."""
    calls = Calls(monkeypatch)
    peer = Peer()
    pump = peer.end.pump
    assert eventually(lambda: pump.peer is not None)

    def is_full() -> bool:
        peer.end.machine.send(virtio() + ip4(17, udp(bytes(9000))))
        return pump._is_blocked

    assert eventually(is_full)
    before = calls.writes
    for number in range(50):
        peer.say(frames.frame(frames.PROBE, number.to_bytes(8, "big")))
        assert eventually(lambda: len(pump._controls) == number + 1)  # noqa: B023
    assert calls.writes == before
    answers = peer.bodies(frames.ANSWER)
    for number in range(50):
        assert next(answers) == number.to_bytes(8, "big")
    peer.say(frames.frame(frames.END))
    assert peer.ended() == ""


@pytest.mark.parametrize("is_queued", [False, True], ids=["past the queue", "through it"])
def test_a_few_packets_are_read_without_a_read_in_vain(
    monkeypatch: pytest.MonkeyPatch, *, is_queued: bool
) -> None:
    calls = Calls(monkeypatch)
    peer = Peer()
    pump = peer.end.pump
    assert eventually(lambda: pump.peer is not None)
    if is_queued:
        pump._window.arrived = -pump._window.limit
    came = peer.bodies(frames.PACKET)
    for _ in range(30):
        before = pump._queue.size
        peer.end.machine.send(PLAIN)
        if is_queued:
            assert eventually(lambda: pump._queue.size > before)  # noqa: B023
        else:
            assert next(came) == PLAIN
    assert calls.vain_reads == []
    peer.say(frames.frame(frames.END))
    assert peer.ended() == ""

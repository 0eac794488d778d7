"""A dump that the kernel interrupts, refuses, or cannot end; what it says is said by a fake one."""

from __future__ import annotations

import errno
import gc
import socket
import struct
from collections.abc import Iterator

import pytest

from sshvpn.plan.netlink import HEADER
from sshvpn.system.network import rtnetlink

LINK, DONE, ERROR, NEIGHBOUR = 16, 3, 2, 28
MULTI, INTERRUPTED = 0x2, 0x10


def message(kind: int, body: bytes, flags: int = MULTI) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body


def link(index: int, flags: int = MULTI) -> bytes:
    return message(LINK, struct.pack("=BxHiII", 0, 1, index, 1, 0), flags)


def done(status: int = 0, flags: int = MULTI) -> bytes:
    return message(DONE, struct.pack("=i", status), flags)


class Kernel:
    """A socket whose other end answers what it was told to, one datagram after the other."""

    def __init__(self, answers: Iterator[bytes]) -> None:
        self._answers = answers

    def __enter__(self) -> Kernel:  # noqa: PYI034 (Self is younger than Python 3.10)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, _: bytes) -> None:
        pass

    def recv(self, _: int) -> bytes:
        return next(self._answers)


def answer(monkeypatch: pytest.MonkeyPatch, *datagrams: bytes) -> Iterator[bytes]:
    """Let the kernel answer so; return what is still to come."""
    answers = iter(datagrams)
    monkeypatch.setattr(socket, "socket", lambda *_: Kernel(answers))
    return answers


def test_all_pieces_of_a_dump_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, link(1) + link(2), link(3), done())
    assert [found["index"] for found in rtnetlink.links()] == [1, 2, 3]


@pytest.mark.parametrize(
    "first",
    [
        (link(1, MULTI | INTERRUPTED), done()),
        (link(1), done(flags=MULTI | INTERRUPTED)),
        (done(flags=MULTI | INTERRUPTED),),
    ],
)
def test_one_that_was_interrupted_is_begun_again(
    monkeypatch: pytest.MonkeyPatch, first: tuple[bytes, ...]
) -> None:
    left = answer(monkeypatch, *first, link(1), link(2), done())
    assert [found["index"] for found in rtnetlink.links()] == [1, 2]
    assert not list(left)


def test_what_never_stands_still_is_told_as_it_was_last(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = MULTI | INTERRUPTED
    left = answer(monkeypatch, *(link(n) + done(flags=flags) for n in range(1, 9)))
    assert [found["index"] for found in rtnetlink.links()] == [5]
    assert len(list(left)) == 3


@pytest.mark.parametrize(
    "last",
    [
        done(-errno.EMSGSIZE),
        message(ERROR, struct.pack("=i", -errno.EMSGSIZE) + bytes(HEADER.size)),
    ],
)
def test_what_the_kernel_cannot_tell_is_an_error(
    monkeypatch: pytest.MonkeyPatch, last: bytes
) -> None:
    answer(monkeypatch, link(1), last)
    with pytest.raises(OSError, match="Message too long") as told:
        rtnetlink.links()
    assert told.value.errno == errno.EMSGSIZE


def test_neighbours_of_another_family_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [message(NEIGHBOUR, struct.pack("=BxxxiHBB", one, 5, 2, 0, 1)) for one in (2, 10)]
    answer(monkeypatch, *both, done())
    assert [found["family"] for found in rtnetlink.neighbours(socket.AF_INET)] == [2]


def test_nothing_of_a_dump_is_left_to_the_garbage_collector() -> None:
    for dump in (rtnetlink.routes, rtnetlink.addresses, rtnetlink.neighbours):
        dump(socket.AF_INET)
        gc.collect()
        gc.disable()
        try:
            dump(socket.AF_INET)
            assert gc.collect() == 0, dump
        finally:
            gc.enable()

"""Lines and descriptors over a unix socket, as the helper takes them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from sshvpn.privileged.lines import Lines

Pair = tuple[socket.socket, Lines]


@pytest.fixture
def pair() -> Iterator[Pair]:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield theirs, Lines(ours)


def test_a_line_comes_whole_however_it_was_sent(pair: Pair) -> None:
    peer, lines = pair
    peer.sendall(b"one\ntwo\nth")
    assert [lines.next(100), lines.next(100)] == [b"one\n", b"two\n"]
    peer.sendall(b"ree\n")
    assert lines.next(100) == b"three\n"
    peer.sendall(b"cut")
    peer.close()
    assert lines.next(100) == b"cut"
    assert lines.next(100) == b""


def test_a_line_without_end_is_given_up(pair: Pair) -> None:
    peer, lines = pair
    peer.sendall(b"x" * 1000)
    assert not lines.next(100).endswith(b"\n")


def test_a_descriptor_is_taken_once_or_closed(pair: Pair) -> None:
    peer, lines = pair
    reader, writer = os.pipe()
    socket.send_fds(peer, [b"a\n"], [writer])
    os.close(writer)
    lines.next(100)
    taken = lines.take()
    assert taken is not None
    assert lines.take() is None
    os.close(taken)
    assert os.read(reader, 1) == b"", "nobody else holds it"
    os.close(reader)


def test_many_descriptors_at_once_are_none_of_ours(pair: Pair) -> None:
    peer, lines = pair
    reader, writer = os.pipe()
    for _ in range(3):
        socket.send_fds(peer, [b"a"], [writer] * 3)
    os.close(writer)
    peer.sendall(b"\n")
    lines.next(100)
    assert lines.take() is None
    lines.forget()
    assert os.read(reader, 1) == b""
    os.close(reader)

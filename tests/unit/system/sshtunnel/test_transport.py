"""What a channel receives is read as it came, whoever is faster."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, strategies as st
from paramiko.buffered_pipe import PipeTimeout

from sshvpn.system.sshtunnel.transport import Pipe


@given(pieces=st.lists(st.binary(max_size=20)), most=st.integers(min_value=1, max_value=30))
def test_all_that_was_fed_is_read_in_order(pieces: list[bytes], most: int) -> None:
    pipe = Pipe()
    for piece in pieces:
        pipe.feed(piece)
    assert len(pipe) == len(b"".join(pieces))
    pipe.close()
    found = []
    while data := pipe.read(most):
        assert len(data) <= most
        found.append(data)
    assert b"".join(found) == b"".join(pieces)
    assert len(pipe) == 0


def test_a_reader_waits_for_data_and_for_the_end() -> None:
    pipe = Pipe()
    found: list[bytes] = []

    def read() -> None:
        while data := pipe.read(10):
            found.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    pipe.feed(b"one")
    pipe.close()
    reader.join(10)
    assert not reader.is_alive()
    assert found == [b"one"]


def test_a_reader_that_may_not_wait_is_told() -> None:
    pipe = Pipe()
    with pytest.raises(PipeTimeout):
        pipe.read(1, timeout=0.0)
    pipe.feed(b"abc")
    assert pipe.read_ready()
    assert pipe.empty() == b"abc"
    assert not pipe.read_ready()

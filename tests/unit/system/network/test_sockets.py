"""The transport of a process, found and read from outside."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sshvpn.system.network.sockets import OwnSocket, TransportSocket

CHILD = """
import socket, sys
transport = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
forward = socket.create_server(("127.0.0.1", 0))
print(forward.getsockname()[1], flush=True)
client, _ = forward.accept()
print("accepted", flush=True)
while data := transport.recv(65536):
    transport.sendall(data)
"""
WRAPPED = """
import subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]])
"""


class Session:
    """A child process in the place of ssh, and the server's end of its connection."""

    def __init__(self, *before: str) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        words = [sys.executable, "-c", *before, CHILD, str(self.server.getsockname()[1])]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.carrier, _ = self.server.accept()
        self.carrier.settimeout(10)
        port = int(self.process.stdout.readline())
        self.client = socket.create_connection(("127.0.0.1", port), timeout=10)
        assert self.process.stdout.readline() == "accepted\n"

    def exchange(self, size: int) -> None:
        """Send ``size`` bytes to the child, and get them back."""
        self.carrier.sendall(bytes(size))
        while size:
            size -= len(self.carrier.recv(size))

    def close(self) -> None:
        self.client.close()
        self.carrier.close()
        self.server.close()
        self.process.communicate(timeout=10)


@pytest.fixture
def session() -> Iterator[Session]:
    with closing(Session()) as made:
        yield made


def found(pid: int) -> TransportSocket:
    transport = TransportSocket.of_process(pid)
    assert transport is not None
    return transport


def test_bytes_are_counted_in_both_directions(session: Session) -> None:
    with closing(found(session.process.pid)) as transport:
        before = transport.counters()
        session.exchange(100_000)
        after = transport.counters()
        assert before is not None
        assert after is not None
        assert after.rx_bytes - before.rx_bytes == 100_000
        # The last segment may not be acknowledged yet.
        assert 0 < after.tx_bytes - before.tx_bytes <= 100_000


def test_a_client_of_a_forward_is_not_taken_for_the_transport(session: Session) -> None:
    session.client.sendall(bytes(5000))
    session.exchange(10)
    with closing(found(session.process.pid)) as transport:
        counters = transport.counters()
        assert counters is not None
        assert counters.rx_bytes == 10


def test_the_transport_of_a_proxy_below_is_found() -> None:
    with (
        closing(Session(WRAPPED)) as session,
        closing(found(session.process.pid)) as transport,
    ):
        session.exchange(1000)
        counters = transport.counters()
        assert counters is not None
        assert counters.rx_bytes == 1000


def test_what_we_send_waits_for_nobody_once_that_is_said(session: Session) -> None:
    with closing(found(session.process.pid)) as transport:
        assert no_delay(transport) == 0
        transport.send_at_once()
        transport.send_at_once()
        assert no_delay(transport) == 1
        session.exchange(1000)
        session.process.kill()
        session.process.wait()
        transport.send_at_once()  # there is nobody any more
        transport.acknowledge()


def test_a_connection_is_told_from_that_of_a_proxy_below() -> None:
    with closing(Session()) as one, closing(Session(WRAPPED)) as other:
        for session, is_own in ((one, True), (other, False)):
            with closing(found(session.process.pid)) as transport:
                assert transport.is_of(session.process.pid) is is_own


def no_delay(transport: TransportSocket) -> int:
    with transport.borrowed() as sock:
        assert sock is not None
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_was_read_is_acknowledged_when_that_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        carrier, _ = listener.accept()
        with carrier, closing(OwnSocket(sock)) as transport:
            for _ in range(20):  # a conversation: each waits for the other's word
                carrier.sendall(b"word")
                sock.sendall(sock.recv(4))
                carrier.recv(4)
            was_at_once = []
            for _ in range(20):
                carrier.sendall(b"word")
                said = sock.recv(4)
                was_waiting = unacknowledged(carrier)
                transport.acknowledge()
                was_at_once.append(was_waiting and not unacknowledged(carrier))
                sock.sendall(said)
                carrier.recv(4)
            # Not each time: a machine that was busy for 40 ms has acknowledged it, or does later.
            assert any(was_at_once)


def unacknowledged(sock: socket.socket) -> int:
    """Return how many segments nobody has acknowledged (tcpi_unacked of linux/tcp.h)."""
    return int(
        struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)[0]
    )


def test_watching_does_not_keep_the_connection_of_a_dead_process_open(session: Session) -> None:
    with closing(found(session.process.pid)) as transport:
        session.process.kill()
        session.process.wait()
        with suppress(ConnectionResetError):
            assert session.carrier.recv(1) == b""
        assert transport.counters() is None


def test_a_process_without_a_connection_has_none_and_nothing_is_left_open() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert TransportSocket.of_process(process.pid) is None
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert process.stdin is not None
        process.stdin.close()


def test_close_may_be_called_twice(session: Session) -> None:
    transport = found(session.process.pid)
    transport.close()
    transport.close()
    assert transport.counters() is None


def test_a_socket_of_our_own_tells_the_same_until_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        carrier, _ = listener.accept()
        with carrier, closing(OwnSocket(sock)) as transport:
            carrier.sendall(bytes(1000))
            assert len(sock.recv(1000, socket.MSG_WAITALL)) == 1000
            counters = transport.counters()
            assert counters is not None
            assert counters.rx_bytes == 1000
            assert transport.peer() == "127.0.0.1"
            assert transport.silence_s() is not None
            with transport.borrowed() as lent:
                transport.close()
                assert lent is not None
                assert lent.getpeername() == listener.getsockname(), "for as long as it is lent"
            transport.close()
            assert (transport.counters(), transport.peer()) == (None, None)
            assert carrier.recv(1) == b"", "ours was the last"


def test_where_no_descriptor_is_left_nothing_is_told_of_our_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: socket.socket) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    left, right = socket.socketpair()
    with right, closing(OwnSocket(left)) as transport:
        monkeypatch.setattr(socket.socket, "dup", refuse)
        assert transport.counters() is None
        assert transport.peer() is None

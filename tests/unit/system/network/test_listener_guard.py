"""What a guard does on this machine alone; between networks: tests/contract."""

from __future__ import annotations

import os
import socket

import pytest

from sshvpn.model import TcpEndpoint
from sshvpn.system.network.listener_guard import guard, guard_process_listener


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_this_machine_reaches_a_guarded_listener(listener: socket.socket) -> None:
    with listener:
        guard(listener, "lo")
        with (
            socket.create_connection(listener.getsockname(), timeout=10) as client,
            listener.accept()[0] as server,
        ):
            client.sendall(b"ping")
            assert server.recv(4) == b"ping"


def test_a_second_time_changes_nothing(listener: socket.socket) -> None:
    with listener:
        guard(listener, "lo")
        guard(listener, "lo")


def test_an_adapter_that_is_not_there_is_an_error(listener: socket.socket) -> None:
    with listener, pytest.raises(OSError, match="No such device"):
        guard(listener, "sshvpn-none")


def test_the_listener_of_a_process_is_found_by_where_it_listens(listener: socket.socket) -> None:
    with listener:
        port = listener.getsockname()[1]
        assert guard_process_listener(os.getpid(), TcpEndpoint("127.0.0.1", port), "lo")
        assert not guard_process_listener(os.getpid(), TcpEndpoint("127.0.0.2", port), "lo")
        assert not guard_process_listener(os.getpid(), TcpEndpoint("127.0.0.1", 1), "lo")
        assert not guard_process_listener(os.getpid(), TcpEndpoint("localhost", port), "lo")
        assert not guard_process_listener(
            os.getpid(), TcpEndpoint("127.0.0.1", port), "sshvpn-none"
        )


def test_a_connection_is_not_taken_for_the_listener_that_accepted_it(
    listener: socket.socket,
) -> None:
    where = listener.getsockname()
    with (
        socket.create_connection(where, timeout=10),
        listener.accept()[0],
    ):
        listener.close()
        assert not guard_process_listener(os.getpid(), TcpEndpoint(*where), "lo")


def test_a_process_that_is_gone_has_no_listener() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert not guard_process_listener(child, TcpEndpoint("127.0.0.1", 80), "lo")

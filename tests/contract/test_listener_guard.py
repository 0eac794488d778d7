"""A guarded listener between two networks.

::

    neighbour 10.1.0.9 ── lan0 10.1.0.1 [gateway] wan0 10.2.0.1 ── stranger 10.2.0.9
              fd01::9          fd01::1                fd02::1               fd02::9

The stranger routes 10.1.0.0/24 and fd01::/64 by the gateway.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from sshvpn.model import TcpEndpoint
from sshvpn.system.network.listener_guard import guard, guard_process_listener
from tests.contract.netns import Namespace

pytestmark = pytest.mark.lab

ADDRESSES = ["10.1.0.1", "fd01::1"]
LISTENER = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0), family=int(sys.argv[2]))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class Office:
    gateway: Namespace
    neighbour: Namespace
    stranger: Namespace


@pytest.fixture
def office(namespace: Callable[[], Namespace]) -> Office:
    gateway, neighbour, stranger = namespace(), namespace(), namespace()
    gateway.link_to(neighbour, "lan0", "eth0")
    gateway.link_to(stranger, "wan0", "eth0")
    gateway.ip("addr add 10.1.0.1/24 dev lan0", "addr add fd01::1/64 dev lan0 nodad")
    gateway.ip("addr add 10.2.0.1/24 dev wan0", "addr add fd02::1/64 dev wan0 nodad")
    neighbour.ip("addr add 10.1.0.9/24 dev eth0", "addr add fd01::9/64 dev eth0 nodad")
    stranger.ip("addr add 10.2.0.9/24 dev eth0", "addr add fd02::9/64 dev eth0 nodad")
    stranger.ip("route add default via 10.2.0.1", "route add default via fd02::1")
    return Office(gateway, neighbour, stranger)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listener_at(address: str, interface: str | None) -> socket.socket:
    sock = socket.socket(family_of(address), socket.SOCK_STREAM)
    sock.bind((address, 0))
    if interface is not None:
        guard(sock, interface)
    sock.listen()
    return sock


def can_connect(address: str, port: int) -> bool:
    """Whether it can; False when it is refused. No answer is an error."""
    try:
        socket.create_connection((address, port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_a_guard_the_other_network_reaches_the_address(
    office: Office, address: str
) -> None:
    with office.gateway.run(listener_at, address, None) as listener:
        assert office.stranger.run(can_connect, address, listener.getsockname()[1])


@pytest.mark.parametrize("address", ADDRESSES)
def test_only_the_right_network_and_this_machine_reach_a_guarded_listener(
    office: Office, address: str
) -> None:
    with office.gateway.run(listener_at, address, "lan0") as listener:
        port = listener.getsockname()[1]
        assert office.neighbour.run(can_connect, address, port)
        assert office.gateway.run(can_connect, address, port)
        assert not office.stranger.run(can_connect, address, port)


@pytest.mark.parametrize("address", ADDRESSES)
def test_traffic_flows_over_a_connection_that_a_guarded_listener_accepted(
    office: Office, address: str
) -> None:
    payload = bytes(range(256)) * 4096
    with office.gateway.run(listener_at, address, "lan0") as listener:
        where = listener.getsockname()[:2]
        with office.neighbour.run(socket.create_connection, where, 10) as client:
            server, _ = listener.accept()
            with server:
                server.settimeout(10)
                for sender, receiver in ((client, server), (server, client)):
                    assert exchanged(sender, receiver, payload) == payload


def exchanged(sender: socket.socket, receiver: socket.socket, payload: bytes) -> bytes:
    received = bytearray()
    sending = threading.Thread(target=sender.sendall, args=(payload,))
    sending.start()
    while len(received) < len(payload):
        received += receiver.recv(65536)
    sending.join()
    return bytes(received)


@pytest.fixture(params=ADDRESSES)
def child(request: pytest.FixtureRequest, office: Office) -> Iterator[tuple[int, TcpEndpoint]]:
    """Run another process on the gateway that listens, and return where."""
    address: str = request.param
    words = [sys.executable, "-c", LISTENER, address, str(int(family_of(address)))]
    process = office.gateway.run(
        lambda: subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.pid, TcpEndpoint(address, int(process.stdout.readline()))
        process.stdin.close()


def test_the_listener_of_a_child_process_is_guarded(
    office: Office, child: tuple[int, TcpEndpoint]
) -> None:
    pid, endpoint = child
    assert office.stranger.run(can_connect, endpoint.host, endpoint.port)

    assert office.gateway.run(guard_process_listener, pid, endpoint, "lan0")

    assert office.neighbour.run(can_connect, endpoint.host, endpoint.port)
    assert office.gateway.run(can_connect, endpoint.host, endpoint.port)
    assert not office.stranger.run(can_connect, endpoint.host, endpoint.port)

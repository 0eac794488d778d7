"""What the kernel shows of a TCP connection while nobody acknowledges, and afterwards.

::

    client ── lo (dropped by nft, and let through again) ── server
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from sshvpn.model import TcpCounters
from sshvpn.system.network.sockets import counters_of
from tests.contract.netns import Namespace
from tests.lab import wait_until

pytestmark = pytest.mark.lab

DROPPED = """table inet dropped {
  chain in { type filter hook input priority 0; tcp dport 7000 drop; tcp sport 7000 drop; }
}"""


@pytest.fixture
def machine(namespace: Callable[[], Namespace]) -> Namespace:
    return namespace()


@pytest.fixture
def ends(machine: Namespace) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a connection that has spoken both ways."""

    def connect() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 7000)) as listener:
            client = socket.create_connection(("127.0.0.1", 7000))
            return client, listener.accept()[0]

    client, server = machine.run(connect)
    with client, server:
        for one, other in ((client, server), (server, client)):
            one.sendall(b"x" * 100)
            assert other.recv(100)
        yield client, server


def nft(machine: Namespace, text: str) -> None:
    machine.run(lambda: subprocess.run(["nft", text], check=True))


@pytest.fixture(params=["asked", "by what was sent last"])
def told(
    machine: Namespace, request: pytest.FixtureRequest
) -> Callable[[socket.socket], TcpCounters]:
    """Return what tells the counters: in the connection's namespace, or where nobody knows it."""
    if request.param == "asked":
        return lambda sock: machine.run(counters_of, sock)
    return counters_of


def test_who_is_acknowledged_repeats_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    before = counters_of(client)
    client.sendall(b"x" * 50)
    assert server.recv(100)
    wait_until(lambda: counters_of(client).tx_bytes == before.tx_bytes + 50)
    seen = counters_of(client)
    assert (seen.rx_bytes, seen.repeats_in_s, seen.unanswered_s) == (100, 0.0, 0.0)
    assert 0 < (seen.rtt_s or 0) < 1


def test_repeats_in_vain_are_ever_further_away_until_it_is_heard_again(
    machine: Namespace,
    ends: tuple[socket.socket, socket.socket],
    told: Callable[[socket.socket], TcpCounters],
) -> None:
    client, server = ends
    before = told(client)
    nft(machine, DROPPED)
    client.sendall(b"lost")
    sent_at = time.monotonic()
    seen: list[TcpCounters] = []

    def is_far() -> bool:
        seen.append(told(client))
        return seen[-1].repeats_in_s > 1.0

    wait_until(is_far, 20, every=0.02)
    took = time.monotonic() - sent_at
    far = seen[-1]
    assert seen[0].repeats_in_s == 0.0, "it has not repeated itself yet"
    assert far.repeats_in_s < took * 3, "each takes twice as long as the one before"
    assert took - 0.1 <= far.silent_s <= time.monotonic() - sent_at + 2
    # What goes before the first wait is not known: the probe of a lost tail (RFC 8985, 7.2).
    assert took - 0.4 <= far.unanswered_s <= time.monotonic() - sent_at
    assert far.tx_bytes == before.tx_bytes
    # It is the time that is left, not that of the whole wait, which only grows.
    wait_until(lambda: told(client).repeats_in_s <= far.repeats_in_s - 0.25, every=0.02)
    nft(machine, "delete table inet dropped")
    assert server.recv(100) == b"lost"
    wait_until(lambda: told(client).repeats_in_s == 0.0)
    assert told(client).unanswered_s == 0.0
    assert told(client).tx_bytes == before.tx_bytes + 4


@pytest.mark.parametrize("family", ["4", "6"])
def test_what_cannot_leave_this_machine_is_repeated_when_the_kernel_says(
    namespace: Callable[[], Namespace], family: str
) -> None:
    """It waits for its neighbour's address, and TCP does not send it a second time meanwhile."""
    here, there = namespace(), namespace()
    here.link_to(there, "here", "there")
    own, other = ("10.0.0.1", "10.0.0.2") if family == "4" else ("fd00::1", "fd00::2")
    length = "24" if family == "4" else "64 nodad"
    here.ip(f"address add {own}/{length} dev here")
    there.ip(f"address add {other}/{length} dev there")
    kind = socket.AF_INET if family == "4" else socket.AF_INET6
    with there.run(lambda: socket.create_server((other, 7000), family=kind)) as listener:
        client = here.run(lambda: socket.create_connection((other, 7000), timeout=10))
        server, _ = listener.accept()
    with client, server:
        there.ip("link set there down")
        here.ip("neighbour flush dev here")
        client.sendall(b"held")
        seen: list[TcpCounters] = []

        def look() -> TcpCounters:
            seen.append(here.run(counters_of, client))
            return seen[-1]

        wait_until(lambda: look().unanswered_s > 1 and seen[-1].repeats_in_s > 0.3, 20, every=0.02)
        told, told_at = seen[-1].repeats_in_s, time.monotonic()
        wait_until(lambda: look().repeats_in_s > seen[-2].repeats_in_s, 20, every=0.02)
        assert told - 0.1 <= time.monotonic() - told_at <= told + 0.3
        assert seen[-1].unanswered_s > 1.2

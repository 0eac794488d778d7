"""What `sshvpn up` opens, and that it opens nothing else: scans from every side, before and after.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
:7100       :7000 all            :22, :8080 all          :8000 all
            :7001 localhost      127.0.0.1:8888, :7002
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.e2e.vpn import SHARED, Vpn
from tests.lab import Lab, LabMachine

pytestmark = pytest.mark.lab

APPEARANCE: Final = "192.168.77.50"
PORTS: Final = (22, 53, 80, 7000, 7001, 7002, 7100, 8000, 8080, 8888)

LAN: Final = ("192.168.77.10", "fd77::10")
GATEWAY: Final = ("192.168.77.1", "fd77::1", "203.0.113.10", "2001:db8:113::10")
SERVER: Final = ("203.0.113.20", "2001:db8:113::20", "10.20.0.1", "fd20::1")
INNER: Final = ("10.20.0.10", "fd20::10")

_SCAN: Final = """
import errno, itertools, json, select, socket, sys, time
addresses, ports, wait = json.loads(sys.argv[1])
pending, found = {}, []
poll = select.poll()
for address, port in itertools.product(addresses, ports):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setblocking(False)
    code = sock.connect_ex((address, port))
    if code in (0, errno.EINPROGRESS):
        pending[sock.fileno()] = sock, address, port
        poll.register(sock, select.POLLOUT)
deadline = time.monotonic() + wait
while pending and (left := deadline - time.monotonic()) > 0:
    for number, _ in poll.poll(left * 1000):
        sock, address, port = pending.pop(number)
        poll.unregister(sock)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            found.append([address, port])
print(json.dumps(found))
"""
_WAIT_S: Final = 0.5

Places = set[tuple[str, int]]


def scan(machine: LabMachine, addresses: Sequence[str]) -> Places:
    """Return where MACHINE can connect to, among ADDRESSES and PORTS."""
    words = json.dumps([list(addresses), PORTS, _WAIT_S])
    found = json.loads(machine.python(_SCAN, words))
    return {(address, port) for address, port in found}


def at(addresses: Sequence[str], *ports: int) -> Places:
    """Return each of PORTS at each of ADDRESSES."""
    return set(itertools.product(addresses, ports))


@pytest.fixture
def vpn(lab: Lab, transport: str) -> Vpn:
    """Return an office with more services than are shared."""
    vpn = Vpn(lab, transport=transport)
    lab.gateway.http_server(7000, "::")
    lab.gateway.http_server(7001)
    lab.server.http_server(7002)
    lab.lan.http_server(7100, "::")
    return vpn


def ends(vpn: Vpn) -> tuple[list[str], list[str]]:
    """Return the addresses of the tunnel: the gateway's, the server's."""
    record = vpn.record()
    local, remote = record["local_addresses"], record["remote_addresses"]
    return [c.partition("/")[0] for c in local], [c.partition("/")[0] for c in remote]


@pytest.mark.parametrize("nat", ["--nat", "--no-nat"])
def test_the_lan_reaches_what_is_shared_and_nothing_else(vpn: Vpn, nat: str) -> None:
    lan = vpn.lab.lan
    everywhere = [*GATEWAY, *SERVER, *INNER, APPEARANCE]
    before = scan(lan, everywhere)
    assert before == at(GATEWAY, 7000)
    vpn.up(*SHARED, "--lan-address", APPEARANCE, nat)
    local, remote = ends(vpn)
    shared = {
        ("192.168.77.1", 8888),
        *at(SERVER[2:], 22, 8080),
        *at(INNER, 8000),
        *at([*remote, APPEARANCE], 22, 8080),
        *at([remote[0], APPEARANCE], 8888),
    }
    # A proxy's first answer may take 0.8 s (proxy_delay, arp(7)), longer than a scan waits.
    assert vpn.unreachable({f"http://{APPEARANCE}:8080/": "server"}, timeout=5) == []
    assert scan(lan, [*everywhere, *local, *remote]) == before | shared
    vpn.down()
    assert scan(lan, [*everywhere, *local, *remote]) == before


@contextlib.contextmanager
def routed(machine: LabMachine, *routes: str) -> Iterator[None]:
    """Give MACHINE routes that go before all others, in the words of ip-route(8)."""
    for route in routes:
        machine.ip("route", "add", *route.split(), "metric", "1")
    try:
        yield
    finally:
        for route in routes:
            machine.ip("route", "delete", *route.split(), "metric", "1")


INTO_THE_TUNNEL: Final = ("192.168.77.0/24 dev", "fd77::/64 dev", "203.0.113.10 dev")
BY_THE_WAN: Final = ("192.168.77.0/24 via 203.0.113.10", "fd77::/64 via 2001:db8:113::10")


@pytest.mark.parametrize("nat", ["--nat", "--no-nat"])
def test_nobody_at_the_other_end_gets_in(vpn: Vpn, nat: str) -> None:
    """Not even with routes of their own into the tunnel, or to the gateway's outer address."""
    lab = vpn.lab
    targets = [*LAN, *GATEWAY, APPEARANCE]
    servers = [*SERVER]

    def found() -> tuple[Places, Places]:
        with ThreadPoolExecutor() as pool:
            server = pool.submit(scan, lab.server, targets)
            inner = pool.submit(scan, lab.inner, [*targets, *servers])
        return server.result(), inner.result()

    before = found()
    inners = at(SERVER, 22, 8080)
    assert before == (at(GATEWAY[2:], 7000), inners)
    with routed(lab.server, *BY_THE_WAN):
        before_by_the_wan = found()
    vpn.up(*SHARED, "--lan-address", APPEARANCE, nat)
    assert vpn.unreachable(vpn.everything()) == []
    local, remote = ends(vpn)
    targets += local
    servers += remote
    # By its new addresses the server is what it is by all others; 8888 is for who comes by the
    # tunnel.
    inners |= at(remote, 22, 8080)
    assert found() == (before[0], inners)
    with routed(lab.server, *(f"{one} {vpn.far_device()}" for one in INTO_THE_TUNNEL)):
        assert found() == (at(GATEWAY[3:], 7000), inners)
    with routed(lab.server, *BY_THE_WAN):
        places, others = found()
        assert places <= before_by_the_wan[0]
        assert others == inners
    vpn.down()
    assert found() == before


def test_a_neighbour_in_the_wan_gets_in_at_neither_end(vpn: Vpn) -> None:
    lab = vpn.lab
    targets = [*LAN, *GATEWAY, *SERVER, *INNER, APPEARANCE]
    to_server, to_gateway = (
        [f"10.20.0.0/24 via {four}", f"fd20::/64 via {six}"]
        for four, six in (SERVER[:2], GATEWAY[2:])
    )

    def found(*routes: str) -> list[Places]:
        places = []
        for inner in (to_server, to_gateway):
            with routed(lab.internet, *BY_THE_WAN, *inner, *routes):
                places.append(scan(lab.internet, targets))
        return places

    before = found()
    vpn.up(*SHARED, "--lan-address", APPEARANCE)
    local, remote = ends(vpn)
    targets += [*local, *remote]
    own = [f"{address} via {GATEWAY[2 + (':' in address)]}" for address in (*local, *remote)]
    assert found(*own) == before
    vpn.down()

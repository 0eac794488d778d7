"""What `sshvpn up` opens, and that it opens nothing else: scans from every side, before and after.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
:7100       :7000 all            :22, :8080 all          :8000 all
            :7001 localhost      127.0.0.1:8888, :7002

Each of these ports but 22 has a web page, and answers datagrams.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.e2e.scans import TCP, Places, at, scan, scan_every_port, scan_past
from tests.e2e.vpn import SHARED, Vpn, counted
from tests.lab import Lab, LabMachine

pytestmark = pytest.mark.lab

APPEARANCE: Final = "192.168.77.50"

LAN: Final = ("192.168.77.10", "fd77::10")
GATEWAY: Final = ("192.168.77.1", "fd77::1", "203.0.113.10", "2001:db8:113::10")
SERVER: Final = ("203.0.113.20", "2001:db8:113::20", "10.20.0.1", "fd20::1")
INNER: Final = ("10.20.0.10", "fd20::10")


@pytest.fixture
def vpn(lab: Lab, transport: str) -> Vpn:
    """Return an office with more services than are shared."""
    vpn = Vpn(lab, transport=transport)
    lab.gateway.http_server(7000, "::")
    lab.gateway.http_server(7001)
    lab.server.http_server(7002)
    lab.lan.http_server(7100, "::")
    everywhere = {7000: lab.gateway, 7100: lab.lan, 8000: lab.inner, 8080: lab.server}
    hidden = {7001: lab.gateway, 7002: lab.server, 8888: lab.server}
    for ports, address in ((everywhere, "::"), (hidden, "127.0.0.1")):
        for port, machine in ports.items():
            machine.udp_server(port, address)
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
        *at(GATEWAY[:1], 8888, by=[TCP]),
        *at(INNER, 8000),
        *at([*SERVER[2:], *remote, APPEARANCE], 8080),
        *at([*SERVER[2:], *remote, APPEARANCE], 22, by=[TCP]),
        *at([remote[0], APPEARANCE], 8888, by=[TCP]),
    }
    # Who has asked for the address in vain, as the scan before, does so for three seconds; and a
    # proxy's first answer may take 0.8 s (proxy_delay, arp(7)), longer than a scan waits.
    vpn.wait_reachable({f"http://{APPEARANCE}:8080/": "server"}, timeout=5)
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


@pytest.mark.timed
def test_no_port_at_all_is_open_that_was_not_meant(lab: Lab) -> None:
    """Each of the 65535, from the LAN and from the other end."""
    vpn = Vpn(lab)
    lan, inner, server = lab.lan, lab.inner, lab.server
    ours, theirs = [*GATEWAY[:2]], [*SERVER[2:]]
    before = scan_every_port(lan, ours), scan_every_port(inner, theirs)
    vpn.up("server", "--lan", "--publish", "8888", "--route", "10.20.0.0/24", "--no-announce")
    _, remote = ends(vpn)
    servers = at(remote, 22, 8080, by=[TCP])
    opened = servers | at([ours[0], remote[0]], 8888, by=[TCP])
    assert scan_every_port(lan, [*ours, *remote]) == before[0] | opened
    assert scan_every_port(inner, [*theirs, *remote]) == before[1] | servers
    device = vpn.far_device()
    with routed(server, *(f"{one} {device}" for one in INTO_THE_TUNNEL)):
        for address in (LAN[0], GATEWAY[1]):
            assert scan_past(lab.gateway, "sshvpn0", server, address) == set()
            assert scan_past(server, "inner0", inner, address) == set()
    vpn.down()
    assert scan_every_port(lan, ours) == before[0]


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
    inners = at(SERVER, 8080) | at(SERVER, 22, by=[TCP])
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
    inners |= at(remote, 8080) | at(remote, 22, by=[TCP])
    assert found() == (before[0], inners)
    # A datagram does its harm without an answer.
    to_lan = [f"{kind} daddr {one}" for kind, one in zip(("ip", "ip6"), LAN, strict=True)]
    with (
        routed(lab.server, *(f"{one} {vpn.far_device()}" for one in INTO_THE_TUNNEL)),
        counted(
            lab.lan, "prerouting", *(f"meta l4proto {{ tcp, udp }} {to}" for to in to_lan)
        ) as came,
    ):
        assert found() == (at(GATEWAY[3:], 7000), inners)
    assert came == [0, 0]
    with routed(lab.server, *BY_THE_WAN):
        places, others = found()
        assert places <= before_by_the_wan[0]
        assert others == inners
    vpn.down()
    assert found() == before


_LISTEN: Final = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("203.0.113.10", 4000))
    sock.connect(("203.0.113.1", 53))
    sock.send(b"question")
    sock.settimeout(20)
    try:
        sock.recv(100)
    except ConnectionRefusedError:  # nobody listens there
        print("asked", flush=True)
    print(sock.recv(100).decode(), flush=True)
"""
_FORGE: Final = """
import ipaddress, socket, struct, sys
device, source = sys.argv[1:]
data = b"forged" if source == "203.0.113.1" else b"honest"
udp = struct.pack("!4H", 53, 4000, 8 + len(data), 0) + data
ends = [ipaddress.ip_address(one).packed for one in (source, "203.0.113.10")]
header = struct.pack("!2B3H2BH4s4s", 69, 0, 20 + len(udp), 1, 0, 64, 17, 0, *ends)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    sock.sendto(header + udp, ("203.0.113.10", 0))
"""


@pytest.mark.parametrize("route", ["10.20.0.0/24", None])
def test_nobody_at_the_other_end_answers_for_others(vpn: Vpn, route: str | None) -> None:
    """Not even what this machine has just asked of somebody else, by another adapter."""
    lab = vpn.lab
    vpn.up("server", "--no-lan", *(("--route", route) if route else ()))
    asking = lab.gateway.popen([sys.executable, "-u", "-c", _LISTEN], stdout=subprocess.PIPE)
    assert asking.stdout is not None
    assert asking.stdout.readline() == "asked\n"
    with counted(lab.gateway, "prerouting", 'iifname "sshvpn0" udp sport 53') as came:
        forge = [sys.executable, "-c", _FORGE, vpn.far_device(), "203.0.113.1"]
        lab.server.run(forge, user="root")
        lab.gateway.run(["ping", "-c1", "-W2", ends(vpn)[1][0]])  # its answer comes after that
    assert came == [1]
    # What the one who was asked says comes through.
    answer = [sys.executable, "-c", _FORGE.replace("forged", "honest"), "wan", "203.0.113.1"]
    lab.internet.run(answer, user="root")
    assert asking.communicate(timeout=10)[0] == "honest\n"
    vpn.down()


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

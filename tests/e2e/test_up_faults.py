"""`sshvpn up` when something goes wrong: packets that kill OpenSSH's tun, and a link that goes.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
                        cut             :7 echo on localhost   :7 echo, UDP :7007
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.office import Office, Talk
from tests.e2e.vpn import DATAGRAMS, INNER_HOSTS, SHARED, Vpn, answers_udp, counted, masters
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.process import read_line

pytestmark = pytest.mark.lab

ECHO: Final = 7
EMPTY: Final = 20
"""The length of an IPv4 header: a packet without payload."""

AT_ONCE_S: Final = 1.5
"""An answer that comes before connect(2) has let go of its socket is told at the next SYN, a second
later (tcp_v4_err of Linux); in the laboratory that may be."""
WHOLE: Final = 17_000
"""More than OpenSSH's tun carries: 16380."""
NOTICED_WITHIN_S: Final = 12.0

# The sender's own kernel may tell it that the packet was dropped.
_SEND_EMPTY: Final = """
import contextlib, socket, sys
source, target = map(socket.inet_aton, sys.argv[1:3])
header = bytes([0x45, 0, 0, 20, 0, 1, 0, 0, 64, 253, 0, 0]) + source + target
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
    for _ in range(3):
        with contextlib.suppress(PermissionError):
            sock.sendto(header, (sys.argv[2], 0))
"""

# IP_MTU_DISCOVER, IP_PMTUDISC_PROBE: do not fragment, whatever the kernel knows of the path.
_SEND_WHOLE: Final = """
import contextlib, socket, sys
host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
six = ":" in host
with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(*((socket.IPPROTO_IPV6, 23, 3) if six else (socket.IPPROTO_IP, 10, 3)))
    for _ in range(3):
        with contextlib.suppress(OSError):
            sock.sendto(bytes(size), (host, port))
"""

# As the echo service, but before each answer it sends the client three that must stay whole.
_ANSWER_WHOLE: Final = """
import contextlib, socket, sys
port, size = map(int, sys.argv[1:])
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.IPPROTO_IPV6, 23, 3)
    sock.setsockopt(socket.IPPROTO_IP, 10, 3)
    sock.bind(("::", port))
    print("ready", flush=True)
    while True:
        data, client = sock.recvfrom(100)
        for _ in range(3):
            with contextlib.suppress(OSError):
                sock.sendto(bytes(size), client)
        sock.sendto(data, client)
"""

_HOW_REFUSED: Final = """
import errno, socket, sys, time
started = time.monotonic()
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
    name = "connected"
except OSError as error:
    name = errno.errorcode.get(error.errno, "timeout")
print(name, time.monotonic() - started)
"""


@pytest.fixture(scope="module")
def standing(transport: str) -> Iterator[Vpn]:
    """Return a tunnel that is up, with echo services at its other end."""
    with Lab() as lab:
        vpn = Vpn(lab, transport=transport)
        lab.server.tcp_server(ECHO)
        lab.inner.tcp_server(ECHO, "::")
        lab.inner.udp_server(DATAGRAMS, "::")
        vpn.up(*SHARED, "--publish", str(ECHO))
        yield vpn
        vpn.down()
        lab.check()


# -- packets that kill OpenSSH's tun channel ---------------------------------------------------


@contextlib.contextmanager
def one_connection(vpn: Vpn) -> Iterator[None]:
    """Assert that all goes on over the connection that stands before the block."""
    before = ssh_pids(vpn)
    reconnects = vpn.record()["reconnects"]
    yield
    assert vpn.unreachable(vpn.everything()) == []
    after = vpn.record()
    assert (after["state"], after["reconnects"]) == ("running", reconnects)
    assert ssh_pids(vpn) == before


def ssh_pids(vpn: Vpn) -> list[int]:
    """Return the gateway's ssh clients that carry tunnels, of which there are some."""
    found = masters(vpn.lab.gateway)
    assert found
    return found


def tunnel_ends(vpn: Vpn) -> tuple[str, str]:
    """Return the IPv4 addresses of the gateway's and of the server's end."""
    record = vpn.record()
    return record["local_address"].split("/")[0], record["remote_address"].split("/")[0]


def test_packets_without_payload_from_the_lan_kill_nothing(standing: Vpn) -> None:
    lan, gateway = standing.lab.lan, standing.lab.gateway
    rule = f'iifname "lan0" ip protocol 253 meta length {EMPTY}'
    with one_connection(standing), counted(gateway, "prerouting", rule) as seen:
        for target in ("10.20.0.10", tunnel_ends(standing)[1]):
            lan.python(_SEND_EMPTY, lan.address, target, user="root")
    assert seen == [6]


@pytest.mark.parametrize("side", ["gateway", "server"])
def test_packets_without_payload_from_either_end_kill_nothing(standing: Vpn, side: str) -> None:
    here, there = tunnel_ends(standing)
    source, target = (here, there) if side == "gateway" else (there, here)
    machine = standing.lab.machines[side]
    rule = f"ip protocol 253 meta length {EMPTY}"
    with one_connection(standing), counted(machine, "output", rule) as seen:
        machine.python(_SEND_EMPTY, source, target, user="root")
    assert seen == [3]


@pytest.mark.parametrize("address", INNER_HOSTS)
def test_datagrams_above_the_mtu_arrive_in_pieces(standing: Vpn, address: str) -> None:
    with one_connection(standing):
        for machine in (standing.lab.lan, standing.lab.gateway):
            assert answers_udp(machine, address, 60_000)


@pytest.mark.parametrize("address", INNER_HOSTS)
def test_packets_above_the_mtu_that_must_stay_whole_kill_nothing(
    standing: Vpn, address: str
) -> None:
    lab = standing.lab
    size = standing.record()["mtu"] + 1000
    with large_packets((lab.lan, "eth0"), (lab.gateway, "lan0")):
        rule = f'iifname "lan0" udp dport {DATAGRAMS} meta length > {size}'
        with one_connection(standing), counted(lab.gateway, "prerouting", rule) as seen:
            lab.lan.python(_SEND_WHOLE, address, str(DATAGRAMS), str(size))
            wait_until(lambda: answers_udp(lab.lan, address), 5)
        assert seen == [3]


@contextlib.contextmanager
def large_packets(*links: tuple[LabMachine, str]) -> Iterator[None]:
    """Let the adapters of LINKS, as (machine, name), carry packets of 40 000 bytes for the block.

    At its end the first machine forgets what it has learned of the ways.
    """
    for machine, adapter in links:
        machine.ip("link", "set", adapter, "mtu", "40000")
    try:
        yield
    finally:
        for machine, adapter in links:
            machine.ip("link", "set", adapter, "mtu", "1500")
        for family in ("-4", "-6"):
            links[0][0].ip(family, "route", "flush", "cache")


def test_packets_above_the_mtu_from_the_other_end_kill_nothing(lab: Lab) -> None:
    """Neither as answers, nor unasked."""
    vpn = Vpn(lab, transport="w")
    server, inner = lab.server, lab.inner
    argv = [sys.executable, "-c", _ANSWER_WHOLE, str(DATAGRAMS), str(WHOLE)]
    for machine in (server, inner):
        assert read_line(Office(lab).start(argv, machine=machine), 10) == "ready\n"
    vpn.up(*SHARED, "--no-nat")
    record = vpn.record()
    here, there = (
        [cidr.partition("/")[0] for cidr in record[f"{end}_addresses"]]
        for end in ("local", "remote")
    )
    assert record["mtu"] < WHOLE
    rule = f'iifname "inner0" meta l4proto udp meta length > {WHOLE}'
    with (
        large_packets((inner, "eth0"), (server, "inner0")),
        one_connection(vpn),
        counted(server, "prerouting", rule) as seen,
    ):
        for target in (*INNER_HOSTS, *there):
            assert answers_udp(lab.lan, target), target
        for machine in (server, inner):
            for target in (lab.lan.address, lab.lan.address6, *here):
                machine.python(_SEND_WHOLE, target, str(DATAGRAMS), str(WHOLE))
    # At the server the kernel refuses them at once; what comes by inner0 has to be turned away.
    assert seen == [18]
    assert vpn.record()["reconnects"] == 0
    vpn.down()


# -- while ssh is away -------------------------------------------------------------------------


def talks(vpn: Vpn) -> list[Talk]:
    """Return streams that stay open from lan, to what is published and to what is routed."""
    office = Office(vpn.lab)
    return [office.talk(host, ECHO, machine=vpn.lab.lan) for host in ("192.168.77.1", *INNER_HOSTS)]


@pytest.mark.parametrize("is_silent", [False, True], ids=["ssh ends", "silence"])
def test_while_ssh_is_away_nothing_leaks_and_streams_live_on(
    standing: Vpn, is_silent: bool
) -> None:
    lab = standing.lab
    open_streams = talks(standing)
    for talk in open_streams:
        assert talk.is_answered("before")
    leaks = [
        f'oifname "wan0" {targets}'
        for targets in ("ip daddr { 10.20.0.0/24, 100.64.0.0/10 }", "ip6 daddr fc00::/7")
    ]
    with counted(lab.gateway, "postrouting", *leaks) as leaked:
        lab.cut()
        if not is_silent:
            (ssh,) = ssh_pids(standing)
            lab.gateway.kill(ssh)
        # Not "backoff" alone: the next try begins within half a second, and hangs.
        away = ("backoff", "starting")
        wait_until(lambda: standing.record()["state"] in away, NOTICED_WITHIN_S, every=0.1)
        for host, port in [("192.168.77.1", 8888), *((host, ECHO) for host in INNER_HOSTS)]:
            name, took = lab.lan.python(_HOW_REFUSED, host, str(port)).split()
            assert name == "EHOSTUNREACH", host
            assert float(took) < AT_ONCE_S, host
        lab.restore()
        standing.wait_reachable(standing.everything())
    assert leaked == [0, 0]
    for talk in open_streams:
        assert talk.is_answered("after")
    assert standing.record()["state"] == "running"

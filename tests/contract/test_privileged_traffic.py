"""What passes through the tunnel's table, with real packets.

::

    lan 192.168.77.10 ──── lan0 gateway sshvpn0 ──── an echo that returns each datagram
        fd77::10           .1            100.64.0.1
        10.9.9.9 (not shared)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sshvpn.plan.desired import desired
from sshvpn.plan.diff import diff
from sshvpn.plan.request import TunnelAddresses, TunnelPlan
from sshvpn.plan.state import Appearance, Gate, Lan
from tests.contract.gateway import ALICE, Driver
from tests.contract.test_privileged import same
from tests.lab import ALICE_PASSWORD, Child, Lab, LabMachine
from tests.lab.process import read_line

pytestmark = pytest.mark.lab

ECHO = """
import fcntl, os, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun5300", 0x1001))
print("ready", flush=True)
while True:
    packet = bytearray(os.read(tun, 65536))
    six = packet[0] >> 4 == 6
    print(len(packet), 6 if six else 4, file=sys.stderr, flush=True)
    start, size, ports = (8, 16, 40) if six else (12, 4, 20)
    if packet[6 if six else 9] != 17:
        continue
    a, b = start, start + size
    packet[a:b], packet[b : b + size] = packet[b : b + size], packet[a:b]
    packet[ports : ports + 2], packet[ports + 2 : ports + 4] = (
        packet[ports + 2 : ports + 4], packet[ports : ports + 2])
    os.write(tun, packet)
"""
ASK = """
import socket, sys
address, source, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
kind = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(kind, socket.SOCK_DGRAM) as s:
    s.settimeout(float(sys.argv[4]))
    # Else a datagram's sender is not told of unreachable hosts (ip(7), ipv6(7): RECVERR).
    s.setsockopt(*((41, 25, 1) if kind == socket.AF_INET6 else (0, 11, 1)))
    if source: s.bind((source, 0))
    try:
        s.connect((address, 5353))
        s.send(b"x" * size)
        print("answer" if s.recv(65536) == b"x" * size else "other")
    except OSError as error:
        print(type(error).__name__ if isinstance(error, TimeoutError) else error.strerror)
"""
CONNECT = """
import socket, sys
with socket.socket() as s:
    s.settimeout(0.7)
    try:
        s.connect((sys.argv[1], 80))
    except OSError as error:
        print(error.strerror or error)
"""
# An IPv4 header and nothing else: what kills OpenSSH's tun channel.
EMPTY = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as s:
    s.sendto(b"", (sys.argv[1], 0))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.gateway.write("/home/alice/askpass", f"#!/bin/sh\necho {ALICE_PASSWORD}\n", mode=0o700)
        made.lan.ip("address", "add", "10.9.9.9/32", "dev", "eth0")
        yield made


class Tunnel:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.driver = Driver(lab.gateway)
        self.unit = self.driver.open()
        self.echo: Child | None = None

    def set(self, gate: Gate, **changes: object) -> None:
        plan = TunnelPlan(
            label=ALICE, unit=self.unit, owner=1000, mtu=16380,
            addresses=TunnelAddresses(
                "100.64.0.1/30", "100.64.0.2/30", "fd5a::1/126", "fd5a::2/126"
            ),
            gate=gate, routes=("10.20.0.0/16", "fd20::/48"),
            lans=(Lan("lan0", "192.168.77.0/24"), Lan("lan0", "fd77::/64")),
            appearances=(
                Appearance("lan0", "192.168.77.50", "100.64.0.2"),
                Appearance("lan0", "fd77::50", "fd5a::2"),
            ),
            **changes,  # type: ignore[arg-type]
        )  # fmt: skip
        self.driver.apply(diff(self.driver.read(), desired(plan, self.driver.facts())))
        if self.echo is None:
            import sys

            self.echo = self.lab.gateway.popen([sys.executable, "-c", ECHO])
            assert read_line(self.echo, 10) == "ready\n"

    def seen(self) -> list[str]:
        """End the echo, and return what came out: length and version of each packet."""
        assert self.echo is not None
        self.echo.kill()
        text = self.echo.communicate()[1]
        self.echo.end()
        self.echo = None
        return str(text).splitlines()


@pytest.fixture
def tunnel(lab: Lab) -> Iterator[Tunnel]:
    before = lab.gateway.dump()
    made = Tunnel(lab)
    yield made
    if made.echo is not None:
        made.echo.end()
    made.driver.kill()
    same(lab.gateway, before)
    made.driver.end()


def ask(
    machine: LabMachine, address: str, *, source: str = "", size: int = 100, wait_s: float = 0.7
) -> str:
    return machine.python(ASK, address, source, str(size), str(wait_s)).strip()


PLACES = ["10.20.0.9", "fd20::9", "100.64.0.2", "fd5a::2", "192.168.77.50", "fd77::50"]


@pytest.mark.parametrize("firewall", ["", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP"])
def test_the_local_network_gets_in_when_the_gate_is_open(
    lab: Lab, tunnel: Tunnel, firewall: str
) -> None:
    if firewall:
        lab.gateway.run(["sh", "-ec", firewall], user="root")
    try:
        tunnel.set(Gate.OPEN)
        # The kernel takes up to 0.8 s to answer for another (proxy_delay of arp(7)).
        answers = {place: ask(lab.lan, place, wait_s=5) for place in PLACES}
        assert answers == dict.fromkeys(PLACES, "answer")
        assert ask(lab.gateway, "10.20.0.9") == "answer"
    finally:
        if firewall:
            accept = firewall.replace("DROP", "ACCEPT")
            lab.gateway.run(["sh", "-ec", accept], user="root")
            tunnel.driver.close()
            nothing_left = "nft delete table ip filter; nft delete table ip6 filter"
            lab.gateway.run(["sh", "-c", nothing_left], user="root")


@pytest.mark.parametrize("gate", [Gate.PROBING, Gate.AWAY])
def test_a_closed_gate_says_so_at_once(lab: Lab, tunnel: Tunnel, gate: Gate) -> None:
    tunnel.set(gate)
    answers = [ask(lab.lan, place) for place in PLACES]
    # The kernel sends few ICMP errors a second: the first of each family are told.
    assert answers[:2] == ["No route to host"] * 2
    assert "answer" not in answers
    if gate is Gate.PROBING:
        assert ask(lab.gateway, "10.20.0.9") == "answer"
    else:
        assert lab.gateway.python(CONNECT, "10.20.0.9").strip() == "No route to host"
    assert tunnel.seen() == (["128 4"] if gate is Gate.PROBING else [])


def test_who_was_not_let_in_stays_out(lab: Lab, tunnel: Tunnel) -> None:
    lab.gateway.ip("route", "add", "10.9.9.9/32", "dev", "lan0")
    try:
        tunnel.set(Gate.OPEN)
        for place in ("10.20.0.9", "100.64.0.2", "192.168.77.50"):
            assert ask(lab.lan, place, source="10.9.9.9") != "answer", place
        # Nor does anybody get at this machine under the tunnel's address.
        lab.gateway.udp_server(5353, "0.0.0.0")
        assert ask(lab.lan, "192.168.77.1") == "answer"
        assert ask(lab.lan, "100.64.0.1") != "answer"
        assert tunnel.seen() == []
    finally:
        lab.gateway.undo()
        lab.gateway.ip("route", "delete", "10.9.9.9/32", "dev", "lan0")


def test_empty_packets_are_dropped_and_long_ones_pass(lab: Lab, tunnel: Tunnel) -> None:
    tunnel.set(Gate.OPEN)
    lab.lan.python(EMPTY, "10.20.0.9", user="root")
    lab.gateway.python(EMPTY, "10.20.0.9", user="root", check=False)  # "not permitted"
    # Longer than the MTU: the kernel cuts it, and no rule must take the whole for one packet.
    assert ask(lab.gateway, "10.20.0.9", size=1) == "answer"
    ask(lab.gateway, "10.20.0.9", size=40000)
    seen = tunnel.seen()
    lengths = [int(line.split()[0]) for line in seen]
    assert min(lengths) == 29
    assert max(lengths) <= 16380
    assert sum(lengths) > 40000

"""Which of the kernel's own messages are another tunnel's alone: each change is really made."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from sshvpn.plan import marks
from sshvpn.privileged import firewall
from sshvpn.system.network.concern import concerns_firewall, concerns_routing
from sshvpn.system.network.monitor import listen, name_of
from tests.contract.netns import Namespace

pytestmark = pytest.mark.lab

OWN, OTHER = 3, 7
OWN_LABEL, OTHER_LABEL = marks.label_of(1000, "office"), marks.label_of(1000, "lab")
GROUPS = 1 << 0 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 23 | 1 << 24
"""What follows a tunnel hears of: links, addresses, routes, rules, netconf."""


@pytest.fixture
def machine(namespace: Callable[[], Namespace]) -> Namespace:
    made = namespace()
    made.ip(
        "link add lan0 type bridge",
        "link set lan0 addrgenmode none",
        "addr add 10.1.0.1/24 dev lan0",
        "link set lan0 up",
        *(f"tuntap add sshvpn{unit} mode tun" for unit in (OWN, OTHER)),
        # An address that the kernel makes itself comes when it has time, and is a change, too.
        *(f"link set sshvpn{unit} addrgenmode none" for unit in (OWN, OTHER)),
        *(f"addr add 198.18.{unit}.1/30 dev sshvpn{unit}" for unit in (OWN, OTHER)),
        *(f"link set sshvpn{unit} up" for unit in (OWN, OTHER)),
    )
    return made


def _heard(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield sock.recv(1 << 16)


def _routing(machine: Namespace, *commands: str) -> tuple[int, bool]:
    """Return how many messages the commands made, and whether any concerns our tunnel."""

    def heard() -> tuple[int, bool]:
        with listen(GROUPS) as monitor:
            for command in commands:
                subprocess.run(shlex.split(command), check=True)
            told = list(_heard(monitor))
            return len(told), any(concerns_routing(one, OWN, name_of) for one in told)

    return machine.run(heard)


OF_A_TUNNEL = [
    "ip addr add 198.19.{unit}.1/30 dev sshvpn{unit}",
    "ip addr add fd0{unit}::1/64 dev sshvpn{unit} nodad",
    "ip addr del 198.18.{unit}.1/30 dev sshvpn{unit}",
    "ip link set sshvpn{unit} mtu 1400",
    "ip link set sshvpn{unit} down",
    "ip link property add dev sshvpn{unit} altname tun530{unit}",
    "ip route add 10.{unit}.0.0/16 dev sshvpn{unit} proto 83 metric 50",
    "ip route add default dev sshvpn{unit} proto 83 table 530{unit}",
    "ip route add fd1{unit}::/64 dev sshvpn{unit} proto 83 metric 50",
    "ip route add unreachable 10.{unit}.0.0/16 proto 83 metric {twin}",
    "ip route add unreachable fd1{unit}::/64 proto 83 metric {twin}",
    "ip rule add priority {rule} lookup 530{unit} protocol 83",
    "ip -6 rule add priority {rule} lookup 530{unit} protocol 83",
    "sysctl -qw net.ipv4.conf.sshvpn{unit}.forwarding=1",
    "sysctl -qw net.ipv6.conf.sshvpn{unit}.forwarding=1",
    "ip link del sshvpn{unit}",
]


@pytest.mark.parametrize("command", OF_A_TUNNEL)
def test_what_changes_of_our_tunnel_concerns_it_and_of_another_one_not(
    machine: Namespace, command: str
) -> None:
    for unit in (OWN, OTHER):
        rule, twin = marks.rule_priority(unit, 2), marks.twin_metric(unit)
        count, is_ours = _routing(machine, command.format(unit=unit, rule=rule, twin=twin))
        assert count > 0
        assert is_ours is (unit == OWN)


@pytest.mark.parametrize(
    "command",
    [
        "ip addr add 10.1.0.2/24 dev lan0",
        "ip addr add fd05::1/64 dev lan0 nodad",
        "ip link set lan0 down",
        "ip link add br0 type bridge",
        "ip link del lan0",
        "ip tuntap add sshvpn777 mode tun",
        "ip route add 10.9.0.0/16 dev lan0",
        "ip route add unreachable 10.9.0.0/16 metric 58",
        "ip route add blackhole 10.9.0.0/16 proto 83",
        "ip route add 10.9.0.0/16 nexthop dev lan0 nexthop dev sshvpn7",
        "ip rule add priority 100 lookup 100",
        "sysctl -qw net.ipv4.conf.lan0.forwarding=1",
        "sysctl -qw net.ipv4.conf.default.forwarding=1",
    ],
)
def test_what_is_no_tunnels_concerns_every_tunnel(machine: Namespace, command: str) -> None:
    count, is_ours = _routing(machine, command)
    assert count > 0
    assert is_ours


def test_a_change_among_those_of_others_is_heard(machine: Namespace) -> None:
    count, is_ours = _routing(
        machine,
        "ip addr add 198.19.7.1/30 dev sshvpn7",
        "ip addr add 10.1.0.2/24 dev lan0",
        "ip link del sshvpn7",
    )
    assert count >= 3
    assert is_ours


def _firewall(machine: Namespace, *texts: str) -> tuple[int, bool]:
    def heard() -> tuple[int, bool]:
        with firewall.monitor() as monitor:
            for text in texts:
                subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
            told = list(_heard(monitor))
            return len(told), any(concerns_firewall(one, OWN_LABEL) for one in told)

    return machine.run(heard)


TABLE = """
table inet {name} {{
    set peers {{ type ipv4_addr; elements = {{ 10.1.0.1, 10.1.0.2 }} }}
    counter dropped {{ }}
    chain forward {{
        type filter hook forward priority 0
        ip saddr @peers counter name dropped drop
    }}
}}
"""


@pytest.mark.parametrize(
    "change",
    [
        TABLE,
        "delete table inet {name}",
        "add element inet {name} peers {{ 10.1.0.3 }}",
        "flush chain inet {name} forward",
        "add rule inet {name} forward accept",
        "delete element inet {name} peers {{ 10.1.0.1 }}",
    ],
)
def test_a_table_concerns_the_tunnel_whose_it_is(machine: Namespace, change: str) -> None:
    names = [marks.table_name(label) for label in (OWN_LABEL, OTHER_LABEL)]
    if change != TABLE:
        _firewall(machine, *(TABLE.format(name=name) for name in names))
    for name in names:
        count, is_ours = _firewall(machine, change.format(name=name))
        assert count > 0
        assert is_ours is (name == names[0])


def test_a_foreign_table_concerns_every_tunnel(machine: Namespace) -> None:
    count, is_ours = _firewall(machine, TABLE.format(name="filter"))
    assert count > 0
    assert is_ours

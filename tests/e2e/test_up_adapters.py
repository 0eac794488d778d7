"""`sshvpn up` while adapters of the gateway go and come: a USB adapter, a container's.

lan ── lan0 ┐
       usb0 ┤ gateway ── wan0 ══ssh══ server ── inner
     docker ┘
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.test_up_default import DEFAULT, far_away
from tests.e2e.test_up_stays import REMOVALS, comes_back
from tests.e2e.vpn import SHARED, Vpn, either_transport
from tests.lab import Lab, LabMachine, firewalls, wait_until

pytestmark = pytest.mark.lab

USB: Final = """
ip link add usb0 type veth peer name usb0-peer
ip address add 192.168.99.1/24 dev usb0
ip address add fd99::1/64 dev usb0 nodad
ip link set usb0-peer up
ip link set usb0 up
"""
ADAPTERS: Final = ("--lan-interface", "lan0", "--lan-interface", "usb0")


def plug(machine: LabMachine) -> None:
    machine.run(["sh", "-ec", USB], user="root")


def pull(machine: LabMachine) -> None:
    machine.ip("link", "delete", "usb0")


def setting(machine: LabMachine, name: str) -> str:
    return machine.run(["sysctl", "-n", name], user="root").stdout.strip()


@pytest.fixture
def vpn(lab: Lab) -> Iterator[Vpn]:
    """Return an office whose gateway has one more adapter now; it goes at the end."""
    vpn = Vpn(lab)
    plug(lab.gateway)
    yield vpn
    lab.gateway.run(["sh", "-c", "ip link delete usb0 2>/dev/null || :"], user="root")


def is_shared(vpn: Vpn, *adapters: str) -> bool:
    return {one["interface"] for one in vpn.record()["lan"]} == {*adapters}


def reconnected(vpn: Vpn, count: int) -> None:
    """Wait until it runs again for the COUNTth time."""

    def runs() -> bool:
        record = vpn.record()
        return bool(record["reconnects"] >= count and record["state"] == "running")

    wait_until(runs, 30, what=vpn.log()[-3000:])


def test_an_adapter_that_is_pulled_and_plugged_again_costs_nothing_but_its_own(vpn: Vpn) -> None:
    lab = vpn.lab
    vpn.up(*SHARED, *ADAPTERS)
    assert is_shared(vpn, "lan0", "usb0")
    pull(lab.gateway)
    wait_until(lambda: is_shared(vpn, "lan0"), 10, what=vpn.log())
    comes_back(lab.gateway, REMOVALS["route"])
    plug(lab.gateway)
    wait_until(lambda: is_shared(vpn, "lan0", "usb0"), 10, what=vpn.log())
    assert vpn.unreachable(vpn.everything()) == []
    assert vpn.record()["reconnects"] == 0
    assert "there is no adapter" not in vpn.log()
    vpn.down()
    assert setting(lab.gateway, "net.ipv4.conf.usb0.forwarding") == "0"


@pytest.mark.parametrize("when", ["with the connection", "while that is away"])
def test_an_adapter_that_goes(vpn: Vpn, when: str) -> None:
    lab = vpn.lab
    vpn.up(*SHARED, *ADAPTERS, "--lan-address", "192.168.77.50")
    lab.cut()
    if when == "with the connection":
        pull(lab.gateway)
    wait_until(lambda: vpn.record()["state"] == "backoff", 20, what=vpn.log())
    if when != "with the connection":
        pull(lab.gateway)
    lab.restore()
    reconnected(vpn, 1)
    assert vpn.unreachable(vpn.everything()) == []
    comes_back(lab.gateway, REMOVALS["table"])
    vpn.down()


def test_a_container_that_ends_below_a_default_route(lab: Lab) -> None:
    """Its adapter was among those whose filter of sources was made loose."""
    vpn = far_away(lab)
    gateway = lab.gateway
    firewalls.strict_rp_filter(gateway)
    with lab.unchanged():
        plug(gateway)
        gateway.run(["sysctl", "-qw", "net.ipv4.conf.usb0.rp_filter=1"], user="root")
        vpn.up(*DEFAULT)
        assert setting(gateway, "net.ipv4.conf.usb0.rp_filter") == "2"
        pull(gateway)
        lab.server.sshd.kill_sessions()
        reconnected(vpn, 1)
        vpn.down()


@pytest.mark.parametrize("prefix", ["10.20.0.77/24", "10.20.0.129/25"])
def test_a_network_that_this_machine_is_carried_into_comes_before_the_same_at_the_server(
    lab: Lab, prefix: str
) -> None:
    vpn = Vpn(lab)
    gateway = lab.gateway
    by_tunnel = {"http://10.20.0.10:8000/": "inner", "http://[fd20::10]:8000/": "inner"}
    with lab.unchanged():
        vpn.up()
        assert vpn.unreachable(by_tunnel) == []
        gateway.ip("address", "add", prefix, "dev", "lan0")
        wait_until(lambda: "overlaps 10.20.0." in vpn.log(), 10, what=vpn.log())
        assert "dev lan0" in gateway.ip("route", "get", "10.20.0.200")
        lab.server.sshd.kill_sessions()
        reconnected(vpn, 1)
        assert "dev lan0" in gateway.ip("route", "get", "10.20.0.200")
        assert vpn.unreachable(vpn.remote()) == []
        lab.sshvpn("restart", "server")  # which changes nothing of it
        reconnected(vpn, 2)
        assert "dev lan0" in gateway.ip("route", "get", "10.20.0.200")
        assert vpn.unreachable(vpn.remote()) == []
        gateway.ip("address", "delete", prefix, "dev", "lan0")
        vpn.wait_reachable(by_tunnel, 10)
        vpn.down()


@either_transport
def test_a_device_too_small_for_ipv6_carries_ipv4(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, transport=transport)
    with lab.unchanged():
        vpn.up(*SHARED[:4], "--route", "10.20.0.0/24", "--mtu", "1000")
        assert vpn.record()["mtu"] == 1000
        pages = {**vpn.published(), "http://10.20.0.10:8000/": "inner"}
        assert vpn.unreachable(pages) == []
        vpn.down()


def test_a_device_that_somebody_makes_too_small_for_ipv6_is_mended(lab: Lab) -> None:
    vpn = Vpn(lab)
    with lab.unchanged():
        vpn.up()
        comes_back(lab.gateway, "ip link set sshvpn0 mtu 1000")
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()

"""The laboratory's firewalls: each does what it is there for, and goes without a trace.

lan ──eth0 ── lan0 gateway wan0 ── server
                  (firewall)
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab import Lab, LabMachine, firewalls

FIREWALLS = [
    firewalls.docker,
    firewalls.ufw,
    firewalls.firewalld,
    firewalls.iptables_services,
]
CLOSED = FIREWALLS[1:]


def fetches(machine: LabMachine, url: str) -> bool:
    curl = ["curl", "-s", "--connect-timeout", "0.5", url]
    return machine.run(curl, check=False).returncode == 0


@pytest.fixture
def road(lab: Lab) -> Lab:
    """Return a laboratory whose gateway forwards from the LAN to the WAN, to a web server there."""
    settings = [
        f"net.ipv{family}.conf.{adapter}.{name}=1"
        for adapter in ("lan0", "wan0")
        for family, name in ((4, "forwarding"), (6, "force_forwarding"))
    ]
    lab.gateway.run(["sysctl", "-qw", *settings], user="root")
    lab.server.ip("route", "add", "192.168.77.0/24", "via", "203.0.113.10")
    lab.server.ip("route", "add", "fd77::/64", "via", "2001:db8:113::10")
    lab.checkpoint()
    for address in (lab.server.address, lab.server.address6):
        lab.server.http_server(8080, address)
    return lab


URLS = ["http://203.0.113.20:8080/", "http://[2001:db8:113::20]:8080/"]


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_a_firewall_drops_what_is_forwarded_until_it_is_taken_down(
    road: Lab, firewall: Callable[[LabMachine], firewalls.Firewall]
) -> None:
    assert all(fetches(road.lan, url) for url in URLS)
    running = firewall(road.gateway)
    assert not any(fetches(road.lan, url) for url in URLS)
    assert road.gateway.run(["ssh", "server", "hostname"]).stdout == "server\n"
    with road.unchanged():
        running.reload()
    assert not any(fetches(road.lan, url) for url in URLS)
    road.check()
    for address in (road.server.address, road.server.address6):
        road.server.http_server(8080, address)
    assert all(fetches(road.lan, url) for url in URLS)


@pytest.mark.parametrize("firewall", CLOSED)
def test_a_firewall_lets_only_ssh_in(
    lab: Lab, firewall: Callable[[LabMachine], firewalls.Firewall]
) -> None:
    firewall(lab.server)
    for address in (lab.server.address, lab.server.address6):
        lab.server.http_server(8080, address)
    assert not any(fetches(lab.gateway, url) for url in URLS)
    assert lab.gateway.run(["ssh", "server", "hostname"]).stdout == "server\n"
    lab.know(lab.server.start_sshd(2222))
    assert lab.gateway.run(["ssh", "-p", "2222", "server", "hostname"]).stdout == "server\n"


def test_what_is_left_in_the_chains_of_a_firewall_is_found(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.lab.lab.SETTLE_S", 0)
    firewalls.docker(lab.gateway)
    with pytest.raises(AssertionError, match="-A DOCKER-USER -i lan0 -j ACCEPT"), lab.unchanged():
        lab.gateway.run(
            ["iptables", "-I", "DOCKER-USER", "-i", "lan0", "-j", "ACCEPT"], user="root"
        )


def test_firewalls_stand_one_on_top_of_the_other(lab: Lab) -> None:
    for firewall in FIREWALLS:
        firewall(lab.gateway)
    firewalls.strict_rp_filter(lab.gateway)
    path = "/proc/sys/net/ipv4/conf/wan0/rp_filter"
    assert lab.gateway.run(["cat", path]).stdout == "1\n"
    lab.check()

"""`sshvpn up` among firewalls and filters, on either side, and on several adapters.

 lan ──eth0 ── lan0 ┐
lan2 ──eth0 ── lan1 ┤ gateway ── wan0 ══ssh══ server ── inner
                      firewall               firewall

    at home:  lan ── lan0 ┬ gateway        ssh and the LAN go by the same adapter
                          └ router ── server ── inner
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.agent_site import USE_TABLES
from tests.e2e.office import exit_code
from tests.e2e.vpn import SHARED, Vpn, either_transport, fetch, without_program
from tests.lab import ALICE_PASSWORD, Lab, LabMachine, firewalls

Start = Callable[[LabMachine], firewalls.Firewall]
FIREWALLS = [
    firewalls.docker,
    firewalls.ufw,
    firewalls.firewalld,
    firewalls.iptables_services,
]
BACK_WITHIN_S = 10.0


def named(firewall: Start) -> str:
    return firewall.__name__


every_firewall = pytest.mark.parametrize("firewall", FIREWALLS, ids=named)


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes alice's tunnels as root."""
    return Vpn(lab)


# -- firewalls that drop what is forwarded -----------------------------------------------------


@every_firewall
def test_the_lan_gets_through_the_gateways_firewall(vpn: Vpn, firewall: Start) -> None:
    firewall(vpn.lab.gateway)
    with vpn.lab.unchanged():
        vpn.up()
        assert vpn.unreachable(vpn.everything()) == []
        outside = "http://203.0.113.20:8080/"
        assert fetch(vpn.lab.gateway, outside)
        assert not fetch(vpn.lab.lan, outside, 0.5), "the firewall is not open to all"
        vpn.down()


@every_firewall
@pytest.mark.parametrize(
    ("login", "transport"),
    [("root", None), ("alice", None), ("alice", "w")],
    ids=["root", "alice", "alice w"],
)
def test_the_lan_gets_through_the_servers_firewall(
    lab: Lab, firewall: Start, login: str, transport: str | None
) -> None:
    vpn = Vpn(lab, login=login, transport=transport)
    running = firewall(lab.server)
    with lab.unchanged():
        vpn.up()
        assert vpn.unreachable({**vpn.published(), **vpn.inner()}) == []
        is_open = running.name == "docker"
        closed = {} if is_open else vpn.remote()
        assert vpn.unreachable(vpn.remote()) == [*closed], "what comes in stays the firewall's"
        vpn.down()


@either_transport
def test_a_server_with_iptables_and_no_nft(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, login="alice", transport=transport)
    server = lab.server
    # The tables that iptables makes stay.
    server.run(["sh", "-ec", USE_TABLES], user="root")
    lab.checkpoint()
    with lab.unchanged(), without_program(server, "nft"):
        vpn.up(*SHARED, "--lan-address", "192.168.77.200")
        assert "sshvpn_" in server.run(["iptables-save"], user="root").stdout
        assert vpn.unreachable({**vpn.everything(), "http://192.168.77.200:8080/": "server"}) == []
        vpn.down()


def test_firewalls_on_both_sides_and_a_password_for_sudo(lab: Lab) -> None:
    vpn = Vpn(lab, login="alice", sudo=False)
    firewalls.ufw(lab.gateway)
    firewalls.docker(lab.gateway)
    firewalls.firewalld(lab.server)
    with lab.unchanged():
        terminal = lab.sshvpn_pty("up", *SHARED)
        terminal.expect("password for alice")
        terminal.sendline(ALICE_PASSWORD)
        assert exit_code(terminal, 30) == 0, terminal.before
        assert vpn.unreachable({**vpn.published(), **vpn.inner()}) == []
        vpn.down()


@every_firewall
@pytest.mark.parametrize("side", ["gateway", "server"])
def test_after_a_reload_of_the_firewall_all_comes_back(
    vpn: Vpn, firewall: Start, side: str
) -> None:
    running = firewall(vpn.lab.machines[side])
    pages = {**vpn.published(), **vpn.inner()}
    with vpn.lab.unchanged():
        vpn.up()
        assert vpn.unreachable(pages) == []
        running.reload()
        vpn.wait_reachable(pages, BACK_WITHIN_S)
        assert vpn.record()["reconnects"] == 0
        vpn.down()


@pytest.mark.parametrize(
    ("side", "transport"),
    [("gateway", None), ("server", None), ("server", "w")],
    ids=["gateway", "server", "server w"],
)
def test_a_rule_of_ours_that_somebody_removes_comes_back(
    lab: Lab, side: str, transport: str | None
) -> None:
    vpn = Vpn(lab, transport=transport)
    machine = lab.machines[side]
    firewalls.docker(machine)
    with vpn.lab.unchanged():
        vpn.up()
        for program in ("iptables", "ip6tables"):
            machine.run([program, "-F", "DOCKER-USER"], user="root")
        vpn.wait_reachable({**vpn.published(), **vpn.inner()}, BACK_WITHIN_S)
        vpn.down()


def test_a_firewall_that_is_started_later_lets_the_lan_through(vpn: Vpn) -> None:
    for machine in (vpn.lab.gateway, vpn.lab.server):
        firewalls.kept(machine)  # or its undoing would bring the tunnel's settings back
    vpn.up()
    for machine in (vpn.lab.gateway, vpn.lab.server):
        firewalls.ufw(machine)
    vpn.wait_reachable({**vpn.published(), **vpn.inner()}, BACK_WITHIN_S)
    vpn.down()


# -- the ways packets go -----------------------------------------------------------------------


@either_transport
def test_strict_reverse_path_filters_drop_nothing(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, transport=transport)
    for machine in (vpn.lab.gateway, vpn.lab.server, vpn.lab.inner):
        firewalls.strict_rp_filter(machine)
    with vpn.lab.unchanged():
        vpn.up()
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()


def test_a_route_that_is_spread_over_several_next_hops_leads_on(vpn: Vpn) -> None:
    server, inner = vpn.lab.server, vpn.lab.inner
    # Both lead to the same machine, whichever the kernel takes.
    inner.ip("address", "add", "10.20.0.11/24", "dev", "eth0")
    inner.ip("address", "add", "10.40.0.1/32", "dev", "lo")
    hops = [word for n in (10, 11) for word in ("nexthop", "via", f"10.20.0.{n}")]
    server.ip("route", "add", "10.40.0.0/16", *hops)
    with vpn.lab.unchanged():
        vpn.up("server", "--lan", "--route", "10.40.0.0/24")
        assert vpn.unreachable({"http://10.40.0.1:8000/": "inner"}) == []
        vpn.down()
    server.ip("route", "delete", "10.40.0.0/16")
    inner.ip("address", "delete", "10.40.0.1/32", "dev", "lo")
    inner.ip("address", "delete", "10.20.0.11/24", "dev", "eth0")


def test_two_networks_share_and_do_not_meet(lab: Lab) -> None:
    lan2 = lab.lan2
    vpn = Vpn(lab)
    for address in (lan2.address, lan2.address6):
        lan2.http_server(8000, address)
    with lab.unchanged():
        vpn.up()
        assert vpn.unreachable(vpn.everything()) == []
        pages = {**vpn.published("192.168.78.1"), **vpn.inner(), **vpn.remote()}
        assert vpn.unreachable(pages, lan2) == []
        for url in ("http://192.168.78.10:8000/", "http://[fd78::10]:8000/"):
            assert fetch(lab.gateway, url)
            assert not fetch(lab.lan, url, 0.5)
        vpn.down()


def test_the_gateway_becomes_nobody_elses_router(vpn: Vpn) -> None:
    server = vpn.lab.server
    server.ip("route", "add", "192.168.77.0/24", "via", "203.0.113.10")
    server.ip("route", "add", "fd77::/64", "via", "2001:db8:113::10")
    with vpn.lab.unchanged():
        vpn.up()
        assert vpn.unreachable(vpn.everything()) == []
        for url in ("http://203.0.113.20:8080/", "http://[2001:db8:113::20]:8080/"):
            assert fetch(vpn.lab.gateway, url)
            assert not fetch(vpn.lab.lan, url, 0.5)
        vpn.down()
    server.ip("route", "delete", "192.168.77.0/24")
    server.ip("route", "delete", "fd77::/64")


def test_docker_that_is_started_later_goes_on_forwarding_after_down(vpn: Vpn) -> None:
    for machine in (vpn.lab.gateway, vpn.lab.server):
        firewalls.kept(machine)
    vpn.up()
    for machine in (vpn.lab.gateway, vpn.lab.server):
        firewalls.docker(machine)
    vpn.down()
    for machine in (vpn.lab.gateway, vpn.lab.server):
        off = "cd /proc/sys/net && grep -L 1 ipv4/conf/*/forwarding ipv6/conf/*/forwarding"
        assert machine.run(["sh", "-c", off], check=False).stdout == ""


def test_one_adapter_of_two_is_shared(lab: Lab) -> None:
    lan2 = lab.lan2
    vpn = Vpn(lab)
    with lab.unchanged():
        vpn.up(*SHARED, "--lan-interface", "lan0")
        assert vpn.unreachable(vpn.everything()) == []
        pages = {**vpn.published("192.168.78.1"), **vpn.inner(), **vpn.remote()}
        assert vpn.unreachable(pages, lan2, 0.5) == [*pages]
        vpn.down()


@pytest.mark.parametrize("firewall", [None, firewalls.ufw, firewalls.firewalld])
def test_at_home_the_lan_and_the_server_are_behind_one_adapter(
    make_lab: Callable[..., Lab], firewall: Start | None
) -> None:
    lab = make_lab(home=True)
    vpn = Vpn(lab)
    if firewall is not None:
        firewall(lab.gateway)
        firewalls.strict_rp_filter(lab.gateway)
    with lab.unchanged():
        vpn.up()
        assert vpn.unreachable(vpn.published()) == [], "wants nothing of the LAN's machines"
        routes = lab.sshvpn("routes", "server").stdout
        lab.lan.run(["sh", "-ec", routes], user="root")
        assert vpn.unreachable(vpn.everything()) == []
        lab.lan.run(["sh", "-ec", routes.replace(" add ", " delete ")], user="root")
        vpn.down()

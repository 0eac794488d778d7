"""The agent that only looks: the same facts, and nothing is changed by it.

A server that stands alone: wan0, inner0.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterator

import pytest

from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Beat, Ended, Facts, Mode, RemoteEnd, Rights
from tests.contract import agent_site
from tests.contract.agent_site import LABEL, SETTINGS, Agent, look, start, start_by
from tests.lab import LabMachine, wait_until
from tests.lab.dump import difference

CHAINS = """
iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
ip6tables -P INPUT DROP
nft -f - <<'EOF'
table inet guard {
  chain gate { type filter hook input priority 0; policy drop; }
  chain open { type filter hook forward priority 0; policy accept; }
}
EOF
"""
CLOSED = ("4 iptables-nft DOCKER-USER", "6 ip6tables-nft INPUT", "46 nft inet guard gate input")
# The policies accept; a rule for all that comes so far does not. The last two do not close a chain.
REJECTING = """
iptables -A INPUT -p icmp -j ACCEPT; iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited
iptables -A FORWARD -m comment --comment "999 drop all" -j DROP
ip6tables -A INPUT -m comment --comment closed -j REJECT --reject-with icmp6-adm-prohibited
ip6tables -A FORWARD -m conntrack --ctstate INVALID -j DROP; ip6tables -N DROPS
ip6tables -A FORWARD -j DROPS
"""
REJECTED = ("4 iptables-nft FORWARD", "4 iptables-nft INPUT", "6 ip6tables-nft INPUT")
# Not a chain of iptables, though in a table of its name.
OWN_FILTER = """
nft -f - <<'EOF'
table ip filter { chain forward { type filter hook forward priority 0; policy drop; }; }
EOF
"""
SPREAD = """
ip address add 2001:db8:113::20/64 dev wan0 nodad
hops='nexthop via 203.0.113.1 dev wan0 nexthop via 10.20.0.2 dev inner0'
ip route add 10.50.0.0/16 proto static metric 7 $hops
ip route add 10.51.0.0/16 table 77 $hops
ip route add fd50::/64 nexthop via 2001:db8:113::1 dev wan0 nexthop via fd20::2 dev inner0
"""
END = RemoteEnd((ipaddress.ip_interface("10.83.0.2/30"),), forward=("inner0",))


@pytest.fixture
def server() -> Iterator[LabMachine]:
    machine = agent_site.make_server()
    yield machine
    machine.close()


def login(machine: LabMachine, mode: Mode) -> Agent:
    """Start the agent as alice, without a device."""
    nonce = secrets.token_hex(16)
    command = protocol.remote_command(agent_script(), nonce=nonce, label=LABEL, mode=mode)
    return start_by(machine, ["sh", "-c", command], nonce, user="alice")


def agents(machine: LabMachine) -> list[str]:
    return [line for line in machine.processes().values() if "sshvpn-agent" in line]


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_tells_what_serve_tells_and_ends_by_itself(server: LabMachine, setting: str) -> None:
    before = server.dump()
    facts = look(server, SETTINGS[setting])
    assert difference(before, server.dump(), "server") == ""
    assert not server.exists("/run/sshvpn-agent")
    wait_until(lambda: not agents(server), what="something of it still runs")
    serve = start(server, SETTINGS[setting], tunnel="")
    assert serve.expect(Facts) == facts
    serve.end()
    assert facts.rights is Rights.ROOT
    assert {adapter.name for adapter in facts.adapters} >= {"default", "inner0"}


@pytest.mark.parametrize(
    ("setup", "setting", "closed"),
    [
        (CHAINS, "dash-nft", CLOSED),
        (OWN_FILTER, "dash-nft", ("46 nft ip filter forward forward",)),
        (REJECTING, "dash-nft", REJECTED),
        (REJECTING, "bash-iptables", REJECTED),
        (REJECTING, "busybox-iptables", REJECTED),
    ],
)
def test_it_tells_whose_chains_would_drop_us(
    setup: str, setting: str, closed: tuple[str, ...]
) -> None:
    server = agent_site.make_server(setup)
    try:
        before = server.dump()
        assert look(server, SETTINGS[setting]).closed == closed
        assert difference(before, server.dump(), "server") == ""
    finally:
        server.close()


@pytest.mark.parametrize("setting", ["dash-nft", "bash-nft"])
def test_it_tells_all_next_hops_of_a_route(setting: str) -> None:
    server = agent_site.make_server(SPREAD)
    try:
        spread = {
            (str(route.prefix), route.table): set(route.interfaces)
            for route in look(server, SETTINGS[setting]).routes
            if len(route.interfaces) != 1
        }
        both = {"wan0", "inner0"}
        assert spread == {
            ("10.50.0.0/16", "main"): both,
            ("10.51.0.0/16", "77"): both,
            ("fd50::/64", "main"): both,
        }
    finally:
        server.close()


def test_a_route_of_which_ip_tells_no_next_hop_is_told_without(server: LabMachine) -> None:
    """As busybox's does of one with several."""
    server.run(["sh", "-ec", SPREAD], user="root")
    routes = {str(r.prefix): r.interfaces for r in look(server, SETTINGS["busybox-nft"]).routes}
    assert routes["10.50.0.0/16"] == ()
    assert routes["10.20.0.0/24"] == ("inner0",)


def test_it_leaves_a_tunnel_of_the_label_alone_and_tells_what_it_changed(
    server: LabMachine,
) -> None:
    agent_site.make_tun(server)
    holder = start(server)
    holder.expect(Facts)
    holder.configure(END)
    before = server.dump()
    facts = look(server)
    assert ("net/ipv4/conf/inner0/forwarding", 0) in facts.before
    assert difference(before, server.dump(), "server") == ""
    holder.send(protocol.beat(1))
    assert holder.expect(Beat).number == 1
    holder.end()
    assert look(server).before == ()


def test_with_sudo_it_sees_what_only_root_sees(server: LabMachine) -> None:
    server.allow_sudo("alice")
    server.run(["iptables", "-P", "FORWARD", "DROP"], user="root")
    before = server.dump()
    agent = login(server, Mode.LOOK)
    facts = agent.expect(Facts)
    assert (facts.rights, facts.user, facts.uid) == (Rights.SUDO, "alice", 1000)
    assert (facts.firewall, facts.closed) == ("nft", ("4 iptables-nft FORWARD",))
    assert agent.expect(Ended).reason == "looked"
    assert agent.child.wait(10) == 0
    wait_until(lambda: not agents(server), what="something of it still runs")
    assert difference(before, server.dump(), "server") == ""
    assert not server.exists("/run/sshvpn-agent")


def test_without_rights_it_says_what_mends_that(server: LabMachine) -> None:
    stale = login(server, Mode.SERVE)
    stale.expect(Facts)
    agent = login(server, Mode.LOOK)
    facts = agent.expect(Facts)
    assert (facts.rights, facts.rights_code, facts.firewall) == (Rights.NONE, "no_sudo", None)
    assert agent.expect(Ended).reason == "looked"
    assert agent.child.wait(10) == 0
    stale.end()

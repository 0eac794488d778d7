"""The server's agent tells, after a heartbeat, when what it made does not stand any more.

    gateway ═══ wan ═══ server ──inner0── inner
                        tun7, tun8 (made by the test)

It tells of what others take away, and of whose chains begin to drop; not of what they have of
their own, nor of what it does itself: a client that says everything again at each word would
never come to rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
from collections.abc import Callable, Iterator

import pytest

from sshvpn.remote.protocol import Beat, Changed, Facts, beat
from tests.contract import agent_site
from tests.contract.agent_site import (
    DEVICE,
    DOCKER,
    END,
    FIREWALLD,
    LABEL,
    SETTINGS,
    USE_TABLES,
    Agent,
    assert_same,
    start,
)
from tests.lab import LabMachine

OTHER = dataclasses.replace(
    END,
    addresses=(ipaddress.ip_interface("10.83.0.6/30"),),
    routes=(ipaddress.ip_network("192.168.78.0/24"),),
    published=(),
)
FLUSH = "iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN; ip6tables -F FORWARD"
FIREWALLD_TEXT = FIREWALLD.replace("{ ", "{\n").replace("; ", ";\n").replace(" }", "\n}")
every_setting = pytest.mark.parametrize("setting", SETTINGS)


@pytest.fixture
def server() -> Iterator[LabMachine]:
    """Return a server with two tuns, whose own firewall is as Docker leaves it."""
    machine = agent_site.make_server(USE_TABLES + DOCKER)
    for name in (DEVICE, "tun8"):
        agent_site.make_tun(machine, name)
    yield machine
    machine.kill_all()
    machine.close()


def serve(server: LabMachine, setting: str = "dash-nft", **options: str) -> Agent:
    agent = start(server, SETTINGS[setting], **options)  # type: ignore[arg-type]
    agent.expect(Facts)
    return agent


def has_changed(agent: Agent) -> bool:
    """Beat twice; return whether it told of a change.

    It is told once, or twice where it comes just while the agent looks.
    """
    first = len(agent.raw)
    agent.send(beat(first), beat(first + 1))
    told = []
    while (message := agent.next()) != Beat(first + 1):
        told.append(message)
    assert [message for message in told if message != Changed()] == [Beat(first)]
    return Changed() in told


def root(server: LabMachine, script: str) -> None:
    server.run(["sh", "-ec", script], user="root")


def is_told_and_mended(server: LabMachine, agent: Agent, script: str) -> bool:
    """Let root run SCRIPT; return whether it is told, and the next commit puts all back."""
    configured = server.dump()
    root(server, script)
    told = has_changed(agent)
    agent.configure(END)
    assert_same(configured, server.dump())
    return told and not has_changed(agent)


# -- what is told ------------------------------------------------------------------------------


@every_setting
def test_rules_of_ours_that_are_removed_are_told_of_once(server: LabMachine, setting: str) -> None:
    agent = serve(server, setting)
    agent.configure(END)
    assert not has_changed(agent), "its own commit is no change"
    assert is_told_and_mended(server, agent, FLUSH)
    if setting.endswith("-nft"):
        assert is_told_and_mended(server, agent, f"nft delete table inet sshvpn_{LABEL}")
    else:
        assert is_told_and_mended(server, agent, "iptables -t nat -F; ip6tables -t mangle -F")
    agent.end()


@every_setting
def test_a_firewall_that_is_loaded_anew_is_told_of(server: LabMachine, setting: str) -> None:
    anew = "iptables-save >/run/rules; iptables -F; iptables -X; iptables-restore </run/rules"
    root(server, anew)
    agent = serve(server, setting)
    agent.configure(END)
    root(server, "iptables-save | grep -v sshvpn_ >/run/rules; iptables-restore </run/rules")
    assert has_changed(agent)
    agent.configure(END)
    assert not has_changed(agent)
    agent.end()
    root(server, "rm /run/rules")


@every_setting
def test_a_policy_that_begins_to_drop_is_told_of(server: LabMachine, setting: str) -> None:
    root(server, "ip6tables -P FORWARD ACCEPT; ip6tables -P INPUT ACCEPT")
    agent = serve(server, setting)
    agent.configure(END)
    assert not has_changed(agent)
    root(server, "ip6tables -P FORWARD DROP")
    assert has_changed(agent)
    agent.configure(END)
    rules = server.run(["ip6tables-save"], user="root").stdout
    assert f"-A FORWARD -i {DEVICE} -m comment --comment sshvpn_{LABEL} -j ACCEPT" in rules
    agent.end()


@every_setting
def test_a_chain_that_begins_to_reject_and_is_loaded_anew_is_told_of(
    server: LabMachine, setting: str
) -> None:
    root(server, "ip6tables -P FORWARD ACCEPT; ip6tables -P INPUT ACCEPT")
    agent = serve(server, setting)
    agent.configure(END)
    rejecting = "ip6tables -F FORWARD; ip6tables -A FORWARD -j REJECT"
    for _ in range(2):
        root(server, rejecting)
        assert has_changed(agent)
        agent.configure(END)
        rules = server.run(["ip6tables-save"], user="root").stdout
        assert f"-A FORWARD -i {DEVICE} -m comment --comment sshvpn_{LABEL} -j ACCEPT" in rules
        assert not has_changed(agent)
    root(server, "ip6tables -A FORWARD -p tcp --dport 25 -j REJECT")
    assert not has_changed(agent), "what is not for all is others' own"
    agent.end()
    left = server.run(["ip6tables", "-S", "FORWARD"], user="root").stdout
    assert "sshvpn" not in left
    assert "-j REJECT" in left


@pytest.mark.parametrize("setting", ["dash-nft", "bash-nft", "busybox-nft"])
def test_a_firewalld_that_starts_and_starts_again_is_told_of(
    server: LabMachine, setting: str
) -> None:
    agent = serve(server, setting)
    agent.configure(END)
    for begun in (FIREWALLD_TEXT, f"delete table inet firewalld\n{FIREWALLD_TEXT}"):
        server.nft(begun)
        assert has_changed(agent)
        agent.configure(END)
        listed = server.run(["nft", "list", "table", "inet", "firewalld"], user="root").stdout
        assert f'iifname "{DEVICE}" accept comment "sshvpn_{LABEL}"' in listed
        assert not has_changed(agent)
    agent.end()


_MEDDLING = """#!/bin/sh
/run/nft.real "$@"
code=$?
case $* in "-t -a list ruleset")
  ! mv /run/meddle /run/meddled 2>/dev/null || PATH=/run/real:$PATH sh -e /run/meddled
  ;;
esac
exit $code
"""


@contextlib.contextmanager
def meddled_with(server: LabMachine) -> Iterator[None]:
    """Let root run /run/meddle once, right after an agent has seen what is in nft."""
    server.write("/run/nft.sh", _MEDDLING, "root", 0o755)
    bind = "p=$(readlink -f $(command -v nft)); mkdir -p /run/real; cp $p /run/nft.real; "
    root(server, bind + "ln -sf /run/nft.real /run/real/nft; mount --bind /run/nft.sh $p")
    try:
        yield
    finally:
        root(server, "umount --lazy $(readlink -f $(command -v nft))")


@pytest.mark.parametrize(
    "script",
    [f"nft -f - <<'END'\n{FIREWALLD_TEXT}\nEND", "iptables -F DOCKER-USER"],
    ids=["a firewall that starts", "rules that are flushed"],
)
@pytest.mark.parametrize("setting", ["dash-nft", "bash-nft"])
def test_what_others_do_while_a_commit_is_made_is_told_of(
    server: LabMachine, setting: str, script: str
) -> None:
    with meddled_with(server):
        agent = serve(server, setting)
        agent.configure(END)
        assert not has_changed(agent)
        server.write("/run/meddle", script, "root", 0o644)
        agent.configure(END)
        assert not server.exists("/run/meddle")
        assert has_changed(agent)
        agent.configure(END)
        assert not has_changed(agent)
    rules = server.run(["sh", "-c", "nft list ruleset; iptables -S DOCKER-USER"], user="root")
    assert rules.stdout.count(f"-i {DEVICE} ") == 1
    if "firewalld" in script:
        assert f'iifname "{DEVICE}" accept comment "sshvpn_{LABEL}"' in rules.stdout
    agent.end()


@pytest.mark.parametrize(
    "script",
    [
        f"ip address delete 10.83.0.2/30 dev {DEVICE}",
        f"ip -6 route delete fd77::/64 dev {DEVICE}",
        "echo 0 >/proc/sys/net/ipv4/conf/inner0/forwarding",
    ],
)
@pytest.mark.parametrize("setting", ["dash-nft", "busybox-iptables"])
def test_an_address_a_route_or_a_setting_that_somebody_undoes_is_told_of(
    server: LabMachine, setting: str, script: str
) -> None:
    agent = serve(server, setting)
    agent.configure(END)
    assert is_told_and_mended(server, agent, script)
    agent.end()


OURS_ONLY = 'iifname "inner0" oifname != "inner0"'
"""Of the rule that drops what others forward, where only tunnels made the adapter forward."""


@pytest.mark.parametrize("setting", ["dash-nft", "bash-nft", "busybox-nft"])
@pytest.mark.parametrize(
    ("switch", "family"), [("net.ipv4.ip_forward", 4), ("net.ipv6.conf.all.forwarding", 6)]
)
def test_forwarding_that_somebody_switches_on_for_all_is_told_of_and_let_through(
    server: LabMachine, setting: str, switch: str, family: int
) -> None:
    """As Docker does, whose containers the rule would cut off until the next connection."""
    agent = serve(server, setting)
    agent.configure(END)
    rule = f"meta nfproto ipv{family} {OURS_ONLY}"
    table = ["nft", "list", "table", "inet", f"sshvpn_{LABEL}"]
    for value, is_closed in ((1, False), (0, True)):
        root(server, f"sysctl -qw {switch}={value}")
        assert has_changed(agent)
        agent.configure(END)
        assert (rule in server.run(table, user="root").stdout) is is_closed
        assert not has_changed(agent), "its own commit is no change"
    agent.end()


# -- what is not -------------------------------------------------------------------------------

OF_OTHERS: tuple[Callable[[int], str], ...] = (
    lambda _: "iptables -A DOCKER-USER -s 192.0.2.1 -j DROP",  # whose place is the administrator's
    lambda _: "iptables -t nat -A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 82",
    lambda _: "iptables -N DOCKER-FORWARD; iptables -I FORWARD -j DOCKER-FORWARD",
    lambda _: "iptables -Z; ip6tables -Z",
    lambda n: f"ip address add 10.99.{n}.1/24 dev inner0; ip route add 10.98.{n}.0/24 dev inner0",
)


@every_setting
def test_nothing_is_told_while_others_look_after_their_own(
    server: LabMachine, setting: str
) -> None:
    agent = serve(server, setting)
    agent.configure(END)
    for number, script in enumerate(OF_OTHERS):
        root(server, script(number))
        assert not has_changed(agent), script(number)
    agent.end()


def test_sets_and_counters_of_others_are_nothing_to_tell(server: LabMachine) -> None:
    agent = serve(server)
    agent.configure(END)
    server.nft(
        "table inet bans {\nset bad { type ipv4_addr; flags timeout; timeout 1h; }\n"
        "chain in { type filter hook input priority -10; policy accept;\n"
        "ip saddr @bad counter drop\n}\n}\n"
    )
    assert not has_changed(agent)
    root(server, "nft add element inet bans bad { 192.0.2.7 }; ping -c1 -W1 203.0.113.20")
    assert not has_changed(agent)
    agent.end()


@pytest.mark.parametrize("setting", ["dash-nft", "dash-iptables", "busybox-iptables"])
def test_tunnels_of_one_server_do_not_hear_each_others_commits(
    server: LabMachine, setting: str
) -> None:
    first = serve(server, setting)
    first.configure(END)
    second = serve(server, setting, label="other", tunnel="tun8")
    for _ in range(3):
        second.configure(OTHER)
        assert not has_changed(first)
        first.configure(END)
        assert not has_changed(second)
    second.end()
    assert not has_changed(first), "nor that it goes"
    first.end()


def test_before_the_first_commit_there_is_nothing_to_tell(server: LabMachine) -> None:
    agent = serve(server)
    root(server, "iptables -F DOCKER-USER; ip6tables -P FORWARD ACCEPT")
    assert not has_changed(agent)
    agent.end()


@every_setting
def test_an_adapter_that_goes_is_left_out_and_forwards_again_when_it_comes(
    server: LabMachine, setting: str
) -> None:
    """As a container platform's do, each time that one is taken down and made anew."""
    bridge = "ip link add br-x type bridge && ip link set br-x up"
    root(server, bridge)
    agent = serve(server, setting)
    both = dataclasses.replace(END, forward=(*END.forward, "br-x"))
    agent.configure(both)
    forwarding = ["cat", "/proc/sys/net/ipv4/conf/br-x/forwarding"]
    assert server.run(forwarding).stdout == "1\n"
    root(server, "ip link delete br-x")
    assert has_changed(agent)
    agent.configure(both)
    assert not has_changed(agent)
    root(server, bridge)
    assert has_changed(agent)
    agent.configure(both)
    assert server.run(forwarding).stdout == "1\n"
    # Between two looks, and by the same name.
    root(server, f"ip link delete br-x; {bridge}")
    agent.configure(both)
    assert server.run(forwarding).stdout == "1\n"
    agent.end()
    assert server.run(forwarding).stdout == "0\n"
    root(server, "ip link delete br-x")

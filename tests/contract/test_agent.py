"""The server's agent, in every shell and with every packet filter it may meet.

    gateway ═══ wan ═══ server ──inner0── inner
                        tun7 (made by the test)

Whatever way it ends, the server is as it was.
"""

from __future__ import annotations

import ipaddress
import re
import signal
from collections.abc import Iterator

import pytest

from sshvpn.remote import protocol
from sshvpn.remote.protocol import Applied, Beat, Ended, Facts, Failed, Mode, RemoteEnd, Rights
from tests.contract import agent_site
from tests.contract.agent_site import DEVICE, LABEL, SETTINGS, Agent, Setting, start
from tests.lab import Lab, wait_until
from tests.lab.dump import difference

END = RemoteEnd(
    addresses=(ipaddress.ip_interface("10.83.0.2/30"), ipaddress.ip_interface("fd83::2/64")),
    mtu=1400,
    routes=(ipaddress.ip_network("192.168.77.0/24"), ipaddress.ip_network("fd77::/64")),
    masquerade=(ipaddress.ip_network("10.83.0.0/30"), ipaddress.ip_network("fd83::/64")),
    forward=("inner0",),
    loose=("inner0",),
    published=(
        protocol.Publication("10.83.0.2", 8888, "127.0.0.1", 8888),
        protocol.Publication("fd83::2", 8888, "fd20::10", 80),
    ),
)
SMALLER = RemoteEnd(addresses=END.addresses, mtu=1300)
SHELLS = ("dash-nft", "bash-nft", "busybox-nft")
# iptables leaves the tables that it made, empty; a server that uses it has them.
USE_TABLES = """
for program in iptables ip6tables; do
  for place in raw/PREROUTING mangle/FORWARD mangle/POSTROUTING nat/PREROUTING nat/POSTROUTING \\
    filter/FORWARD filter/INPUT; do
    for what in -A -D; do $program -t ${place%/*} $what ${place#*/} -j ACCEPT; done
  done
done
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Build a laboratory whose server has a tun; at the end it must be as it was."""
    with Lab() as made:
        agent_site.make_tun(made.server)
        made.server.run(["sh", "-ec", USE_TABLES], user="root")
        made.checkpoint()
        yield made
        made.check()


def serve(lab: Lab, setting: str = "dash-nft", **options: object) -> tuple[Agent, Facts]:
    agent = start(lab.server, SETTINGS[setting], **options)  # type: ignore[arg-type]
    return agent, agent.expect(Facts)


def assert_same(before: str, after: str) -> None:
    problems = difference(before, after, "server")
    assert not problems, problems


def setting_of(lab: Lab, name: str) -> str:
    return lab.server.run(["cat", f"/proc/sys/net/{name}"], user="root").stdout.strip()


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_sets_up_once_and_leaves_nothing(lab: Lab, setting: str) -> None:
    before = lab.server.dump()
    agent, facts = serve(lab, setting)
    assert facts.rights is Rights.ROOT
    assert facts.ip == ("busybox" if "busybox" in setting else "iproute2")
    assert facts.firewall == setting.partition("-")[2]
    assert facts.device is not None
    assert (facts.device.name, facts.device.is_up, facts.device.owner) == (DEVICE, False, 0)
    assert {str(found.address) for found in facts.addresses} >= {"203.0.113.20", "fd20::1"}
    routes = {(str(route.prefix), route.interface) for route in facts.routes}
    assert routes >= {("0.0.0.0/0", "wan0"), ("10.20.0.0/24", "inner0"), ("fd20::/64", "inner0")}
    assert "inner0" in {adapter.name for adapter in facts.adapters}

    agent.configure(END)
    assert setting_of(lab, "ipv4/conf/inner0/forwarding") == "1"
    assert setting_of(lab, "ipv4/ip_forward") == "0"
    configured = lab.server.dump()
    agent.configure(END)
    assert_same(configured, lab.server.dump())
    agent.send(protocol.beat(7))
    assert agent.expect(Beat).number == 7
    assert agent.end() == "end"
    assert_same(before, lab.server.dump())
    assert not lab.server.exists("/run/sshvpn-agent")


@pytest.mark.parametrize("setting", ["dash-nft", "busybox-iptables"])
def test_a_later_configuration_replaces_the_one_before(lab: Lab, setting: str) -> None:
    agent, _ = serve(lab, setting)
    agent.configure(SMALLER)
    smaller = lab.server.dump()
    agent.configure(END)
    agent.configure(SMALLER)
    assert_same(smaller, lab.server.dump())
    agent.end()


def test_what_somebody_removed_comes_back_with_the_next_commit(lab: Lab) -> None:
    agent, _ = serve(lab)
    agent.configure(END)
    configured = lab.server.dump()
    lab.server.ip("address", "delete", "10.83.0.2/30", "dev", DEVICE)
    lab.server.run(["nft", "delete", "table", "inet", f"sshvpn_{LABEL}"], user="root")
    agent.configure(END)
    assert_same(configured, lab.server.dump())
    agent.end()


@pytest.mark.parametrize("setting", SHELLS)
def test_when_its_input_ends_it_undoes_all(lab: Lab, setting: str) -> None:
    before = lab.server.dump()
    agent, _ = serve(lab, setting)
    agent.configure(END)
    agent.close()
    assert agent.expect(Ended).reason == "input ended"
    assert_same(before, lab.server.dump())


@pytest.mark.parametrize("setting", SHELLS)
def test_without_heartbeats_the_lease_ends(lab: Lab, setting: str) -> None:
    before = lab.server.dump()
    agent, _ = serve(lab, setting, lease_s=1)
    agent.send(*END.lines())
    agent.expect(Applied)
    failed = agent.expect(Failed)
    assert failed.code == "lease"
    assert agent.child.wait(10) == 1
    assert_same(before, lab.server.dump())


def test_nobody_needs_to_read_what_it_says_while_it_undoes(lab: Lab) -> None:
    before = lab.server.dump()
    agent, _ = serve(lab)
    agent.configure(END)
    assert agent.child.stdout is not None
    agent.child.stdout.close()
    agent.close()
    agent.child.wait(10)
    agent_site.processes_gone(lab)
    assert_same(before, lab.server.dump())


INJECT = """#!/bin/sh
case "$*" in *" add "* | *" set "* | "-f -" | --noflush)
  count=$(($(cat /run/bad/count) + 1))
  echo $count >/run/bad/count
  [ $count -ne "$(cat /run/bad/at)" ] || { echo "injected: $*" >&2; exit 1; }
  ;;
esac
exec %s "$@"
"""


@pytest.mark.parametrize("setting", ["dash-nft", "bash-iptables"])
def test_a_failure_at_any_command_undoes_the_ones_before(lab: Lab, setting: str) -> None:
    before = lab.server.dump()
    programs = {"ip": "/usr/sbin/ip", "nft": "/usr/sbin/nft"}
    for name in ("iptables-nft-restore", "ip6tables-nft-restore"):
        programs[name] = f"/usr/sbin/{name}"
    if "iptables" in setting:
        del programs["nft"]
    for name, real in programs.items():
        lab.server.write(f"/run/bad/{name}", INJECT % real, "root", 0o755)
    failures = set()
    is_reached = True
    at = 0
    while is_reached:
        at += 1
        lab.server.write("/run/bad/at", str(at), "root")
        lab.server.write("/run/bad/count", "0", "root")
        agent, _ = serve(lab, setting, before="export PATH=/run/bad:$PATH")
        agent.send(*END.lines())
        message = agent.next()
        is_reached = int(lab.server.read("/run/bad/count")) >= at
        if isinstance(message, Applied):  # what failed had another way, or is yet to come
            lab.server.write("/run/bad/at", "0", "root")
            agent.end()
        else:
            assert isinstance(message, Failed)
            assert "injected" in message.text
            failures.add(message.code)
            assert agent.child.wait(10) == 1
        assert_same(before, lab.server.dump())
    assert failures == {
        "firewall_failed", "mtu_failed", "address_failed", "up_failed", "route_failed",
    }  # fmt: skip
    lab.server.run(["rm", "-r", "/run/bad"], user="root")


@pytest.mark.parametrize(
    "path",
    [
        "ipv4/conf/tun7/route_localnet",
        "ipv4/conf/tun7/forwarding",
        "ipv4/conf/inner0/forwarding",
    ],
)
def test_a_setting_that_cannot_be_written_undoes_the_ones_before(lab: Lab, path: str) -> None:
    before = lab.server.dump()
    path = f"/proc/sys/net/{path}"
    read_only = f"mount --bind {path} {path} && mount -o remount,bind,ro {path}"
    agent, _ = serve(lab, before=read_only)
    agent.send(*END.lines())
    failed = agent.expect(Failed)
    assert (failed.code, path in failed.text) == ("setting_failed", True)
    assert_same(before, lab.server.dump())


BAD_WORDS = (
    "address", "address 10.0.0.1", "address 10.0.0.1/33", "address 10.0.0.256/24",
    "address 10.0.0.01/24", "address $(reboot)/24", "address 10.0.0.1/24;id", "address ::1/129",
    "address fd00::%eth0/64", "address 10.0.0.1/24 10.0.0.2", "mtu 16381", "mtu 575", "mtu -1",
    "mtu 1400 x", "up now", "route default", "route 10.0.0.0", "masquerade any",
    "forward", "forward ../all", "forward a/b", "forward -x", "forward *", "forward ..",
    "forward 1234567890123456", "loose ;", "publish 10.0.0.1 0 127.0.0.1 80",
    "publish 10.0.0.1 80 127.0.0.1 65536", "publish 10.0.0.1 80 localhost 80",
    "publish fd00::1 80 10.0.0.1 80", "publish fd00::1 80 ::1 80", "publish 10.0.0.1 80 10.0.0.2",
    "beat", "beat x", "beat 1234567890", "commit now", "eval id", "`id`", "end it",
)  # fmt: skip


def test_a_word_that_is_none_is_an_error_and_changes_nothing(lab: Lab) -> None:
    before = lab.server.dump()
    for line in BAD_WORDS:
        agent, _ = serve(lab)
        agent.send(line, "commit")
        assert agent.expect(Failed).code == "usage", line
        assert agent.child.wait(10) == 1
    assert_same(before, lab.server.dump())


def test_an_adapter_or_device_that_is_not_there_is_an_error(lab: Lab) -> None:
    agent, _ = serve(lab)
    agent.send("forward nope0", "commit")
    assert agent.expect(Failed).code == "no_adapter"
    agent = start(lab.server, tunnel="tun99")
    assert agent.expect(Failed).code == "no_device"
    agent, facts = serve(lab, tunnel="")
    assert facts.device is None
    agent.send("up", "commit")
    assert agent.expect(Failed).code == "no_tun"


def test_a_route_that_somebody_else_has_is_an_error(lab: Lab) -> None:
    before = lab.server.dump()
    agent, _ = serve(lab)
    taken = ipaddress.ip_network("10.20.0.0/24")
    lab.server.ip("route", "add", "10.21.0.0/24", "via", "10.20.0.10")
    agent.send(*RemoteEnd(routes=(ipaddress.ip_network("10.21.0.0/24"),)).lines())
    failed = agent.expect(Failed)
    assert (failed.code, "File exists" in failed.text) == ("route_failed", True)
    lab.server.ip("route", "delete", "10.21.0.0/24")
    assert_same(before, lab.server.dump())
    assert str(taken) in before


def test_what_was_there_before_stays(lab: Lab) -> None:
    lab.server.ip("link", "set", "dev", DEVICE, "mtu", "1400", "up")
    lab.server.ip("address", "add", "10.83.0.2/30", "dev", DEVICE)
    lab.server.run(["sysctl", "-q", "net.ipv4.conf.inner0.forwarding=1"], user="root")
    before = lab.server.dump()
    agent, _ = serve(lab)
    agent.configure(RemoteEnd((ipaddress.ip_interface("10.83.0.2/30"),), forward=("inner0",)))
    agent.end()
    assert_same(before, lab.server.dump())
    lab.server.run(["sysctl", "-q", "net.ipv4.conf.inner0.forwarding=0"], user="root")
    lab.server.ip("address", "delete", "10.83.0.2/30", "dev", DEVICE)
    lab.server.ip("link", "set", "dev", DEVICE, "mtu", "1500", "down")


# -- taking over -------------------------------------------------------------------------------


def without_rules(dump: str) -> str:
    """Return DUMP without what packet filters hold."""
    sections = dump.split("\n== ")
    return "\n== ".join(one for one in sections if not re.match(r"(== )?(nft|ip6?tables)", one))


@pytest.mark.parametrize("setting", ["dash-nft", "busybox-iptables"])
@pytest.mark.parametrize("how", ["alive", "stopped", "killed"])
def test_a_new_one_takes_over_from_a_stale_one(lab: Lab, setting: str, how: str) -> None:
    before = lab.server.dump()
    stale, _ = serve(lab, setting)
    stale.configure(END)
    pid = int(lab.server.read(f"/run/sshvpn-agent/labels/{LABEL}/holder").split()[0])
    if how == "stopped":
        lab.server.kill(pid, signal.SIGSTOP)
    if how == "killed":
        lab.server.kill(pid)
        stale.child.wait(10)
    fresh, facts = serve(lab, setting)
    assert facts.device is not None
    assert not facts.device.is_up
    assert_same(without_rules(before), without_rules(lab.server.dump()))
    assert LABEL in lab.server.dump(), "until the commit the rules stand: see below"
    if how == "alive":
        assert stale.expect(Ended).reason == "replaced"
    fresh.configure(END)
    stale.close()
    stale.child.wait(10)
    fresh.send(protocol.beat(1))
    fresh.expect(Beat)
    assert setting_of(lab, "ipv4/conf/inner0/forwarding") == "1"
    fresh.end()
    assert_same(before, lab.server.dump())


def test_the_journal_of_a_device_that_is_gone_does_not_touch_its_namesake(lab: Lab) -> None:
    agent_site.make_tun(lab.server, "tun9")
    stale, _ = serve(lab, tunnel="tun9")
    stale.configure(END)
    lab.server.kill(int(lab.server.read(f"/run/sshvpn-agent/labels/{LABEL}/holder").split()[0]))
    lab.server.ip("link", "delete", "tun9")
    agent_site.make_tun(lab.server, "tun9")
    lab.server.ip("link", "set", "tun9", "up")
    lab.server.ip("address", "add", "10.83.0.2/30", "dev", "tun9")
    lab.server.run(["sysctl", "-q", "net.ipv4.conf.tun9.forwarding=1"], user="root")
    sweep = start(lab.server, mode=Mode.SWEEP, tunnel="")
    assert sweep.expect(Ended).reason == "swept"
    assert "10.83.0.2/30" in lab.server.ip("address", "show", "tun9")
    assert setting_of(lab, "ipv4/conf/tun9/forwarding") == "1"
    lab.server.ip("link", "delete", "tun9")


def test_a_sweep_ends_the_holder_and_is_fine_twice(lab: Lab) -> None:
    before = lab.server.dump()
    agent, _ = serve(lab)
    agent.configure(END)
    for _ in range(2):
        sweep = start(lab.server, mode=Mode.SWEEP, tunnel="")
        assert sweep.expect(Ended).reason == "swept"
        assert sweep.child.wait(10) == 0
    assert agent.expect(Ended).reason == "replaced"
    assert_same(before, lab.server.dump())


# -- several labels ----------------------------------------------------------------------------


def test_settings_are_counted_over_labels(lab: Lab) -> None:
    agent_site.make_tun(lab.server, "tun8")
    before = lab.server.dump()
    first, _ = serve(lab)
    first.configure(END)
    second, _ = serve(lab, label="other", tunnel="tun8")
    second.configure(RemoteEnd(forward=("inner0", "wan0")))
    first.end()
    assert setting_of(lab, "ipv4/conf/inner0/forwarding") == "1"
    first, _ = serve(lab)
    first.configure(END)
    second.end()
    assert setting_of(lab, "ipv4/conf/wan0/forwarding") == "0"
    assert setting_of(lab, "ipv4/conf/inner0/forwarding") == "1"
    first.end()
    assert_same(before, lab.server.dump())
    lab.server.ip("link", "delete", "tun8")


def test_a_setting_that_somebody_changed_meanwhile_is_theirs(lab: Lab) -> None:
    lab.server.run(["sysctl", "-q", "net.ipv4.conf.inner0.rp_filter=1"], user="root")
    agent, _ = serve(lab)
    agent.configure(END)
    assert setting_of(lab, "ipv4/conf/inner0/rp_filter") == "2"
    lab.server.run(["sysctl", "-q", "net.ipv4.conf.inner0.rp_filter=0"], user="root")
    agent.end()
    assert setting_of(lab, "ipv4/conf/inner0/rp_filter") == "0"
    lab.server.run(["sysctl", "-q", "net.ipv4.conf.inner0.rp_filter=2"], user="root")


def test_forwarding_that_somebody_switched_on_for_all_is_theirs(lab: Lab) -> None:
    before = lab.server.dump()
    agent, _ = serve(lab)
    agent.configure(END)
    lab.server.run(["sysctl", "-q", "net.ipv4.ip_forward=1"], user="root")
    agent.end()
    for adapter in ("inner0", "wan0", "default"):
        assert setting_of(lab, f"ipv4/conf/{adapter}/forwarding") == "1"
    lab.server.run(["sysctl", "-q", "net.ipv4.ip_forward=0"], user="root")
    assert_same(before, lab.server.dump())


def test_ipv6_forwards_on_kernels_that_switch_all_adapters_at_once(lab: Lab) -> None:
    before = lab.server.dump()
    old = "\n".join(
        f"path=/proc/sys/net/ipv6/conf/{name}/force_forwarding\n"
        "mount --bind $path $path && mount -o remount,bind,ro $path"
        for name in (DEVICE, "inner0")
    )
    agent, _ = serve(lab, before=old)
    agent.configure(END)
    assert setting_of(lab, "ipv6/conf/all/forwarding") == "1"
    assert setting_of(lab, "ipv6/conf/wan0/accept_ra") == "2"
    configured = lab.server.dump()
    agent.configure(END)
    assert_same(configured, lab.server.dump())
    agent.end()
    assert_same(before, lab.server.dump())


# -- chains of others --------------------------------------------------------------------------

DOCKER = """
iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
iptables -I FORWARD -j DOCKER-USER
ip6tables -P FORWARD DROP; ip6tables -P INPUT DROP
"""
FIREWALLD = """
table inet firewalld {
  chain filter_INPUT { type filter hook input priority 10; policy accept; reject; }
  chain filter_FORWARD { type filter hook forward priority 10; policy accept; reject; }
}
table inet guard { chain gate { type filter hook forward priority 0; policy drop; } }
"""


@pytest.mark.parametrize("setting", ["dash-nft", "busybox-nft", "dash-iptables"])
def test_chains_of_others_that_drop_let_the_tunnel_through(lab: Lab, setting: str) -> None:
    lab.server.run(["sh", "-ec", DOCKER], user="root")
    if "nft" in setting:
        text = FIREWALLD.replace("{ ", "{\n").replace("; ", ";\n").replace(" }", "\n}")
        lab.server.nft(text)
    before = lab.server.dump()
    agent, facts = serve(lab, setting)
    assert any("DOCKER-USER" in closed for closed in facts.closed)
    agent.configure(END)
    rules = lab.server.run(["sh", "-c", "iptables-save; ip6tables-save"], user="root").stdout
    assert f"-A DOCKER-USER -i {DEVICE} -m comment --comment sshvpn_{LABEL} -j ACCEPT" in rules
    assert f"-A FORWARD -i {DEVICE} -m comment --comment sshvpn_{LABEL} -j ACCEPT" in rules
    if "nft" in setting:
        listed = lab.server.run(["nft", "list", "ruleset"], user="root").stdout
        assert listed.count(f'iifname "{DEVICE}" accept comment "sshvpn_{LABEL}"') == 2
        assert any("firewalld" in closed for closed in facts.closed)
    configured = lab.server.dump()
    agent.configure(END)
    assert_same(configured, lab.server.dump())
    agent.end()
    assert_same(before, lab.server.dump())
    lab.checkpoint()


def test_every_process_of_it_ends(lab: Lab) -> None:
    agent, _ = serve(lab)
    for number in range(20):
        agent.send(protocol.beat(number))
        agent.expect(Beat)
    agent.end()
    wait_until(
        lambda: not any("sleep" in line for line in lab.server.processes().values()),
        what="a sleep of the lease is left",
    )


def test_a_server_without_tools_says_what_mends_it(lab: Lab) -> None:
    hidden = ("/usr/sbin/nft", *(f"/usr/sbin/{name}" for name in ("iptables-save",)))
    agent = start(lab.server, Setting(hidden=hidden))
    assert agent.expect(Facts).firewall != "nft"
    agent.send(*END.lines())
    failed = agent.expect(Failed)
    assert (failed.code, "install" in failed.text) == ("no_firewall", True)
    before = "for ip in /usr/sbin/ip /usr/bin/ip; do mount --bind /dev/null $ip; done"
    agent = start(lab.server, before=before)
    assert (agent.expect(Failed).code) == "no_ip"

"""The server's agent, in every shell and with every packet filter it may meet.

    gateway ═══ wan ═══ server ──inner0── inner
                        tun7 (made by the test)

Whatever way it ends, the server is as it was.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from sshvpn.remote import protocol
from sshvpn.remote.protocol import Applied, Beat, Ended, Facts, Failed, Mode, RemoteEnd, Rights
from tests.contract import agent_site
from tests.contract.agent_site import (
    DEVICE,
    END,
    LABEL,
    SETTINGS,
    Setting,
    assert_same,
    serve,
    setting_of,
    start,
)
from tests.lab import Lab, wait_until

SMALLER = RemoteEnd(addresses=END.addresses, mtu=1300)
SHELLS = ("dash-nft", "bash-nft", "busybox-nft")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Build a laboratory whose server has a tun; at the end it must be as it was."""
    with agent_site.office() as made:
        yield made


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
    routes = {(str(route.prefix), route.interfaces) for route in facts.routes}
    assert routes >= {
        ("0.0.0.0/0", ("wan0",)), ("10.20.0.0/24", ("inner0",)), ("fd20::/64", ("inner0",))
    }  # fmt: skip
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


NO_PYTHON = Setting("/usr/bin/busybox", ("/usr/bin/python3",), busybox=True)


@pytest.mark.parametrize("mode", [Mode.PREPARE, Mode.STREAM])
def test_a_server_that_has_nothing_to_make_a_tun_with_is_an_error(lab: Lab, mode: Mode) -> None:
    before = lab.server.dump()
    agent = start(lab.server, NO_PYTHON, mode=mode, tunnel="")
    assert agent.expect(Failed).code == "no_ip_tuntap"
    assert agent.child.wait(10) == 1
    assert_same(before, lab.server.dump())
    assert not lab.server.exists("/run/sshvpn-agent")


def test_a_tun_that_the_kernel_does_not_give_is_an_error(lab: Lab) -> None:
    before = lab.server.dump()
    full = "mount --bind /dev/full /dev/net/tun"
    agent = start(lab.server, SETTINGS["busybox-nft"], mode=Mode.STREAM, tunnel="", before=full)
    failed = agent.expect(Failed)
    assert (failed.code, "ioctl" in failed.text) == ("no_tuntap", True)
    assert_same(before, lab.server.dump())


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

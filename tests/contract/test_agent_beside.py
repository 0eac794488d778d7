"""The server's agent beside others: stale ones, other labels, and what others set and load.

    gateway ═══ wan ═══ server ──inner0── inner
                        tun7 (made by the test)

Whatever way it ends, the server is as it was.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from sshvpn.remote import protocol
from sshvpn.remote.protocol import Beat, Ended, Mode, RemoteEnd
from tests.contract import agent_site
from tests.contract.agent_site import (
    DEVICE,
    DOCKER,
    END,
    FIREWALLD,
    LABEL,
    SERVICES,
    Agent,
    assert_same,
    serve,
    setting_of,
    start,
)
from tests.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Build a laboratory whose server has a tun; at the end it must be as it was."""
    with agent_site.office() as made:
        yield made


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


def assert_stays_and_goes(lab: Lab, agent: Agent, before: str) -> None:
    """Assert that configuring it again changes nothing, and that its end leaves BEFORE."""
    configured = lab.server.dump()
    agent.configure(END)
    assert_same(configured, lab.server.dump())
    agent.end()
    assert_same(before, lab.server.dump())
    lab.checkpoint()


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
    assert_stays_and_goes(lab, agent, before)


@pytest.mark.parametrize("setting", ["dash-nft", "bash-iptables", "busybox-iptables"])
def test_chains_of_others_whose_last_rule_rejects_let_the_tunnel_through(
    lab: Lab, setting: str
) -> None:
    lab.server.run(["sh", "-ec", SERVICES], user="root")
    before = lab.server.dump()
    agent, _ = serve(lab, setting)
    agent.configure(END)
    for program in ("iptables", "ip6tables"):
        rules = lab.server.run([program, "-S"], user="root").stdout
        mark = f"-m comment --comment sshvpn_{LABEL} -j ACCEPT"
        for accept, chain in (
            (f"-A FORWARD -i {DEVICE} {mark}", "FORWARD"),
            (f"-A INPUT -i {DEVICE} -m conntrack --ctstate DNAT {mark}", "INPUT"),
        ):
            assert accept in rules
            assert rules.index(accept) < rules.index(f"-A {chain} -j REJECT")
    assert_stays_and_goes(lab, agent, before)

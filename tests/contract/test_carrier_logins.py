"""The `w` transport logs in every way of docs/server.md, and tells what mends what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.contract.agent_site import processes_gone
from tests.contract.carrier_driver import LABEL
from tests.contract.carrier_site import (
    HOSTS,
    Carrier,
    carrier,
    give_bob_a_tun,
    lab,
    only_w,
    pings,
    transport,
    use,
)
from tests.lab import Lab, wait_until
from tests.lab.dump import difference
from tests.lab.wan import Wan

__all__ = ["carrier", "lab", "transport"]

pytestmark = only_w

Make = Callable[..., Carrier]
END = ("10.83.0.2/30",)


def crosses(lab: Lab) -> None:
    use(lab)
    wait_until(lambda: pings(lab.gateway, "10.83.0.2"), what="no packet crosses the tunnel")


def test_root_gets_any_device(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("root")
    before = lab.server.dump()
    one = carrier()
    facts = one.connect(user="root")
    assert (facts["user"], facts["rights"], facts["device"]) == ("root", "uid", "tun0")
    assert "203.0.113.20" in facts["addresses"]
    one.configure(*END)
    crosses(lab)
    one.close()
    assert not difference(before, lab.server.dump(), "server")
    processes_gone(lab)
    assert "warn" not in one.stop().lower()


def test_a_user_with_sudo_has_a_device_made_first(lab: Lab, carrier: Make) -> None:
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    one = carrier()
    for _ in range(2):
        facts = one.connect()
        assert (facts["user"], facts["rights"], facts["owner"]) == ("alice", "sudo", 1000)
        one.configure(*END)
        crosses(lab)
        one.close()
        assert not difference(before, lab.server.dump(), "server")
    processes_gone(lab)
    assert json.loads(lab.gateway.read(HOSTS)) == {
        "alice@server:22": "prepare",
        f"alice@server:22 {LABEL}": "5600",
    }


def test_a_user_without_rights_opens_the_device_of_the_profile(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("bob")
    give_bob_a_tun(lab)
    one = carrier()
    facts = one.connect(user="bob", remote_device="tun8")
    assert (facts["user"], facts["rights"], facts["device"]) == ("bob", "none", "tun8")
    assert "10.83.0.2" in facts["addresses"]
    crosses(lab)
    refusal = one.refused("configure", *END)
    assert (refusal.exit_code, refusal.code) == (5, "tunnel_refused")
    one.close()
    assert "10.83.0.2/30" in lab.server.ip("address", "show", "tun8")
    lab.server.ip("link", "delete", "tun8")


# As docs/server.md has it, and what else may stand there.
LIMITED = 'tunnel="8",command="/bin/false",no-pty,no-agent-forwarding,no-X11-forwarding,no-user-rc'
KEYS = [
    LIMITED,
    f"{LIMITED},no-port-forwarding",
    f'{LIMITED},permitopen="localhost:8888"',
    'tunnel="8",command="cat >/dev/null"',
    'tunnel="8",command="echo not allowed: $SSH_ORIGINAL_COMMAND"',
    'tunnel="8",command="cat"',
    'tunnel="8",command="yes | tr -d \\\\\\\\n"',
]


@pytest.mark.parametrize("options", KEYS)
def test_a_key_limited_to_the_tunnel_needs_no_agent(lab: Lab, carrier: Make, options: str) -> None:
    lab.server.authorize("bob", options)
    give_bob_a_tun(lab)
    one = carrier(grace_s=1)
    assert one.connect(user="bob", remote_device="tun8", address="10.83.0.1/30") is None
    one.configure(*END)  # nobody is there to be told
    crosses(lab)
    assert one.life() > 0
    assert not one.is_closed()
    one.close()
    lab.server.ip("link", "delete", "tun8")


def test_a_limited_key_without_a_word_in_the_profile_is_told_which(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("bob", LIMITED)
    give_bob_a_tun(lab)
    one = carrier(answer_s=2)
    refusals = [one.refused("connect", user="bob", remote_device="tun8")]
    refusals.append(one.refused("connect", user="bob"))
    for refusal in refusals:
        assert (refusal.exit_code, refusal.kind) == (5, "NoAgentError")
        assert 'remote_device = "tun8"' in refusal.hint
        assert "address = " in refusal.hint
    lab.server.ip("link", "delete", "tun8")


def test_a_link_that_takes_long_for_the_script_is_waited_for(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("root")
    one = carrier(answer_s=2)
    lab.shape(Wan(rate_mbit=0.06), back=Wan())
    assert one.connect(user="root")["user"] == "root"
    lab.shape(Wan())
    one.close()


def test_silence_may_end_and_what_only_reads_is_told_from_it(lab: Lab, carrier: Make) -> None:
    one = carrier(answer_s=2, grace_s=1)
    lab.server.authorize("root", 'command="sleep 6"')
    silent = one.refused("connect", user="root")
    assert (silent.kind, silent.retry) == ("SilentAgentError", "forever")
    lab.server.authorize("root", 'command="cat >/dev/null"')
    limited = one.refused("connect", user="root")
    assert (limited.kind, limited.retry) == ("NoAgentError", "never")
    lab.server.authorize("root", 'command="echo closed; sleep 6"')
    other = one.refused("connect", user="root")
    assert (other.kind, other.retry) == ("NoAgentError", "never")
    assert other.message.endswith("it said: closed")


def test_the_unit_that_a_key_pins_is_found_and_remembered(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("bob", 'tunnel="8"')
    give_bob_a_tun(lab)
    one = carrier()
    for _ in range(2):
        facts = one.connect(user="bob")
        assert (facts["rights"], facts["device"]) == ("none", "tun8")
        one.close()
        assert json.loads(lab.gateway.read(HOSTS)) == {"bob@server:22": "any"}
    # What was remembered holds no longer: the other way is tried.
    lab.server.authorize("bob")
    lab.server.allow_sudo("bob")
    assert one.connect(user="bob")["rights"] == "sudo"
    one.close()
    assert json.loads(lab.gateway.read(HOSTS)) == {
        "bob@server:22": "prepare",
        f"bob@server:22 {LABEL}": "5600",
    }
    lab.server.ip("link", "delete", "tun8")


def test_a_broken_memory_means_nothing(lab: Lab, carrier: Make) -> None:
    lab.gateway.write(HOSTS, '{"alice@server:22": ["any"')
    lab.server.allow_sudo("alice")
    one = carrier()
    assert one.connect()["rights"] == "sudo"
    one.close()


# What is missing at the server ---------------------------------------------------------------


def refused_and_clean(lab: Lab, one: Carrier, **words: str) -> tuple[int, str]:
    before = lab.server.dump()
    refusal = one.refused("connect", **words)
    processes_gone(lab)
    assert not difference(before, lab.server.dump(), "server")
    assert refusal.code == "tunnel_refused"
    assert refusal.retry == "never"
    return refusal.exit_code, refusal.hint


@pytest.mark.parametrize("user", ["root", "alice"])
def test_permit_tunnel_no_is_told_with_what_mends_it(lab: Lab, carrier: Make, user: str) -> None:
    lab.server.authorize("root")
    lab.server.allow_sudo("alice")
    lab.server.sshd.restart(PermitTunnel="no")
    code, hint = refused_and_clean(lab, carrier(), user=user)
    assert code == 5
    assert "set PermitTunnel point-to-point" in hint


@pytest.mark.parametrize("user", ["root", "alice"])
def test_a_server_without_the_tun_driver_is_told_with_what_mends_it(
    lab: Lab, carrier: Make, user: str
) -> None:
    lab.server.authorize("root")
    lab.server.allow_sudo("alice")
    lab.server.run(["mv", "/dev/net/tun", "/dev/net/away"], user="root")
    code, hint = refused_and_clean(lab, carrier(), user=user)
    lab.server.run(["mv", "/dev/net/away", "/dev/net/tun"], user="root")
    assert (code, hint) == (5, "on the server, as root: modprobe tun")


def test_a_server_without_ip_is_told_with_what_mends_it(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("root")
    # A PATH in which there is everything but ip, for this login.
    lab.server.run(
        ["sh", "-c", "mkdir /var/bin && for file in /usr/bin/* /usr/sbin/*; do "
         "case $file in */ip) ;; *) ln -s $file /var/bin/ ;; esac; done; "
         "mount --bind /dev/null /usr/sbin/ip 2>/dev/null; mount --bind /dev/null /usr/bin/ip; "
         "true"], user="root",
    )  # fmt: skip
    refusal = carrier().refused("connect", user="root")
    lab.server.run(["sh", "-c", "umount /usr/bin/ip; umount /usr/sbin/ip; rm -r /var/bin; true"],
                   user="root")  # fmt: skip
    assert (refusal.exit_code, refusal.hint) == (5, "on the server, as root: apt install iproute2")


def test_sudo_that_asks_for_a_password_is_told_with_what_mends_it(lab: Lab, carrier: Make) -> None:
    code, hint = refused_and_clean(lab, carrier())
    assert code == 5
    assert "echo 'alice ALL=(root) NOPASSWD: ALL' >/etc/sudoers.d/alice" in hint


def test_a_device_that_is_not_there_is_told_with_the_line_that_makes_it(
    lab: Lab, carrier: Make
) -> None:
    lab.server.authorize("bob")
    code, hint = refused_and_clean(lab, carrier(), user="bob", remote_device="tun8")
    assert (code, hint) == (5, "on the server, as root: ip tuntap add dev tun8 mode tun user bob")


def test_what_ssh_cannot_open_here_is_not_the_servers_fault(lab: Lab, carrier: Make) -> None:
    lab.server.authorize("root")
    one, other = carrier(), carrier()
    one.connect(user="root")
    taken = other.refused("connect", user="root")
    assert (taken.code, taken.exit_code) == ("taken", 7)
    absent = other.refused("connect", unit=7, user="root")
    assert (absent.code, absent.exit_code) == ("privilege", 4)
    one.close()

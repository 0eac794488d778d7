"""The two logins of a user with sudo, by `w`: at once where the device is known, else in turn.

::

    gateway (alice) ══ ssh, the agent makes the device ══ server (alice, sudo)
                    ══ ssh -w, held until it is there ══
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.contract.agent_site import other_ip, processes_gone
from tests.contract.carrier_driver import LABEL
from tests.contract.carrier_site import HOSTS, Carrier, carrier, lab, only_w, pings, transport, use
from tests.lab import ALICE_PASSWORD, Lab, wait_until
from tests.lab.dump import difference

__all__ = ["carrier", "lab", "transport"]

pytestmark = only_w

Make = Callable[..., Carrier]
END = ("10.83.0.2/30",)
ALICE = "alice@server:22"
TUNNEL = f"{ALICE} {LABEL}"
# No device is made before two sessions of alice's stand: the two logins wait for each other.
FOR_TWO = """#!/bin/sh
case " $* " in *" tuntap add "*)
  tries=200
  until [ "$(pgrep -c -u alice sshd)" -ge 2 ]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "one login alone" >&2; exit 1; }
    sleep 0.05
  done
  ;;
esac
exec /run/ip/real "$@"
"""
LATE = """#!/bin/sh
case " $* " in *" tuntap add "*)
  touch /run/ip/asked
  until [ -e /run/ip/told ]; do sleep 0.05; done
  ;;
esac
exec /run/ip/real "$@"
"""


@pytest.fixture(autouse=True)
def sudo(lab: Lab) -> Iterator[None]:
    """Let alice do all at the server, and see that nothing of her tunnels stays there."""
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    yield
    processes_gone(lab)
    wait_until(lambda: not difference(before, lab.server.dump(), "server"), what="not as before")


def remember(lab: Lab, unit: str) -> None:
    lab.gateway.write(HOSTS, json.dumps({ALICE: "prepare", TUNNEL: unit}))


def remembered(lab: Lab) -> str:
    known = json.loads(lab.gateway.read(HOSTS))
    assert known.keys() == {ALICE, TUNNEL}
    assert known[ALICE] == "prepare"
    return str(known[TUNNEL])


def carries(lab: Lab, one: Carrier) -> None:
    one.configure(*END)
    use(lab)
    wait_until(lambda: pings(lab.gateway, "10.83.0.2"), what="no packet crosses the tunnel")


def test_once_the_device_is_known_both_are_made_at_once(lab: Lab, carrier: Make) -> None:
    one = carrier()
    one.connect()
    one.close()
    assert remembered(lab) == "5600"
    with other_ip(lab.server, FOR_TWO):
        facts = one.connect()  # the same one, and then one that only reads of it
        assert (facts["device"], facts["owner"]) == ("sshvpnr5600", 1000)
        assert "203.0.113.20" in facts["addresses"]  # as the first of the two has told
        carries(lab, one)
        one.close()
        other = carrier()
        assert other.connect()["rights"] == "sudo"
        carries(lab, other)
        other.close()
    assert remembered(lab) == "5600"
    assert other.stop() == ""


@pytest.mark.parametrize("unit", ["5777", "8"])
def test_where_another_device_was_made_that_one_is_opened(
    lab: Lab, carrier: Make, unit: str
) -> None:
    lab.server.ip("tuntap", "add", "dev", "tun8", "mode", "tun", "user", "alice")
    lab.server.ip("link", "set", "dev", "tun8", "up")
    remember(lab, unit)
    one = carrier()
    assert one.connect()["device"] == "sshvpnr5600"
    carries(lab, one)
    assert "NO-CARRIER" in lab.server.ip("link", "show", "tun8"), "a device of hers was opened"
    assert remembered(lab) == "5600"
    one.close()
    lab.server.ip("link", "delete", "tun8")


def test_who_was_asked_is_asked_by_one_after_the_other(lab: Lab, carrier: Make) -> None:
    lab.server.sshd.restart(PasswordAuthentication="yes", PubkeyAuthentication="no", UsePAM="yes")
    remember(lab, "5600")
    for _ in range(2):
        one = carrier()
        one.connect(answers={"password": ALICE_PASSWORD})
        assert one.asked() == 2
        assert remembered(lab) == "asked"
        carries(lab, one)
        one.close()


def test_a_server_that_takes_one_login_at_a_time_has_them_in_turn(lab: Lab, carrier: Make) -> None:
    lab.server.sshd.restart(MaxStartups="1:100:1")
    remember(lab, "5600")
    one = carrier()
    assert one.connect()["device"] == "sshvpnr5600"
    carries(lab, one)
    one.close()
    del lab.server.sshd.options["MaxStartups"]
    lab.server.sshd.restart()


def test_a_login_that_is_given_up_leaves_neither(lab: Lab, carrier: Make) -> None:
    remember(lab, "5600")
    one = carrier()
    with other_ip(lab.server, LATE):
        refusal = one.refused("connect", timeout=8)
        assert refusal.kind == "TimeoutError"
        assert lab.server.exists("/run/ip/asked")
        wait_until(lambda: not lab.gateway.pids("-w 5300"), what="an ssh has stayed")
        lab.server.run(["touch", "/run/ip/told"], user="root")
        processes_gone(lab)
    assert one.connect()["device"] == "sshvpnr5600"
    one.close()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"PermitTunnel": "no"}, "set PermitTunnel point-to-point"),
        ({"PermitTunnel": "ethernet"}, "set PermitTunnel point-to-point"),
    ],
)
def test_what_the_server_does_not_permit_is_told_as_ever(
    lab: Lab, carrier: Make, options: dict[str, str], hint: str
) -> None:
    lab.server.sshd.restart(**options)
    remember(lab, "5600")
    refusal = carrier().refused("connect")
    assert (refusal.exit_code, refusal.code) == (5, "tunnel_refused")
    assert hint in refusal.hint


def test_sudo_that_is_no_more_is_told_as_ever(lab: Lab, carrier: Make) -> None:
    lab.server.run(["rm", "/etc/sudoers.d/alice"], user="root")
    remember(lab, "5600")
    refusal = carrier().refused("connect")
    assert (refusal.exit_code, refusal.code) == (5, "tunnel_refused")
    assert "NOPASSWD" in refusal.hint
    lab.server.allow_sudo("alice")

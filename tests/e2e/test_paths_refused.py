"""Where the kernel lends nobody the socket of ssh, as in a container: ssh gets one of ours.

::

    gateway (reno; pidfd_getfd(2) is refused) ── wan0 ══ TCP ══ wan0 ── server (reno)
                                                        203.0.113.20 and 2001:db8:113::20

The filter of system calls is a real one, and holds for all that the command starts.
"""

from __future__ import annotations

import re
import signal
from typing import Any

import pexpect
import pytest

from tests.e2e.test_paths import (
    lab_of_reno as lab_of_reno,  # noqa: PLC0414 (fixtures of theirs)
    of_forward,
    paced_by,
    vpn as vpn,  # noqa: PLC0414
)
from tests.e2e.test_up_default import (
    DEFAULT,
    assert_all_goes_through,
    far_away,
    group as group,  # noqa: PLC0414 (a fixture of theirs)
    redial,
)
from tests.e2e.vpn import Vpn, masters
from tests.lab import Lab, wait_until
from tests.lab.contents import ALICE
from tests.lab.refused import filtered, sshvpn
from tests.lab.sshd import key_pair

pytestmark = pytest.mark.lab

OURS = "ssh was handed a TCP connection of ours: the kernel does not let us at its own"
BOTH = {"local": "bbr", "remote": "bbr", "notes": [OURS]}
SOURCE, SOURCE6 = "203.0.113.10", "2001:db8:113::10"
"""The gateway, as the server sees it."""
KNOWN_HOSTS = f"{ALICE.home}/.ssh/known_hosts"


def is_running(record: dict[str, Any], reconnects: int) -> bool:
    return bool(record["reconnects"] == reconnects and record["state"] == "running")


def peers(lab: Lab) -> list[str]:
    """Return the addresses that the gateway's connections of SSH lead to."""
    found = lab.gateway.run(["ss", "-Htn", "( dport = 22 )"], user="root").stdout
    return re.findall(r"(\S+):22\s*$", found, re.MULTILINE)


def assert_nothing_is_left(lab: Lab) -> None:
    # What was closed by us waits for the last words of the other end, and is no process's.
    owned = ["ss", "-Htnp", "( dport = 22 )"]
    wait_until(lambda: "users:" not in lab.gateway.run(owned, user="root").stdout, 5)


@pytest.mark.parametrize("transport", ["w", "stream"])
def test_both_ends_of_a_tunnel_are_paced_by_bbr_and_after_each_reconnect(
    vpn: Vpn, transport: str
) -> None:
    lab = vpn.lab
    sshvpn(lab, "up", "server", "--no-lan", "--transport", transport)
    assert vpn.record()["congestion_control"] == BOTH
    assert paced_by(lab.gateway) == ["bbr"]
    assert OURS in " ".join(lab.sshvpn("status", "server").stdout.split())
    lab.server.sshd.kill_sessions()
    wait_until(lambda: is_running(vpn.record(), 1), 30)
    assert vpn.record()["congestion_control"] == BOTH
    # Of an ssh that is killed no half of a connection stays, though we have its socket too.
    (ssh,) = masters(lab.gateway)
    lab.gateway.kill(ssh)
    wait_until(lambda: is_running(vpn.record(), 2), 30)
    assert paced_by(lab.gateway) == ["bbr"]
    wait_until(lambda: paced_by(lab.server) == ["bbr"], 10)
    vpn.down()
    assert_nothing_is_left(lab)


def test_each_of_several_streams_is_handed_over(vpn: Vpn) -> None:
    sshvpn(vpn.lab, "up", "server", "--no-lan", "--transport", "stream", "--streams", "3")
    assert vpn.record()["congestion_control"] == BOTH
    assert paced_by(vpn.lab.gateway) == ["bbr"] * 3
    vpn.down()
    assert_nothing_is_left(vpn.lab)


def test_a_forward_is_paced_and_counted_and_an_ssh_that_hangs_is_noticed(lab_of_reno: Lab) -> None:
    lab = lab_of_reno
    sshvpn(lab, "forward", "-b", "--name", "f", "server", "0:8888")
    wait_until(lambda: of_forward(lab, "f")["congestion_control"]["local"] == "bbr", 10)
    assert of_forward(lab, "f")["congestion_control"]["notes"][0] == OURS
    assert paced_by(lab.gateway) == ["bbr"]
    assert re.search(r"traffic .* back, \S+ kB in, ", lab.sshvpn("status", "f").stdout)
    (ssh,) = masters_of_forwards(lab)
    lab.gateway.kill(ssh, signal.SIGSTOP)
    wait_until(lambda: is_running(of_forward(lab, "f"), 1), 30)
    assert masters_of_forwards(lab) != [ssh]
    lab.sshvpn("down", "f")
    assert_nothing_is_left(lab)


def masters_of_forwards(lab: Lab) -> list[int]:
    return lab.gateway.pids("ssh -N -T")


def test_a_supervisor_that_is_killed_leaves_no_connection(lab: Lab) -> None:
    sshvpn(lab, "forward", "-b", "--name", "f", "server", "0:8888")
    assert len(peers(lab)) == 1
    (supervisor,) = lab.gateway.pids("sshvpn.background")
    lab.gateway.kill(supervisor)
    assert_nothing_is_left(lab)
    wait_until(lambda: not lab.server.sshd.sessions(), 10)
    lab.sshvpn("clean")


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refuses"])
def test_of_several_addresses_the_first_that_takes_it_is_used(lab: Lab, silent: bool) -> None:
    hosts = lab.gateway.read("/etc/hosts")
    dead = "2001:db8:113::99" if silent else "::1"
    lines = f"{dead} many\n{lab.server.address} many\n"
    lab.gateway.write("/etc/hosts", hosts + lines, "root", 0o644)
    lab.know(lab.server.sshd, names=["many"])
    words = ("-o", "ConnectTimeout=1", "many", "0:8888")
    sshvpn(lab, "forward", "-b", "--name", "f", *words)
    assert peers(lab) == [lab.server.address]
    lab.sshvpn("down", "f")
    lab.gateway.write("/etc/hosts", hosts, "root", 0o644)


@pytest.mark.parametrize(("family", "source"), [("inet", SOURCE), ("inet6", SOURCE6)])
def test_the_users_address_family_holds(lab: Lab, family: str, source: str) -> None:
    option = f"AddressFamily={family}"
    sshvpn(lab, "forward", "-b", "--name", "f", "-o", option, "server", "0:8888")
    assert peers(lab) == [lab.server.address if source is SOURCE else f"[{lab.server.address6}]"]
    assert f"Connection from {source} port" in lab.server.sshd.log
    lab.sshvpn("down", "f")


@pytest.mark.parametrize("command", [("up", "server", "--no-lan"), ("forward", "server", "0:8888")])
def test_a_changed_host_key_is_refused(vpn: Vpn, command: tuple[str, ...]) -> None:
    wrong = key_pair("ed25519", "somebody else").public
    known = vpn.lab.gateway.read(KNOWN_HOSTS)
    vpn.lab.gateway.write(KNOWN_HOSTS, f"server {wrong}")
    told = sshvpn(vpn.lab, *command, check=False)
    assert told.returncode == 5, told
    assert "host key of server is not the known one" in told.stderr
    assert_nothing_is_left(vpn.lab)
    vpn.lab.gateway.write(KNOWN_HOSTS, known)


def test_a_server_that_is_not_there_is_told_of(lab: Lab) -> None:
    for host, why in (
        ("ssh://server:2", "could not reach server port 2: connection refused"),
        ("no.such.name", "could not resolve the host name no.such.name"),
    ):
        told = sshvpn(lab, "forward", "-b", "--timeout", "2", host, "0:8888", check=False)
        assert told.returncode == 6, told
        assert why in told.stderr


def test_who_accepts_a_host_key_sees_the_address(lab: Lab) -> None:
    lab.gateway.write(KNOWN_HOSTS, "")
    words = filtered(lab, "forward", "--name", "f", "-o", "AddressFamily=inet", "server", "0:8888")
    terminal = lab.gateway.pty(words, user="root")
    terminal.expect_exact(f"authenticity of host 'server ({lab.server.address})'")
    terminal.expect_exact("(yes/no/[fingerprint])? ")
    terminal.sendline("yes")
    wait_until(lambda: is_running(of_forward(lab, "f"), 0), 10)
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    assert lab.gateway.run(["ssh-keygen", "-F", "server"]).stdout, "as ssh itself keeps it"
    terminal.close(force=True)


def test_what_goes_through_a_jump_host_is_left_to_ssh_and_status_says_so(vpn: Vpn) -> None:
    sshvpn(vpn.lab, "up", "server", "--no-lan", "-J", "alice@server")
    found = vpn.record()["congestion_control"]
    assert (found["local"], found["remote"]) == ("unknown", "bbr")
    assert "jump host" in found["notes"][0]
    vpn.down()


@pytest.mark.parametrize("transport", ["auto", "w"])
def test_everything_goes_through_the_tunnel_but_our_connection(
    lab: Lab, group: str, transport: str
) -> None:
    vpn = far_away(lab)
    sshvpn(lab, "up", *DEFAULT, "--transport", transport, group=group)
    assert vpn.record()["congestion_control"]["notes"] == [OURS]
    assert_all_goes_through(vpn, lab.lan, lab.gateway)
    redial(vpn)
    assert_all_goes_through(vpn, lab.lan, lab.gateway)
    vpn.down()

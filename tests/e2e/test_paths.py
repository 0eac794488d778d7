"""What paces the TCP connection under ssh: BBR at both ends, whatever the systems come with.

::

    gateway (reno) ── wan0 ══ TCP ══ wan0 ── server (reno)
                            the jump host, too, is the server: two connections to its port 22

What is asked is the kernel, by ss(8): the sockets as they are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sshvpn.remote.protocol import DEFAULT_LEASE_S
from tests.e2e.vpn import Vpn
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.machine import CHECKOUT

CONFIG = "/home/alice/.config/sshvpn/config.toml"
FORWARD = """
[forwards.f]
host = "server"
specs = ["0:8888"]
congestion_control = "both"
"""
CONTROL = "/proc/sys/net/ipv4/tcp_congestion_control"
_OPTIONS = """
import socket, sys
from contextlib import closing
from sshvpn.system.network.sockets import ProcessSockets
for pid in map(int, sys.argv[1:]):
    with closing(ProcessSockets(pid)) as process:
        for _, sock in process.borrow_all():
            try:
                ports = {sock.getpeername()[1], sock.getsockname()[1]}
            except OSError:
                continue
            if 22 in ports:
                tcp = socket.IPPROTO_TCP
                print(*(sock.getsockopt(tcp, name) for name in (socket.TCP_NODELAY, 18, 25)))
"""


@pytest.fixture
def lab_of_reno(lab: Lab) -> Iterator[Lab]:
    """Let both machines pace by reno what nobody asks otherwise for."""
    machines = (lab.gateway, lab.server)
    before = {machine.name: machine.read(CONTROL).strip() for machine in machines}
    for machine in machines:
        machine.run(["sh", "-c", f"echo reno >{CONTROL}"], user="root")
    yield lab
    for machine in machines:
        machine.run(["sh", "-c", f"echo {before[machine.name]} >{CONTROL}"], user="root")


@pytest.fixture
def vpn(lab_of_reno: Lab) -> Vpn:
    """Return an office whose server takes tunnels of root's."""
    return Vpn(lab_of_reno)


def paced_by(machine: LabMachine) -> list[str]:
    """Return what paces the connections of SSH at MACHINE, in alphabetical order."""
    words = ["ss", "-Htino", "state", "established", "( sport = 22 or dport = 22 )"]
    return sorted(re.findall(r"^\s+(?:\w+ )*?(bbr|reno|cubic)\b", ss(machine, words), re.MULTILINE))


def ss(machine: LabMachine, words: list[str]) -> str:
    return machine.run(words, user="root").stdout


def of_forward(lab: Lab, name: str) -> dict[str, Any]:
    records = json.loads(lab.sshvpn("status", name, "--json").stdout)["forwards"]
    return dict(records[0])


@pytest.mark.parametrize("transport", ["w", "stream"])
def test_both_ends_of_a_tunnel_are_paced_by_bbr_and_after_a_reconnect(
    vpn: Vpn, transport: str
) -> None:
    vpn.up("server", "--no-lan", "--transport", transport)
    both = {"local": "bbr", "remote": "bbr", "notes": []}
    assert vpn.record()["congestion_control"] == both
    assert paced_by(vpn.lab.gateway) == ["bbr"]
    assert paced_by(vpn.lab.server) == ["bbr"]
    assert "bbr here, bbr at the server" in vpn.log()
    vpn.lab.server.sshd.kill_sessions()
    wait_until(lambda: vpn.record()["reconnects"] == 1 and vpn.record()["state"] == "running", 30)
    assert vpn.record()["congestion_control"] == both
    assert paced_by(vpn.lab.gateway) == ["bbr"]
    # The old one may stand at the server for a moment.
    wait_until(lambda: paced_by(vpn.lab.server) == ["bbr"], 10)
    assert vpn.log().count("bbr here, bbr at the server") == 1, "told once, not at each reconnect"
    vpn.down()


def test_each_of_several_streams_is_paced_by_bbr_at_both_ends(vpn: Vpn) -> None:
    vpn.up("server", "--no-lan", "--transport", "stream", "--streams", "3")
    assert vpn.record()["congestion_control"] == {"local": "bbr", "remote": "bbr", "notes": []}
    assert paced_by(vpn.lab.gateway) == ["bbr"] * 3
    assert paced_by(vpn.lab.server) == ["bbr"] * 3
    vpn.down()


def test_a_login_with_sudo_is_paced_by_bbr_at_both_ends_too(lab_of_reno: Lab) -> None:
    vpn = Vpn(lab_of_reno, login="alice")
    vpn.up("server", "--no-lan")
    assert vpn.record()["congestion_control"] == {"local": "bbr", "remote": "bbr", "notes": []}
    assert paced_by(vpn.lab.server) == ["bbr"]
    vpn.down()


def test_through_a_jump_host_both_ends_are_paced_by_bbr(vpn: Vpn) -> None:
    vpn.up("server", "--no-lan", "-J", "alice@server")
    assert vpn.record()["congestion_control"] == {"local": "bbr", "remote": "bbr", "notes": []}
    assert paced_by(vpn.lab.gateway) == ["bbr"]
    # Those of the jump host are its own: what it sends to us, and to the server.
    assert paced_by(vpn.lab.server) == ["bbr", "reno", "reno"]
    vpn.down()


@pytest.mark.parametrize("transport", ["w", "stream"])
def test_the_kernel_has_the_other_options_at_both_ends(vpn: Vpn, transport: str) -> None:
    vpn.up("server", "--no-lan", "--transport", transport)
    # With the server's session goes what translates the open connections: it waits for us as
    # long as its lease, so that they outlive five minutes.
    for machine, waits_s in ((vpn.lab.gateway, 30), (vpn.lab.server, DEFAULT_LEASE_S)):
        found = machine.run([sys.executable, "-c", _OPTIONS, *map(str, machine.processes())],
                            user="root", cwd=str(CHECKOUT)).stdout  # fmt: skip
        # sshd's monitor and its session may both hold it.
        assert set(found.splitlines()) == {f"1 {waits_s}000 {128 << 10}"}, machine.name
    status = vpn.lab.sshvpn("status", "server").stdout
    assert re.search(r"congestion\s+bbr here, bbr at the server", status), status
    vpn.down()


def test_without_rights_at_the_server_its_end_stays_and_status_says_so(lab_of_reno: Lab) -> None:
    vpn = Vpn(lab_of_reno, login="alice")
    server = lab_of_reno.server
    server.run(["rm", "-f", "/etc/sudoers.d/alice"], user="root")
    server.ip("tuntap", "add", "dev", "tun8", "mode", "tun", "user", "alice")
    server.ip("address", "add", "10.83.0.2", "peer", "10.83.0.1", "dev", "tun8")
    server.ip("link", "set", "tun8", "up")
    config = '[tunnels.office]\nhost = "server"\nremote_device = "tun8"\naddress = "10.83.0.1/30"\n'
    lab_of_reno.gateway.write(CONFIG, config)
    lab_of_reno.sshvpn("up", "office", "--no-lan")
    found = vpn.record()["congestion_control"]
    assert (found["local"], found["remote"]) == ("bbr", "unknown")
    assert any("at the server: " in note for note in found["notes"]), found
    assert paced_by(lab_of_reno.gateway) == ["bbr"]
    assert paced_by(server) == ["reno"]
    vpn.down()
    server.ip("link", "delete", "tun8")


@pytest.mark.parametrize("engine", ["openssh", "sshtunnel"])
def test_both_ends_of_a_forward_are_paced_by_bbr(lab_of_reno: Lab, engine: str) -> None:
    lab = lab_of_reno
    lab.server.authorize("root")
    lab.gateway.write("/home/alice/.ssh/config", "Host server\n  User root\n")
    lab.gateway.write(CONFIG, FORWARD)
    lab.sshvpn("forward", "-b", "--engine", engine, "f")
    wait_until(lambda: of_forward(lab, "f")["congestion_control"]["remote"] == "bbr", 10)
    assert of_forward(lab, "f")["congestion_control"]["local"] == "bbr"
    assert paced_by(lab.gateway) == ["bbr"]
    assert paced_by(lab.server) == ["bbr"]
    lab.sshvpn("down", "f")


def test_a_forward_without_rights_at_the_server_paces_what_it_sends(lab_of_reno: Lab) -> None:
    lab = lab_of_reno
    lab.gateway.write(CONFIG, FORWARD)
    lab.sshvpn("forward", "-b", "f")
    wait_until(lambda: of_forward(lab, "f")["congestion_control"]["notes"], 10)
    found = of_forward(lab, "f")["congestion_control"]
    assert (found["local"], found["remote"]) == ("bbr", "unknown")
    assert "sudo" in found["notes"][0]
    assert paced_by(lab.gateway) == ["bbr"]
    assert paced_by(lab.server) == ["reno"]
    lab.sshvpn("down", "f")


@pytest.mark.parametrize("engine", ["openssh", "sshtunnel"])
def test_a_forward_runs_nothing_at_the_server_that_nobody_asked_for(
    lab_of_reno: Lab, engine: str
) -> None:
    lab = lab_of_reno
    lab.server.authorize("root")
    lab.gateway.write("/home/alice/.ssh/config", "Host server\n  User root\n")
    lab.sshvpn("forward", "-b", "--engine", engine, "--name", "f", "server", "0:8888")
    wait_until(lambda: of_forward(lab, "f")["congestion_control"]["local"] == "bbr", 10)
    assert of_forward(lab, "f")["congestion_control"]["remote"] == "unknown"
    assert paced_by(lab.server) == ["reno"]
    assert "Starting session" not in lab.server.sshd.log
    lab.sshvpn("down", "f")


@pytest.mark.parametrize(("value", "ends"), [("local", ("bbr", "reno")), ("off", ("reno", "reno"))])
def test_a_profile_turns_it_off(lab_of_reno: Lab, value: str, ends: tuple[str, str]) -> None:
    lab = lab_of_reno
    vpn = Vpn(lab)
    config = f'[tunnels.office]\nhost = "server"\ncongestion_control = "{value}"\n'
    lab.gateway.write(CONFIG, config)
    lab.sshvpn("up", "office", "--no-lan")
    assert (paced_by(lab.gateway), paced_by(lab.server)) == ([ends[0]], [ends[1]])
    vpn.down()

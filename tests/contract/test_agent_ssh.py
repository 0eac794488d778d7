"""The agent behind a real ssh, as every login that it supports.

gateway (alice, tun9) ═══ ssh -w ═══ server ──inner0── inner
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterator

import pytest

from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Beat, Ended, Facts, Failed, Mode, Publication, RemoteEnd, Rights
from tests.contract import agent_site
from tests.contract.agent_site import BUSYBOX_IP, LABEL, NO_PROPERTY, Agent, other_ip, start_by
from tests.lab import Lab, wait_until
from tests.lab.dump import difference

END = RemoteEnd(
    addresses=(ipaddress.ip_interface("10.83.0.2/30"), ipaddress.ip_interface("fd83::2/64")),
    masquerade=(ipaddress.ip_network("10.83.0.0/30"), ipaddress.ip_network("fd83::/64")),
    forward=("inner0",),
    published=(Publication("10.83.0.2", 8888, "127.0.0.1", 8888),),
)
EMPTY_PACKET = """
import socket
here, there = socket.inet_aton("10.83.0.2"), socket.inet_aton("10.83.0.1")
header = bytes([0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0]) + here + there
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for _ in range(5):
    try:
        raw.sendto(header, ("10.83.0.1", 0))
    except PermissionError:
        pass  # what the guard does
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Build a laboratory whose server permits tunnels; alice on the gateway has a tun."""
    with Lab() as made:
        made.server.sshd.restart(PermitTunnel="yes")
        made.server.authorize("root")
        made.checkpoint()
        agent_site.make_tun(made.gateway, "tun9", "alice")
        yield made
        made.gateway.ip("link", "delete", "tun9")
        made.check()


def login(
    lab: Lab, who: str, *, unit: str = "", mode: Mode = Mode.SERVE, lease_s: int = 600
) -> Agent:
    nonce = secrets.token_hex(16)
    command = protocol.remote_command(
        agent_script(), nonce=nonce, label=LABEL, mode=mode, lease_s=lease_s
    )
    tunnel = ["-w", f"9:{unit}", "-o", "ExitOnForwardFailure=yes"] if unit else []
    argv = ["ssh", *tunnel, "-o", "ControlPath=none", f"{who}@server", command]
    return start_by(lab.gateway, argv, nonce, user="alice")


def use(lab: Lab) -> None:
    """Set up the gateway's end."""
    lab.gateway.ip("link", "set", "dev", "tun9", "mtu", "16380", "up")
    lab.gateway.ip("address", "add", "10.83.0.1/30", "dev", "tun9")
    lab.gateway.ip("route", "add", "10.20.0.0/24", "dev", "tun9")


def undo_use(lab: Lab) -> None:
    lab.gateway.ip("address", "flush", "dev", "tun9")
    lab.gateway.ip("link", "set", "dev", "tun9", "down", "mtu", "1500")


def fetch(lab: Lab, url: str) -> str:
    return lab.gateway.run(["curl", "-fsS", "-m", "5", url], check=False, timeout=60).stdout


def pings(machine: object, address: str) -> bool:
    run = machine.run(["ping", "-c1", "-W1", address], check=False)  # type: ignore[attr-defined]
    return bool(run.returncode == 0)


def test_root_serves_the_tunnel_and_only_what_was_asked_for(lab: Lab) -> None:
    before = lab.server.dump()
    lab.server.http_server(8888)
    lab.server.http_server(9999)
    agent = login(lab, "root", unit="any")
    facts = agent.expect(Facts)
    assert (facts.rights, facts.user) == (Rights.ROOT, "root")
    assert facts.device is not None
    assert facts.device.name == "tun0"
    agent.configure(END)
    use(lab)
    wait_until(lambda: pings(lab.gateway, "10.83.0.2"), what="no packet crosses the tunnel")
    assert "server" in fetch(lab, "http://10.83.0.2:8888/")
    assert pings(lab.gateway, "10.20.0.10")
    # Nothing else of 127/8, and nobody else through the adapters that forward now.
    assert "server" not in fetch(lab, "http://10.83.0.2:9999/")
    lab.gateway.ip("route", "add", "127.1.0.0/16", "dev", "tun9")
    assert not pings(lab.gateway, "127.1.0.1")
    lab.gateway.ip("route", "delete", "127.1.0.0/16", "dev", "tun9")
    lab.internet.ip("route", "add", "10.20.0.0/24", "via", "203.0.113.20")
    lab.inner.ip("route", "replace", "198.51.100.0/24", "via", "10.20.0.1")
    assert not pings(lab.internet, "10.20.0.10")
    assert not pings(lab.inner, "203.0.113.10")
    lab.internet.ip("route", "delete", "10.20.0.0/24")
    lab.inner.ip("route", "delete", "198.51.100.0/24")
    # Packets that OpenSSH's tun dies of stay away; segments beyond the MTU are cut, not dropped.
    lab.server.python(EMPTY_PACKET, user="root")
    size = 20_000_000
    assert len(fetch(lab, f"http://10.83.0.2:8888/bytes/{size}")) == size
    assert pings(lab.gateway, "10.83.0.2")
    agent.send(protocol.END)
    assert agent.expect(Ended).reason == "end"
    agent.child.kill_tree()
    undo_use(lab)
    lab.server.undo()
    agent_site.processes_gone(lab)
    wait_until(lambda: not difference(before, lab.server.dump(), "server"), what="not as before")


def test_a_client_that_is_killed_leaves_nothing(lab: Lab) -> None:
    before = lab.server.dump()
    agent = login(lab, "root", unit="any")
    agent.expect(Facts)
    agent.configure(END)
    agent.child.kill_tree()
    agent_site.processes_gone(lab)
    wait_until(lambda: not difference(before, lab.server.dump(), "server"), what="not as before")


def test_when_the_lease_ends_the_session_ends_too(lab: Lab) -> None:
    before = lab.server.dump()
    agent = login(lab, "root", unit="any", lease_s=2)
    agent.expect(Facts)
    agent.configure(END)
    agent.child.wait(20)
    wait_until(lambda: not difference(before, lab.server.dump(), "server"), what="not as before")


def test_a_new_connection_ends_the_session_of_a_stale_one(lab: Lab) -> None:
    stale = login(lab, "root", unit="any")
    stale.expect(Facts)
    stale.configure(END)
    agent_site.make_tun(lab.gateway, "tun10", "alice")
    lab.gateway.run(["ip", "link", "set", "tun9", "name", "tun19"], user="root")
    lab.gateway.run(["ip", "link", "set", "tun10", "name", "tun9"], user="root")
    fresh = login(lab, "root", unit="any")
    facts = fresh.expect(Facts)
    assert facts.device is not None
    stale.child.wait(10)
    assert "tun0" not in lab.server.ip("-brief", "link")
    fresh.configure(END)
    fresh.end_by_ssh()
    lab.gateway.run(["ip", "link", "delete", "tun9"], user="root")
    lab.gateway.run(["ip", "link", "set", "tun19", "name", "tun9"], user="root")


def test_a_login_with_sudo_gets_a_device_of_its_own(lab: Lab) -> None:
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    lab.server.http_server(8888)
    for _ in range(2):  # the second time there is a stale session to be ended
        first = login(lab, "alice", mode=Mode.PREPARE)
        unit = first.expect(protocol.Unit).number
        assert first.expect(Facts).rights is Rights.SUDO
        agent = login(lab, "alice", unit=str(unit), mode=Mode.ADOPT)
        facts = agent.expect(Facts)
        assert (facts.rights, facts.user, facts.uid) == (Rights.SUDO, "alice", 1000)
        assert facts.device is not None
        assert facts.device.owner == 1000
        assert first.expect(Ended).reason == "replaced"
        first.close()
        first.child.wait(10)
        agent.configure(END)
        agent.send(protocol.beat(3))
        assert agent.expect(Beat).number == 3
        use(lab)
        wait_until(lambda: pings(lab.gateway, "10.83.0.2"), what="no packet crosses")
        assert "server" in fetch(lab, "http://10.83.0.2:8888/")
        undo_use(lab)
        stale = agent
        stale.child.kill_tree()
    agent_site.processes_gone(lab)
    lab.server.undo()
    wait_until(lambda: not difference(before, lab.server.dump(), "server"), what="not as before")


def test_a_prepared_device_that_nobody_opens_goes_with_its_lease(lab: Lab) -> None:
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    agent = login(lab, "alice", mode=Mode.PREPARE)
    agent.expect(protocol.Unit)
    agent.expect(Facts)
    assert "sshvpnr" in lab.server.ip("-brief", "link")
    agent.close()
    assert agent.expect(Ended).reason == "input ended"
    assert agent.child.wait(10) == 0
    assert not difference(before, lab.server.dump(), "server")


def test_a_prepared_device_that_had_to_be_renamed_goes_too(lab: Lab) -> None:
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    with other_ip(lab.server, NO_PROPERTY):
        unopened = login(lab, "alice", mode=Mode.PREPARE)
        unopened.expect(protocol.Unit)
        facts = unopened.expect(Facts)
        assert facts.device is not None
        assert facts.device.name == "tun5600"
        unopened.close()
        assert unopened.expect(Ended).reason == "input ended"
        assert unopened.child.wait(10) == 0
        assert not difference(before, lab.server.dump(), "server")
        for _ in range(2):  # the second time there is a stale session to be ended
            first = login(lab, "alice", mode=Mode.PREPARE)
            unit = first.expect(protocol.Unit).number
            first.expect(Facts)
            agent = login(lab, "alice", unit=str(unit), mode=Mode.ADOPT)
            facts = agent.expect(Facts)
            assert facts.device is not None
            assert (facts.device.name, facts.device.owner) == ("tun5600", 1000)
            assert first.expect(Ended).reason == "replaced"
            first.close()
            first.child.wait(10)
            agent.configure(END)
            agent.configure(END)
            use(lab)
            wait_until(lambda: pings(lab.gateway, "10.83.0.2"), what="no packet crosses")
            undo_use(lab)
            agent.child.kill_tree()
        agent_site.processes_gone(lab)
        assert not difference(before, lab.server.dump(), "server")
    assert not lab.server.exists("/run/sshvpn-agent")


@pytest.mark.parametrize("mode", [Mode.STREAM, Mode.STREAMS])
def test_a_server_whose_ip_is_busyboxs_makes_a_device_of_its_own(lab: Lab, mode: Mode) -> None:
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    with other_ip(lab.server, BUSYBOX_IP):
        agent = login(lab, "alice", mode=mode)
        facts = agent.expect(Facts)
        assert (facts.ip, facts.rights) == ("busybox", Rights.SUDO)
        assert facts.device is not None
        assert (facts.device.name, facts.device.owner) == ("sshvpnr5600", 1000)
        link = lab.server.run(["/run/ip/real", "-d", "link", "show", "sshvpnr5600"], user="root")
        assert ("multi_queue" in link.stdout) == (mode is Mode.STREAMS)
        assert "persist on" in link.stdout
        agent.configure(END)
        assert agent.end() == "end"
    assert not difference(before, lab.server.dump(), "server")


def test_a_server_whose_ip_is_busyboxs_prepares_a_device(lab: Lab) -> None:
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    with other_ip(lab.server, BUSYBOX_IP):
        first = login(lab, "alice", mode=Mode.PREPARE)
        unit = first.expect(protocol.Unit).number
        first.expect(Facts)
        agent = login(lab, "alice", unit=str(unit), mode=Mode.ADOPT)
        facts = agent.expect(Facts)
        assert facts.device is not None
        assert (facts.device.name, facts.device.owner) == ("tun5600", 1000)
        assert first.expect(Ended).reason == "replaced"
        first.close()
        first.child.wait(10)
        agent.configure(END)
        use(lab)
        wait_until(lambda: pings(lab.gateway, "10.83.0.2"), what="no packet crosses the tunnel")
        undo_use(lab)
        agent.end_by_ssh()
    agent_site.processes_gone(lab)
    assert not difference(before, lab.server.dump(), "server")


def test_a_device_of_somebody_else_is_not_taken_for_one_that_was_renamed(lab: Lab) -> None:
    lab.server.allow_sudo("alice")
    with other_ip(lab.server, NO_PROPERTY):
        agent = login(lab, "alice", mode=Mode.PREPARE)
        agent.expect(protocol.Unit)
        agent.expect(Facts)
        lab.server.ip("link", "delete", "dev", "tun5600")
        lab.server.ip("link", "add", "tun5600", "type", "bridge")
        agent.close()
        agent.expect(Ended)
        agent.child.wait(10)
    assert "tun5600" in lab.server.ip("-brief", "link")
    lab.server.ip("link", "delete", "dev", "tun5600")


def test_a_login_without_rights_holds_a_device_that_the_administrator_made(lab: Lab) -> None:
    agent_site.make_tun(lab.server, "tun8", "alice")
    lab.server.ip("link", "set", "dev", "tun8", "up")
    lab.server.ip("address", "add", "10.83.0.2/30", "dev", "tun8")
    agent = login(lab, "alice", unit="8")
    facts = agent.expect(Facts)
    assert (facts.rights, facts.rights_code) == (Rights.NONE, "no_sudo")
    assert facts.device is not None
    assert (facts.device.name, facts.device.is_up) == ("tun8", True)
    use(lab)
    wait_until(lambda: pings(lab.gateway, "10.83.0.2"), what="no packet crosses the tunnel")
    # The next connection of the label ends this one, which holds the device.
    again = login(lab, "alice")
    again.expect(Facts)
    agent.child.wait(10)
    again.send(*END.lines())
    failed = again.expect(Failed)
    assert (failed.code, "NOPASSWD" in failed.text) == ("no_sudo", True)
    undo_use(lab)
    assert "10.83.0.2/30" in lab.server.ip("address", "show", "tun8")
    lab.server.ip("link", "delete", "tun8")


SHELLS = {
    "/usr/bin/bash": ".bashrc",
    "/usr/bin/dash": "",
    "/usr/bin/zsh": ".zshenv",
    "/usr/bin/fish": ".config/fish/config.fish",
    "/usr/bin/tcsh": ".tcshrc",
    "/var/ash": "",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell_starts_it_whatever_it_prints(lab: Lab, shell: str) -> None:
    if shell == "/var/ash":
        lab.server.run(["cp", "/usr/bin/busybox", shell], user="root")
    elif not lab.server.exists(shell):
        pytest.skip(f"{shell} is not installed")
    lab.server.run(["usermod", "--shell", shell, "alice"], user="root")
    if SHELLS[shell]:
        noise = 'echo "Welcome! hello 1"; printf "no line end"; echo oops >/dev/stderr\n'
        lab.server.write(f"/home/alice/{SHELLS[shell]}", noise.replace("!", "."))
    agent = login(lab, "alice")
    facts = agent.expect(Facts)
    assert (facts.user, facts.rights) == ("alice", Rights.NONE)
    assert not SHELLS[shell] or agent.raw[0].startswith("Welcome")
    assert agent.end() == "end"

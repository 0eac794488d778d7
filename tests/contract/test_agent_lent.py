"""A tun of the server's administrator, lent to a pump that is killed: it goes back as it was.

server: the agent │ the pump (this machine's own code), both of one login; tun7 (persistent)
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Ended, Facts, Mode
from sshvpn.stream import frames
from tests.contract.agent_site import (
    DEVICE,
    LABEL,
    SETTINGS,
    Agent,
    Setting,
    make_server,
    start_by,
)
from tests.lab import Child, LabMachine, wait_until
from tests.lab.offloads import has_offloads

PUMP = "import sys; from sshvpn.stream.process import serve; sys.exit(serve(*sys.argv[1:]))"
NONCE = "0123456789abcdef"


@pytest.fixture
def server(queues: str) -> Iterator[LabMachine]:
    machine = make_server()
    words = ["multi_queue"] if queues == "many" else []
    machine.ip("tuntap", "add", "dev", DEVICE, "mode", "tun", "user", "alice", *words)
    machine.ip("link", "set", "dev", DEVICE, "up")
    yield machine
    machine.close()


def begin_pump(server: LabMachine, queues: str) -> Child:
    """Start a pump; the kernel gives it whole segments."""
    argv = [sys.executable, "-c", PUMP, NONCE, queues]
    child = server.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    server._undo.callback(child.end)
    assert child.stdin is not None
    child.stdin.write(DEVICE + "\n" + frames.hello(0).decode("ascii"))
    child.stdin.flush()
    carrier = f"/sys/class/net/{DEVICE}/carrier"
    wait_until(lambda: has_offloads(server, DEVICE) and server.read(carrier) == "1\n")
    return child


def end_pump(pump: Child) -> None:
    """End its input, as sshd does; it gives the device back."""
    assert pump.stdin is not None
    pump.stdin.close()
    pump.wait(10)


def begin_agent(
    server: LabMachine, queues: str, setting: Setting = SETTINGS["dash-nft"], user: str = "alice"
) -> Agent:
    mode = Mode.STREAMS if queues == "many" else Mode.STREAM
    nonce = secrets.token_hex(16)
    command = protocol.remote_command(
        agent_script(), nonce=nonce, label=LABEL, mode=mode, device=DEVICE
    )
    argv = ["sh", "-c", command]
    if user == "root":
        argv = ["unshare", "--mount", "bash", "-c", f"{setting.script()}\n{command}"]
    agent = start_by(server, argv, nonce, user=user)
    agent.expect(Facts)
    return agent


def end(agent: Agent, how: str) -> None:
    if how == "told":
        assert agent.end() == "end"
        return
    agent.close()
    assert agent.expect(Ended).reason == "input ended"


def flags(server: LabMachine) -> str:
    return server.read(f"/sys/class/net/{DEVICE}/tun_flags").strip()


@pytest.mark.parametrize(
    ("queues", "rights", "how"),
    [
        ("one", "none", "told"),
        ("many", "none", "input ends"),
        ("one", "sudo", "input ends"),
        ("many", "sudo", "told"),
    ],
)
def test_a_pump_that_is_killed_leaves_no_segments_to_who_opens_it_next(
    server: LabMachine, queues: str, rights: str, how: str
) -> None:
    if rights == "sudo":
        server.allow_sudo("alice")
    before = flags(server)
    assert not has_offloads(server, DEVICE)
    agent = begin_agent(server, queues)
    pump = begin_pump(server, queues)
    pump.kill_tree()
    pump.wait(10)
    assert has_offloads(server, DEVICE), "nobody has mended it so far"
    end(agent, how)
    assert not has_offloads(server, DEVICE)
    assert flags(server) == before


@pytest.mark.parametrize(("queues", "setting"), [("one", "bash-nft"), ("many", "busybox-nft")])
def test_in_any_shell(server: LabMachine, queues: str, setting: str) -> None:
    agent = begin_agent(server, queues, SETTINGS[setting], "root")
    pump = begin_pump(server, queues)
    pump.kill_tree()
    pump.wait(10)
    end(agent, "told")
    assert not has_offloads(server, DEVICE)


@pytest.mark.parametrize("queues", ["one"])
def test_what_a_login_left_that_was_killed_whole_the_next_one_mends(
    server: LabMachine, queues: str
) -> None:
    for child in (begin_agent(server, queues).child, begin_pump(server, queues)):
        child.kill_tree()
        child.wait(10)
    assert has_offloads(server, DEVICE)
    agent = begin_agent(server, queues)
    pump = begin_pump(server, queues)
    end_pump(pump)
    end(agent, "told")
    assert not has_offloads(server, DEVICE)


@pytest.mark.parametrize("queues", ["one", "many"])
def test_a_pump_that_still_runs_keeps_its_own(server: LabMachine, queues: str) -> None:
    agent = begin_agent(server, queues)
    pump = begin_pump(server, queues)
    end(agent, "told")
    assert has_offloads(server, DEVICE)
    end_pump(pump)
    assert not has_offloads(server, DEVICE)

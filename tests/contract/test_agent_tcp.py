"""The agent tunes the TCP connection of its session: in every shell, as root or not at all.

::

    holder: both ends of a TCP connection over lo, by reno     as sshd would hold one of them
       └── agent, with SSH_CONNECTION                          root, or alice with and without sudo
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator

import pytest

from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Applied, Ended, Facts, Failed, Mode, TcpOptions, Tuned
from tests.contract import agent_site
from tests.contract.agent_site import DEVICE, LABEL, SETTINGS, Agent, Setting, start_by
from tests.lab import LabMachine
from tests.lab.dump import difference

SHELLS = ("dash-nft", "bash-nft", "busybox-nft")
OPTIONS = TcpOptions(user_timeout_s=42, notsent_lowat=65536)
AS_IT_WAS = {"by": "reno", "nodelay": 0, "user_timeout_ms": 0}

# Holds the connection, runs the words it is given, and prints at their end how it stands.
HOLDER = """
import json, os, socket, subprocess, sys
tcp = socket.IPPROTO_TCP
listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
client = socket.create_connection(listener.getsockname()[:2])
server, _ = listener.accept()
for sock in (client, server):
    sock.setsockopt(tcp, socket.TCP_CONGESTION, b"reno")
ends = [f"{end.getsockname()[0]} {end.getsockname()[1]}" for end in (client, server)]
done = subprocess.run(sys.argv[2:], env={**os.environ, "SSH_CONNECTION": " ".join(ends)})
print(json.dumps([{
    "by": sock.getsockopt(tcp, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode(),
    "nodelay": sock.getsockopt(tcp, socket.TCP_NODELAY),
    "user_timeout_ms": sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT),
} for sock in (server, client)]))
"""


@pytest.fixture
def server() -> Iterator[LabMachine]:
    machine = agent_site.make_server()
    yield machine
    machine.close()


def start(
    machine: LabMachine, setting: Setting, mode: Mode, *, user: str = "root", before: str = ""
) -> Agent:
    """Start the agent below a process that holds the connection of its session."""
    nonce = secrets.token_hex(16)
    command = protocol.remote_command(agent_script(), nonce=nonce, label=LABEL, mode=mode)
    script = f"{before}\n{setting.script()}\n{command}"
    inside = ["unshare", "--mount", "bash", "-c", script]
    if user != "root":
        inside = ["sh", "-c", command]
    tunnel = DEVICE if mode is Mode.SERVE else ""
    return start_by(
        machine, [sys.executable, "-c", HOLDER, "-", *inside], nonce, user=user, tunnel=tunnel
    )


def sockets_at_end(agent: Agent) -> list[dict[str, object]]:
    """Return how the server's and the client's socket stand when the agent has ended."""
    agent.close()
    assert agent.child.stdout is not None
    *_, last = agent.child.stdout.read().splitlines()
    found: list[dict[str, object]] = json.loads(last)
    return found


@pytest.mark.parametrize("setting", SHELLS)
def test_a_session_of_its_own_tunes_the_connection_and_nothing_else(
    server: LabMachine, setting: str
) -> None:
    before = server.dump()
    agent = start(server, SETTINGS[setting], Mode.TCP)
    agent.send(OPTIONS.words)
    assert agent.expect(Tuned) == Tuned("bbr")
    assert agent.expect(Ended).reason == "tuned"
    ours, other = sockets_at_end(agent)
    assert ours == {"by": "bbr", "nodelay": 1, "user_timeout_ms": 42000}
    assert other == AS_IT_WAS
    assert not difference(before, server.dump(), "server")


@pytest.mark.parametrize("setting", SHELLS)
def test_the_agent_of_a_tunnel_tunes_beside_its_work(server: LabMachine, setting: str) -> None:
    agent_site.make_tun(server)
    agent = start(server, SETTINGS[setting], Mode.SERVE)
    agent.expect(Facts)
    agent.send(OPTIONS.words, *protocol.RemoteEnd().lines())
    said = [agent.next(), agent.next()]
    assert sorted(map(str, said)) == sorted(map(str, (Tuned("bbr"), Applied())))
    agent.send(protocol.END)
    agent.expect(Ended)
    assert [end["by"] for end in sockets_at_end(agent)] == ["bbr", "reno"]


@pytest.mark.parametrize("setting", SHELLS)
def test_without_python_it_says_so(server: LabMachine, setting: str) -> None:
    hide = "for python in $(type -a -p python3); do mount --bind /dev/null $python; done"
    agent = start(server, SETTINGS[setting], Mode.TCP, before=hide)
    agent.send(OPTIONS.words)
    assert agent.expect(Tuned).code == "no_python"
    assert agent.expect(Ended).reason == "tuned"
    assert sockets_at_end(agent) == [AS_IT_WAS, AS_IT_WAS]


def test_a_login_without_rights_is_told_why(server: LabMachine) -> None:
    agent = start(server, SETTINGS["dash-nft"], Mode.TCP, user="alice")
    agent.send(OPTIONS.words)
    told = agent.expect(Tuned)
    assert (told.congestion_control, told.code) == (None, "no_sudo")
    assert "NOPASSWD" in told.text
    assert sockets_at_end(agent) == [AS_IT_WAS, AS_IT_WAS]


def test_a_login_with_sudo_tunes_the_same(server: LabMachine) -> None:
    server.allow_sudo("alice")
    agent = start(server, SETTINGS["dash-nft"], Mode.TCP, user="alice")
    agent.send(OPTIONS.words)
    assert agent.expect(Tuned) == Tuned("bbr")
    assert [end["by"] for end in sockets_at_end(agent)] == ["bbr", "reno"]


@pytest.mark.parametrize(
    "words", ["nobody", "", "UNKNOWN 65535 UNKNOWN 65535", "::1 1 ::1 $(id)", "::1 9 ::1 22"]
)
def test_a_session_without_a_connection_of_its_own_is_left_alone(
    server: LabMachine, words: str
) -> None:
    before = f"export SSH_CONNECTION='{words}'"
    agent = start(server, SETTINGS["dash-nft"], Mode.TCP, before=before)
    agent.send(OPTIONS.words)
    assert agent.expect(Tuned).code == "no_socket"
    assert sockets_at_end(agent) == [AS_IT_WAS, AS_IT_WAS]


@pytest.mark.parametrize("line", ["tcp", "tcp 0 1", "tcp 30 x", "tcp 30 1 1", "tcp -1 1", "beat 1"])
def test_a_line_that_is_none_is_refused(server: LabMachine, line: str) -> None:
    agent = start(server, SETTINGS["dash-nft"], Mode.TCP)
    agent.send(line)
    assert agent.expect(Failed).code == "usage"
    assert sockets_at_end(agent) == [AS_IT_WAS, AS_IT_WAS]

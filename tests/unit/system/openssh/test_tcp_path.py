"""What both ends of a connection get, and what is told of it; with real sockets of this machine."""

from __future__ import annotations

import ast
import asyncio
import socket
from pathlib import Path

import pytest

from sshvpn.errors import PrivilegeError
from sshvpn.model import TcpPath
from sshvpn.path_report import path_record
from sshvpn.remote import agent_script, tcp_socket
from sshvpn.remote.protocol import TcpOptions, Tuned
from sshvpn.system.openssh import tcp_path

OPTIONS = TcpOptions(30)


def test_nobody_waits_longer_for_an_acknowledgement_than_for_a_sign_of_life() -> None:
    def timeout_s(interval: str, count: str = "3") -> int:
        config = {"serveraliveinterval": (interval,), "serveralivecountmax": (count,)}
        return tcp_path.options_for(config).user_timeout_s

    assert timeout_s("0") == 30, "nothing was said: ours is shorter than that"
    assert timeout_s("5") == 30
    assert timeout_s("60") == 240
    assert timeout_s("2147483647", "2147483647") == 86400
    assert tcp_path.options_for({}).user_timeout_s == 30


@pytest.fixture
def sock() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    return made


def test_a_socket_gets_its_options_twice_alike(sock: socket.socket) -> None:
    with sock:
        names = [tcp_socket.tune(sock, 30, 65536) for _ in range(2)]
        assert names[0] == names[1]
        tcp = socket.IPPROTO_TCP
        assert sock.getsockopt(tcp, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 30_000


def test_what_only_root_may_choose_is_asked_of_the_helper(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(_: socket.socket, name: str) -> None:
        raise PermissionError(1, name)

    async def chooser(_: socket.socket, name: str) -> None:
        asked.append(name)
        if name == "bbr":
            raise PrivilegeError("no bbr in this kernel")

    monkeypatch.setattr(tcp_socket, "choose", refuse)
    with sock:
        name, note = asyncio.run(tcp_path.tune_socket(sock, OPTIONS, chooser))
    assert asked == ["bbr", "cubic"]
    assert name == "reno", "the helper of this test changes nothing"
    assert "bbr" in note


def test_somebodys_choice_stays() -> None:
    assert "dctcp" not in tcp_socket.BETTER
    assert "bbr" not in tcp_socket.BETTER


def test_a_connection_that_cannot_be_had_is_a_note() -> None:
    name, note = asyncio.run(tcp_path.tune_socket(None, OPTIONS, None))
    assert name is None
    assert note


def test_the_outcome_tells_of_both_ends() -> None:
    assert tcp_path.outcome(("bbr", ""), Tuned("bbr")) == TcpPath("bbr", "bbr")
    path = tcp_path.outcome(("cubic", "why"), Tuned(None, "no_python", "no python3"))
    assert path == TcpPath("cubic", None, ("why", "at the server: no python3"))
    assert "modprobe" in tcp_path.outcome(("bbr", ""), Tuned("cubic")).notes[0]
    assert path_record(None) == {"local": "unknown", "remote": "unknown", "notes": []}
    assert path_record(path)["notes"] == ["why", "at the server: no python3"]


def test_a_server_that_refuses_for_good_is_asked_once_a_session() -> None:
    answers = [Tuned(None, "silent"), Tuned("bbr"), Tuned(None, "no_sudo", "why"), Tuned("bbr")]
    end = tcp_path.FarEnd()

    async def ask() -> Tuned:
        return answers.pop(0)

    async def tune() -> list[Tuned]:
        return [await end.tune(ask) for _ in range(5)]

    found = asyncio.run(tune())
    assert [one.code for one in found] == ["silent", "", "no_sudo", "no_sudo", "no_sudo"]
    assert len(answers) == 1


def test_the_servers_half_runs_on_an_old_python_and_in_a_shells_quotes() -> None:
    text = Path(tcp_socket.__file__).read_text(encoding="ascii")
    ast.parse(text, feature_version=(3, 6))
    script = agent_script()
    begin = script.index("tcp_program='") + len("tcp_program='")
    program = script[begin : script.index("'", begin)]
    names = {"__name__": "a test"}
    exec(compile(program, "program", "exec"), names)  # noqa: S102 (it is ours)
    assert {"tune", "connection_of", "main"} <= set(names)


@pytest.mark.parametrize("options", [(0, 1), (86401, 1), (1, 0), (1, 10**9)])
def test_options_that_no_socket_takes_are_refused(options: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="TCP socket"):
        TcpOptions(*options)

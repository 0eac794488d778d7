"""What both ends of a connection get, and what is told of it; with real sockets of this machine."""

from __future__ import annotations

import ast
import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sshvpn.errors import PrivilegeError
from sshvpn.model import TcpPath
from sshvpn.path_report import path_record
from sshvpn.remote import agent_script, tcp_socket
from sshvpn.remote.protocol import TcpOptions, Tuned
from sshvpn.system.network import sockets
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


@pytest.mark.parametrize(
    ("available", "note"),
    [
        ("reno cubic\n", "as root, modprobe tcp_bbr"),
        ("reno cubic bbr\n", "net.ipv4.tcp_allowed_congestion_control"),
        (None, "as root, modprobe tcp_bbr"),
    ],
    ids=["no bbr", "bbr is root's", "no such file"],
)
def test_without_bbr_the_rest_is_set_and_the_note_says_what_mends_it(
    sock: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    available: str | None,
    note: str,
) -> None:
    file = tmp_path / "available"
    if available is not None:
        file.write_text(available)
    monkeypatch.setattr(tcp_path, "_AVAILABLE", file)
    choose = tcp_socket.choose

    def choose_but_bbr(which: socket.socket, name: str) -> None:
        if name == "bbr":
            raise FileNotFoundError(2, "No such file or directory")
        choose(which, name)

    monkeypatch.setattr(tcp_socket, "choose", choose_but_bbr)
    with sock:
        name, told = asyncio.run(tcp_path.tune_socket(sock, OPTIONS, None))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert name in ("cubic", "reno"), "this kernel's own, if it has cubic"
    assert note in told


def test_where_nobody_may_look_into_sshd_the_servers_half_says_so_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Yama does it: the descriptors are listed for root, and none is handed out."""
    monkeypatch.setattr(tcp_socket, "_borrow", lambda *_: -1)
    with socket.create_server(("127.0.0.1", 0)), pytest.raises(tcp_socket.NoSocketError) as caught:
        tcp_socket.connection_of(os.getpid(), 1, 22)
    assert str(caught.value).startswith("no_ptrace ")


def test_an_incomplete_python_of_the_server_is_told_as_such() -> None:
    """Debian's python3-minimal carries packets, and has no ctypes."""
    text = Path(tcp_socket.__file__).read_text()
    code = "import sys; sys.modules['ctypes'] = None; exec(sys.argv.pop(1))"
    with socket.create_server(("127.0.0.1", 0)):
        words = [sys.executable, "-I", "-S", "-c", code, text, str(os.getpid()), *"1234"]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert told == "- no_ctypes python3 there is not a whole one: it has no ctypes\n"


def test_where_the_kernel_hands_out_no_descriptor_our_end_is_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "_pidfd_getfd", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with client:
            assert sockets.TransportSocket.of_process(os.getpid()) is None


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

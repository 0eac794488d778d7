"""A connection of ours: when it is made, by which address, and that ssh's way of asking gets it."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshvpn.errors import UnreachableError
from sshvpn.system.network import sockets
from sshvpn.system.openssh import handover
from sshvpn.system.openssh.handover import Target, connect, handed_over, target_of
from sshvpn.system.ssh.config import Config
from sshvpn.system.ssh.peers import FirstHop

CONFIG: Config = {
    "hostname": ("server",),
    "port": ("22",),
    "addressfamily": ("any",),
    "checkhostip": ("no",),
    "canonicalizehostname": ("false",),
    "canonicalizepermittedcnames": ("none",),
    "connectionattempts": ("1",),
    "connecttimeout": ("none",),
    "tcpkeepalive": ("yes",),
}
"""As ``ssh -G`` says it of a host that nobody has configured."""


def configured(**changed: str) -> Config:
    return {**CONFIG, **{key: (value,) for key, value in changed.items()}}


def test_what_ssh_would_connect_to_is_taken_from_its_configuration() -> None:
    hop = FirstHop("server", 22, socket.AF_UNSPEC)
    assert target_of(CONFIG, None) == Target(hop, None, 10, 1, keeps_alive=True)
    config = configured(
        hostname="fd20::1", port="2222", addressfamily="inet6", bindaddress="fd20::2",
        connecttimeout="3", connectionattempts="2", tcpkeepalive="no",
    )  # fmt: skip
    hop = FirstHop("fd20::1", 2222, socket.AF_INET6)
    assert target_of(config, None) == Target(hop, "fd20::2", 3, 2, keeps_alive=False)


def test_the_last_good_address_stands_for_the_name() -> None:
    target = target_of(CONFIG, "203.0.113.20")
    assert isinstance(target, Target)
    assert target.hop.host == "203.0.113.20"


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("proxycommand", "nc %h %p", "proxy"),
        ("proxyjump", "jump", "jump host"),
        ("checkhostip", "yes", "CheckHostIP"),
        ("canonicalizehostname", "true", "CanonicalizeHostname"),
        ("canonicalizehostname", "always", "CanonicalizeHostname"),
        ("canonicalizepermittedcnames", "*.a:*.b", "CanonicalizePermittedCNAMEs"),
        ("bindinterface", "eth0", "BindInterface"),
    ],
)
def test_what_ssh_does_only_by_itself_is_left_to_it(key: str, value: str, why: str) -> None:
    told = target_of(configured(**{key: value}), None)
    assert isinstance(told, str)
    assert why in told


def test_where_the_kernel_lends_sshs_own_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "may_borrow", lambda: True)
    assert handover.ours_for(CONFIG, None) == ""
    monkeypatch.setattr(handover, "may_borrow", lambda: False)
    assert handover.ours_for(CONFIG, None) == target_of(CONFIG, None)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def target(listener: socket.socket, **changed: object) -> Target:
    hop = FirstHop("server", listener.getsockname()[1], socket.AF_UNSPEC)
    options: dict[str, object] = {
        "bind_address": None, "timeout_s": 2, "attempts": 1, "keeps_alive": True, **changed
    }  # fmt: skip
    return Target(hop, **options)  # type: ignore[arg-type]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the resolver knows of every name, in its order."""
    found: list[str] = []

    def ask(_: FirstHop) -> asyncio.Future[tuple[str, ...]]:
        answer: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        answer.set_result(tuple(found))
        return answer

    monkeypatch.setattr(handover, "ask_resolver", ask)
    return found


def connected(wanted: Target) -> socket.socket:
    sock = asyncio.run(connect(wanted))
    assert sock is not None
    return sock


def test_the_first_address_that_takes_it_is_connected_to(
    listener: socket.socket, names: list[str]
) -> None:
    names += ["127.0.0.9", "::1", "127.0.0.1"]
    with connected(target(listener)) as sock:
        assert sock.getpeername() == listener.getsockname()
        assert sock.getblocking(), "as ssh has it after connect(2)"
        assert not sock.get_inheritable()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    with connected(target(listener, bind_address="127.0.0.7", keeps_alive=False)) as sock:
        assert sock.getsockname()[0] == "127.0.0.7"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_a_server_that_is_not_there_is_told_of_as_ssh_tells_it(names: list[str]) -> None:
    names += ["127.0.0.1"]
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(UnreachableError, match=r"could not reach server port \d+: conn.*refus"):
            asyncio.run(connect(target(bound)))


def test_it_is_tried_as_often_as_the_user_says(
    listener: socket.socket, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names += ["127.0.0.1"]
    tries: list[float] = []
    monkeypatch.setattr(handover, "_BETWEEN_ATTEMPTS_S", 0.0)

    async def refuse_twice(*_: object, **__: object) -> socket.socket:
        tries.append(0)
        if len(tries) < 3:
            raise ConnectionRefusedError(111, "no")
        return socket.create_connection(listener.getsockname())

    monkeypatch.setattr(handover, "connect_first", refuse_twice)
    with pytest.raises(UnreachableError):
        asyncio.run(connect(target(listener, attempts=2)))
    connected(target(listener, attempts=2)).close()


def test_a_name_that_does_not_resolve_is_left_to_ssh(
    listener: socket.socket, names: list[str]
) -> None:
    assert names == []
    assert asyncio.run(connect(target(listener))) is None


def test_ssh_gets_the_socket_by_its_proxy_command_and_nothing_is_left(
    listener: socket.socket, tmp_path: Path
) -> None:
    """In the place of ssh: what OpenSSH's ssh_proxy_fdpass_connect does, by a shell of its own."""
    directory = tmp_path / "100% a user's"
    directory.mkdir(mode=0o700)
    path = directory / "mux.tcp"

    async def fetched(sock: socket.socket) -> int:
        with handed_over(path, sock) as words:
            options = dict(word.split("=", 1) for word in words if word != "-o")
            assert options["ProxyUseFdpass"] == "yes"
            command = options["ProxyCommand"].replace("%%", "%")
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    program = await asyncio.create_subprocess_exec(
                        "/bin/sh",
                        "-c",
                        f"exec {command}",
                        stdin=theirs.fileno(),
                        stdout=theirs.fileno(),
                    )
                assert await program.wait() == 0
                _, found, _, _ = socket.recv_fds(ours, 1, 4)
                assert shlex.split(command)[-1] == str(path)
                (descriptor,) = found
                return descriptor

    with (
        socket.create_connection(listener.getsockname()) as sock,
        socket.socket(fileno=asyncio.run(fetched(sock))) as ours,
    ):
        assert os.fstat(ours.fileno()).st_ino == os.fstat(sock.fileno()).st_ino
    assert list(directory.iterdir()) == []


def test_an_account_without_a_shell_runs_the_proxy_command_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHELL", "/usr/sbin/nologin")
    assert handover.shell_environment() == {"SHELL": "/bin/sh"}
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert handover.shell_environment() == {}
    monkeypatch.delenv("SHELL")
    assert handover.shell_environment() == {}


def test_whether_the_kernel_lends_is_asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    may_borrow = sockets.may_borrow.__wrapped__  # what it remembers is for the others
    assert may_borrow()
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(sockets, "_pidfd_getfd", lambda *_: None)
    assert not may_borrow()
    assert len(list(Path("/proc/self/fd").iterdir())) == before

"""Sessions from outside: their directories and locks, and who answers there."""

from __future__ import annotations

import multiprocessing
import os
import socket
import stat
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from sshvpn import control
from sshvpn.control import AlreadyUpError, Client, SessionDir
from sshvpn.model import Destination, ForwardProfile, TunnelProfile
from sshvpn.spec import parse_forward


def profile(*specs: str, name: str = "gpu", named: bool = False) -> ForwardProfile:
    parsed = tuple(parse_forward(spec) for spec in specs)
    return ForwardProfile(name, "gpu", Destination("gpu"), parsed, named=named)


def test_forwards_that_were_typed_are_told_apart_by_their_specs() -> None:
    assert control.session_id(profile("1:1")) == control.session_id(profile("1:1"))
    assert control.session_id(profile("1:1")) != control.session_id(profile("2:2"))


def test_forwards_that_were_typed_are_told_apart_by_where_they_listen() -> None:
    typed = profile("1:1")
    shared, bound = replace(typed, lan=True), replace(typed, binds=("eth0",))
    assert len({control.session_id(one) for one in (typed, shared, bound)}) == 3


def test_a_name_of_the_users_own_stands_for_one_session() -> None:
    first, second = profile("1:1", named=True), profile("2:2", named=True)
    assert control.session_id(first) == control.session_id(second)


def test_a_tunnel_s_name_stands_for_one_session_beside_a_forward_s() -> None:
    tunnel = TunnelProfile("gpu", "gpu", Destination("gpu"))
    routed = replace(tunnel, routes=("10.0.0.0/8",))
    assert control.session_id(tunnel) == control.session_id(routed)
    assert control.session_id(tunnel) != control.session_id(profile("1:1", named=True))
    assert control.session_id(tunnel) != control.session_id(replace(tunnel, name="other"))


def test_tunnels_and_forwards_are_found_and_nothing_else(tmp_path: Path) -> None:
    for name in ("tunnel-a", "forward-b", "other-c"):
        (tmp_path / name).mkdir()
    found = [path.name for path in control.session_dirs([tmp_path])]
    assert found == ["forward-b", "tunnel-a"]


def test_a_session_lives_while_its_lock_is_held(tmp_path: Path) -> None:
    with SessionDir(tmp_path / "run", "forward", "abc") as directory:
        assert control.is_alive(directory.path)
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        with pytest.raises(AlreadyUpError):
            SessionDir(tmp_path / "run", "forward", "abc")
    assert not control.is_alive(directory.path)
    assert not (tmp_path / "run").exists()


def test_what_a_killed_session_left_is_cleared_and_swept(tmp_path: Path) -> None:
    dead = tmp_path / "forward-dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "control").touch()
    with SessionDir(tmp_path, "forward", "dead") as directory:
        assert [p.name for p in directory.path.iterdir()] == ["lock"]
    dead.mkdir(parents=True)
    (dead / "mux").touch()
    with SessionDir(tmp_path, "forward", "live") as living:
        control.sweep([tmp_path])
        assert list(tmp_path.iterdir()) == [living.path]


@pytest.mark.parametrize("again", [True, False], ids=["start", "sweep"])
def test_a_unix_socket_of_a_killed_session_goes_with_it(tmp_path: Path, again: bool) -> None:
    mine, alive = tmp_path / "mine.sock", tmp_path / "alive.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as killed:
        listener.bind(str(alive))
        listener.listen()
        killed.bind(str(mine))
        killed.close()
        (tmp_path / "file").touch()
        session = SessionDir(tmp_path / "run", "forward", "x")
        session.note_sockets([str(mine), str(alive), str(tmp_path / "file"), "/nonexistent/s"])
        os.close(session._fd)  # as kill -9 does
        if again:
            SessionDir(tmp_path / "run", "forward", "x").close()
        else:
            assert control.sweep([tmp_path / "run"]) == [session.path]
        assert not mine.exists()
        assert alive.exists()
        assert (tmp_path / "file").exists()


def test_who_only_looks_does_not_stop_a_start(tmp_path: Path) -> None:
    path = tmp_path / "forward-x"
    path.mkdir()
    (path / "lock").touch()
    looking = threading.Event()

    def look() -> None:
        while not looking.is_set():
            control.is_alive(path)

    onlooker = threading.Thread(target=look)
    onlooker.start()
    try:
        for _ in range(300):
            SessionDir(tmp_path, "forward", "x").close()
    finally:
        looking.set()
        onlooker.join()


def test_who_sweeps_is_not_taken_for_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / "forward-x"
    dead.mkdir()
    (dead / "lock").touch()
    is_sweeping, may_end = threading.Event(), threading.Event()
    remove = control._remove

    def slowly(directory: Path) -> None:
        is_sweeping.set()
        assert may_end.wait(20)
        remove(directory)

    monkeypatch.setattr(control, "_remove", slowly)
    sweeper = threading.Thread(target=control.sweep, args=([tmp_path],))
    sweeper.start()
    assert is_sweeping.wait(20)
    later = threading.Timer(0.1, may_end.set)
    later.start()
    session = SessionDir(tmp_path, "forward", "x")
    sweeper.join()
    later.join()
    assert control.is_alive(session.path)
    with pytest.raises(AlreadyUpError):
        SessionDir(tmp_path, "forward", "x")
    session.close()


def _hold_briefly(runtime: Path) -> None:
    for _ in range(50):
        with suppress(AlreadyUpError):
            SessionDir(runtime, "forward", "x").close()


def test_many_processes_that_come_and_go_never_break_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    crowd = [context.Process(target=_hold_briefly, args=(tmp_path / "run",)) for _ in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(60)
    assert [process.exitcode for process in crowd] == [0] * 4


def test_nobody_answers_where_nothing_is(tmp_path: Path) -> None:
    assert control.request(tmp_path, "status") is None
    assert control.snapshots([tmp_path, tmp_path / "nowhere"]) == {}
    control.take_down(tmp_path)


def test_a_session_with_a_crowd_before_its_door_is_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "control"))
        listener.listen(0)
        first.connect(str(tmp_path / "control"))

        def serve() -> None:
            listener.accept()[0].close()
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(4096)  # whoever closes before it was asked is nobody
                peer.sendall(b'{"v": 1, "ok": true}\n')

        server = threading.Timer(0.2, serve)
        server.start()
        assert control.request(tmp_path, "status") == {"v": 1, "ok": True}
        server.join()


def test_a_session_that_is_killed_before_it_has_read_all_has_ended() -> None:
    ours, theirs = socket.socketpair()
    client = Client(ours)
    client.send({"cmd": "status"})
    theirs.close()
    assert client.receive() is None
    client.close()

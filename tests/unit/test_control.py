"""The control socket: locks and directories, the protocol, and what is not the protocol."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sshvpn import control, errors
from sshvpn.control import AlreadyUpError, SessionDir
from sshvpn.control_server import ControlServer
from sshvpn.model import Destination, ForwardProfile, TunnelProfile
from sshvpn.spec import parse_forward


def profile(*specs: str, name: str = "gpu", named: bool = False) -> ForwardProfile:
    parsed = tuple(parse_forward(spec) for spec in specs)
    return ForwardProfile(name, "gpu", Destination("gpu"), parsed, named=named)


# Directories and locks -----------------------------------------------------------------------


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


# The protocol ---------------------------------------------------------------------------------


class Session:
    """A control server with something behind it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.called: list[str] = []
        names = ("down", "wake", "attached")
        self.server = ControlServer(
            lambda: {"kind": "forward", "name": "gpu", "state": "running"},
            {name: lambda name=name: self.called.append(name) for name in names},  # type: ignore[misc]
        )

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path / "control")

    async def say(self, *lines: bytes) -> list[dict[str, Any]]:
        """Send LINES as they are, then the end, and return all that is answered."""
        reader, writer = await self.open()
        writer.write(b"".join(lines))
        writer.write_eof()
        answers = [json.loads(line) async for line in reader]
        writer.close()
        return answers


@asynccontextmanager
async def session(path: Path) -> AsyncIterator[Session]:
    running = Session(path)
    await running.server.listen(path / "control")
    try:
        yield running
    finally:
        await running.server.close()


def line(**message: Any) -> bytes:
    return json.dumps({"v": 1, **message}).encode() + b"\n"


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


def test_the_socket_is_for_this_user_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with session(tmp_path):
            assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600

    run(story)


def test_status_down_and_wake_are_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            status, down, wake = await running.say(line(cmd="status"), line(cmd="down"),
                                                   line(cmd="wake"))  # fmt: skip
            assert status["snapshot"]["name"] == "gpu"
            assert down["ok"]
            assert wake["ok"]
            assert running.called == ["down", "wake"]

    run(story)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"hello\n", "malformed"),
        (b"[]\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (b"[" * 30_000 + b"\n", "malformed"),
        (b'{"v": 2, "cmd": "status"}\n', "version"),
        (b'{"cmd": "status"}\n', "version"),
        (b'{"v": 1}\n', "unknown"),
        (b'{"v": 1, "cmd": "format"}\n', "unknown"),
        (b'{"v": 1, "cmd": ["down"]}\n', "unknown"),
        (b'{"v": 1, "cmd": "answer", "id": 7, "text": "x"}\n', "no_question"),
        (b'{"v": 1, "cmd": "answer", "id": {}, "text": 1}\n', "no_question"),
        (b"x" * (control.LONGEST_LINE + 1) + b"\n", "too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:12]),
)
def test_what_is_wrong_is_answered_with_an_error(tmp_path: Path, sent: bytes, code: str) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            (answer,) = await running.say(sent)
            assert answer["ok"] is False
            assert answer["error"]["code"] == code
            assert (await running.say(line(cmd="status")))[0]["ok"]
            assert running.called == []

    run(story)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sent=st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
                lambda inner: st.dictionaries(st.sampled_from(["v", "cmd", "id", "text"]), inner),
                max_leaves=6,
            ).map(lambda value: json.dumps(value).encode() + b"\n"),
        ),
        max_size=8,
    )
)
def test_no_bytes_break_it(tmp_path: Path, sent: list[bytes]) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            for answer in await running.say(*sent):
                assert answer["v"] == 1
            assert (await running.say(line(cmd="status")))[0]["ok"]

    run(story)


# Prompts --------------------------------------------------------------------------------------


def test_who_is_attached_is_asked_and_its_answer_is_returned(tmp_path: Path) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            assert not running.server.is_there()
            assert await running.server.ask("Password: ", echo=False) is None
            reader, writer = await running.open()
            writer.write(line(cmd="attach"))
            assert json.loads(await reader.readline())["event"] == "snapshot"
            assert running.called == ["attached"]
            asked = asyncio.create_task(running.server.ask("Password: ", echo=False))
            prompt = json.loads(await reader.readline())
            assert (prompt["prompt"], prompt["echo"]) == ("Password: ", False)
            writer.write(line(cmd="answer", id=prompt["id"] + 1, text="wrong number"))
            assert json.loads(await reader.readline())["error"]["code"] == "no_question"
            writer.write(line(cmd="answer", id=prompt["id"], text="hunter2"))
            assert await asked == "hunter2"
            writer.close()

    run(story)


def test_a_prompt_ends_when_the_one_who_was_asked_goes_away(tmp_path: Path) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            reader, writer = await running.open()
            writer.write(line(cmd="attach"))
            await reader.readline()
            asked = asyncio.create_task(running.server.ask("Password: ", echo=False))
            await reader.readline()
            writer.close()
            assert await asked is None

    run(story)


def test_a_launcher_that_goes_away_is_told_of(tmp_path: Path) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            ours, theirs = socket.socketpair()
            gone = asyncio.Event()
            await running.server.adopt(theirs, gone.set, can_answer=True)
            assert running.server.is_there()
            ours.close()
            await gone.wait()
            assert not running.server.is_there()

    run(story)


def test_who_watches_hears_of_changes_and_of_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            reader, writer = await running.open()
            writer.write(line(cmd="watch"))
            await reader.readline()
            running.server.publish({"state": "backoff"})
            assert json.loads(await reader.readline())["snapshot"]["state"] == "backoff"
            running.server.notice("warning", "lost")
            assert json.loads(await reader.readline())["text"] == "lost"
            await running.server.close(errors.UnreachableError("gone", "wait"))
            end = json.loads(await reader.readline())
            assert (end["exit_code"], end["message"], end["hint"]) == (6, "gone", "wait")
            writer.close()

    run(story)


def test_a_watcher_that_does_not_read_is_let_go(tmp_path: Path) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            reader, writer = await running.open()
            writer.write(line(cmd="watch"))
            await reader.readline()
            for _ in range(100):
                running.server.publish({"state": "x" * 100_000})
                await asyncio.sleep(0)
            read = 0
            while piece := await _read(reader):
                read += len(piece)
            assert read < 100 * 100_000
            writer.close()

    run(story)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except ConnectionResetError:
        return b""


def test_another_user_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            real = os.getuid()
            monkeypatch.setattr("sshvpn.control_server.os.getuid", lambda: real + 1)
            expected = 1 if real == 0 else 0  # root may always speak
            assert len(await running.say(line(cmd="status"))) == expected

    run(story)


def test_who_takes_it_down_hears_what_it_warns_of(tmp_path: Path) -> None:
    async def story() -> None:
        with SessionDir(tmp_path, "tunnel", "x") as directory:
            ending = asyncio.Event()
            server = ControlServer(dict, {"down": ending.set})
            await server.listen(directory.path / "control")
            heard: list[str] = []
            taking = asyncio.create_task(
                asyncio.to_thread(control.take_down, directory.path, heard.append)
            )
            await ending.wait()
            server.notice("info", "stopping")
            server.notice("warning", "the server's lease ends at 12:00")
            await server.close()
            directory.close()
            await taking
            assert heard == ["the server's lease ends at 12:00"]

    run(story)

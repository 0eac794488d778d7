"""The control socket of a session: the protocol, and what is not the protocol."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sshvpn import control, errors
from sshvpn.control import SessionDir
from sshvpn.control_server import ControlServer


class Session:
    """A control server with something behind it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.called: list[str] = []
        names = ("down", "wake")
        self.server = ControlServer(
            lambda: {"kind": "forward", "name": "gpu", "state": "running"},
            {name: lambda name=name: self.called.append(name) for name in names},  # type: ignore[misc]
            on_attach=lambda: self.called.append("attached"),
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


def test_what_is_called_for_who_attaches_is_no_command(tmp_path: Path) -> None:
    async def story() -> None:
        async with session(tmp_path) as running:
            (answer,) = await running.say(line(cmd="attached"))
            assert answer["error"]["code"] == "unknown"
            assert running.called == []

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

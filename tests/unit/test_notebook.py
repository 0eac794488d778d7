"""The session of a notebook with a real conversation, and a fake server at its other end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import pytest

from sshvpn import notebook as module
from sshvpn.boundary import Prompter
from sshvpn.errors import (
    NotebookError,
    NotebookLostError,
    Retry,
    SshvpnError,
    UnreachableError,
)
from sshvpn.model import Destination, Endpoint, ForwardProfile, Listener, NotebookWish, TcpEndpoint
from sshvpn.notebook import Access, NotebookSession
from sshvpn.remote import notebook_script
from sshvpn.spec import parse_forward
from sshvpn.wiring.notebooks import list_notebooks
from tests.unit.fakes import FakeConnection, FakeEngine, FakeInterfaces, FakeTrust

HOME = "/home/alice"


class FakeServer:
    """A login's home directory, and the Jupyter that runs there."""

    def __init__(self) -> None:
        self.records: dict[int, dict[str, Any]] = {}
        self.problem = ""
        """What ``start`` or ``look`` is answered with, instead."""
        self.of_its_own: dict[str, Any] = {}
        """What the next one tells of itself, of a configuration there."""
        self.tokens: list[str] = []
        self.status: Callable[[str, str | None, Mapping[str, str]], int | None] = (
            lambda _url, _host, _headers: 200
        )
        self.boot = "one"
        self._next_pid = 100

    def begin(self, token: str, **told: Any) -> int:
        self._next_pid += 1
        self.records[self._next_pid] = {
            "base_url": "/", "hostname": "127.0.0.1", "password": False, "port": 8888,
            "root_dir": HOME, "secure": False, "sock": "", "token": token, "version": "2.21.1",
            **self.of_its_own, **told,
        }  # fmt: skip
        return self._next_pid

    def answer(self, line: str, said: dict[str, str]) -> list[str]:
        word, _, value = line.partition(" ")
        said[word] = value
        if word == "look":
            if self.problem.startswith("no_directory"):
                return [f"error {self.problem}"]
            servers = [part for pid in self.records for part in self._told(pid)]
            return [f"directory {HOME}", *servers, f"ready {self.boot}"]
        if word == "start":
            self.tokens.append(said["token"])
            if self.problem:
                return [f"error {self.problem}"]
            return ["took jupyter-lab", "launched /log", *self._told(self.begin(said["token"]))]
        if word == "stop":
            pid = int(said["pid"])
            del self.records[pid]
            return [f"ended {pid}", "bye"]
        return []

    def _told(self, pid: int) -> list[str]:
        lines = json.dumps(self.records[pid], indent=2).splitlines()
        return [f"server {pid} home /log", *(f"json {line}" for line in lines), "end"]


class FakeCommand:
    """The script as it runs there. Implements boundary.RemoteCommand."""

    def __init__(self, server: FakeServer, nonce: str) -> None:
        self._server = server
        self._nonce = nonce
        self._heard = b""
        self._words: dict[str, str] = {}
        self._said: asyncio.Queue[str | None] = asyncio.Queue()
        self._say(f"hello 1 {HOME}")

    def _say(self, text: str) -> None:
        self._said.put_nowait(f"{self._nonce} {text}\n")

    async def write(self, data: bytes) -> None:
        self._heard += data
        *lines, rest = self._heard[len(notebook_script()) :].split(b"\n")
        self._heard = self._heard[: len(notebook_script())] + rest
        for line in lines:
            for text in self._server.answer(line.decode(), self._words):
                self._say(text)

    async def read_line(self) -> str | None:
        return await self._said.get()

    async def close(self) -> None:
        self._said.put_nowait(None)


class Connection(FakeConnection):
    """One that runs the script."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__({})
        self._server = server
        self.targets: list[Endpoint | None] = []

    async def run(self, command: str) -> FakeCommand:
        return FakeCommand(self._server, command.rsplit(maxsplit=1)[-1])

    async def open_listener(self, listener: Listener) -> Endpoint:
        self.targets.append(listener.target)
        return await super().open_listener(listener)


class Engine(FakeEngine):
    """Connects to the fake server."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__()
        self._server = server

    async def connect(self, profile: ForwardProfile, prompter: Prompter | None) -> FakeConnection:
        del profile, prompter
        self.connections.append(Connection(self._server))
        return self.current


class FakeWeb:
    """Answers as the server's Jupyter does. Implements boundary.WebClient."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def status(self, url: str, host: str | None, headers: Mapping[str, str]) -> int | None:
        return self._server.status(url, host, headers)


class Stage:
    """A session, and the server that it leads to."""

    def __init__(self, **changed: Any) -> None:
        self.server = FakeServer()
        self.engine = Engine(self.server)
        self.interfaces = FakeInterfaces(eth0=("192.168.1.5/24",))
        self.kept: list[Access] = []
        profile = ForwardProfile(
            name="gpu",
            host="gpu",
            destination=Destination("gpu"),
            specs=(parse_forward("9999:8888"),),
            notebook=NotebookWish(),
        )
        self.profile = replace(profile, **changed)
        self.session = NotebookSession(
            self.profile,
            self.engine,
            self.interfaces,
            FakeTrust(),
            web=FakeWeb(self.server),
            keep=self.kept.append,
        )

    async def refused(self) -> SshvpnError:
        """Return why it does not come up."""
        with pytest.raises(SshvpnError) as raised:
            await self.session.bring_up(None)
        return raised.value


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_WITHIN_S", 0.01)
    monkeypatch.setattr(module, "_POLL_S", 0.001)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_one_is_started_and_found_again() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.session.bring_up(None)
        (record,) = stage.session.describe()
        assert (record["url"], record["notebook"]["pid"]) == ("http://localhost:9999/", 101)
        assert [access.token for access in stage.kept] == stage.server.tokens
        await stage.session.tear_down()
        await stage.session.bring_up(None)
        assert len(stage.server.tokens) == 1
        assert stage.engine.current.open
        await stage.session.close()

    run(story)


def test_where_it_led_is_told_while_it_is_away() -> None:
    async def story() -> None:
        stage = Stage()
        assert stage.session.describe()[0]["notebook"] is None
        await stage.session.bring_up(None)
        await stage.session.tear_down()
        (record,) = stage.session.describe()
        assert (record["url"], record["notebook"]["directory"]) == (None, HOME)

    run(story)


@pytest.mark.parametrize(("boot", "is_new"), [("one", True), ("two", False), ("", True)])
def test_only_a_reboot_leaves_a_jupyter_its_token(boot: str, is_new: bool) -> None:
    """Else somebody may have taken its port, and have been sent it by a page that is open."""

    async def story() -> None:
        stage = Stage()
        await stage.session.bring_up(None)
        await stage.session.tear_down()
        stage.server.records.clear()
        stage.server.boot = boot
        await stage.session.bring_up(None)
        first, second = stage.server.tokens
        assert (first != second) is is_new
        assert [access.token for access in stage.kept] == [first, second]
        assert (await stage.session.has_service()) is True
        await stage.session.close()

    run(story)


def test_whether_its_jupyter_is_there_the_server_says() -> None:
    async def story() -> None:
        stage = Stage()
        assert not await stage.session.has_service()
        await stage.session.bring_up(None)
        assert await stage.session.has_service()
        (record,) = stage.server.records.values()
        stage.server.records.clear()
        stage.server.begin(record["token"])
        assert not await stage.session.has_service()
        await stage.session.close()

    run(story)


def test_one_that_is_to_be_shared_with_nobody_is_an_error_for_who_asks_and_told_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        asked = Stage(lan=True, lan_trusts=True, binds=("localhost",))
        asked.interfaces.lan_names = ()
        assert "shared with nobody" in str(await asked.refused())
        assert not asked.engine.current.open
        service = Stage(lan=True, binds=("localhost",))
        service.interfaces.lan_names = ()
        await service.session.bring_up(None)
        assert len(service.engine.current.open) == 2
        await service.session.close()

    run(story)
    assert "shared with nobody" in caplog.text


PROBLEMS = {
    "the home directory is not there yet": f"no_directory {HOME}",
    "nor what is in it": "none auto",
    "the disk is full": "died /log",
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_what_was_there_before_comes_back_by_time_and_what_never_was_does_not(problem: str) -> None:
    async def story() -> None:
        stage = Stage()
        stage.server.problem = problem
        error = await stage.refused()
        assert (type(error), error.retry) == (NotebookError, Retry.NEVER)
        assert not stage.session.go_back()
        stage.server.problem = ""
        await stage.session.bring_up(None)
        await stage.session.tear_down()
        stage.server.records.clear()
        stage.server.problem = problem
        again = await stage.refused()
        assert (type(again), again.retry) == (NotebookLostError, Retry.FOREVER)
        assert (again.message, again.hint) == (error.message, error.hint)

    run(story)


def test_one_that_does_not_answer_is_waited_for_once_it_has() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.session.bring_up(None)
        await stage.session.tear_down()
        stage.server.status = lambda *_: None
        assert "does not answer" in str(error := await stage.refused())
        assert error.retry is Retry.FOREVER

    run(story)


def test_what_only_a_person_can_mend_is_not_waited_for() -> None:
    async def story() -> None:
        stage = Stage(lan=True, lan_trusts=True, binds=("localhost",))
        await stage.session.bring_up(None)
        await stage.session.tear_down()
        stage.server.status = lambda _url, host, _headers: 200 if host else 403
        assert (await stage.refused()).retry is Retry.NEVER

    run(story)


def test_an_edited_profile_that_does_not_work_is_told_and_the_one_before_is_waited_for() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.session.bring_up(None)
        await stage.session.tear_down()
        stage.server.problem = f"no_directory {HOME}"
        for _ in range(2):
            await stage.session.adopt(None)
            assert (await stage.refused()).retry is Retry.NEVER
        assert stage.session.go_back()
        assert (await stage.refused()).retry is Retry.FOREVER
        await stage.session.close()

    run(story)


def asks(_url: str, _host: str | None, headers: Mapping[str, str]) -> int:
    return 200 if headers else 403


def test_a_password_that_jupyter_does_not_tell_of_is_one(caplog: pytest.LogCaptureFixture) -> None:
    """Since its version 2 it tells that it has none, whatever its configuration says."""

    async def story() -> None:
        stage = Stage(lan=True, lan_trusts=True, binds=("localhost",))
        stage.server.of_its_own = {"token": "", "password": False}
        stage.server.status = asks
        await stage.session.bring_up(None)
        assert len(stage.server.tokens) == 1
        (record,) = stage.session.describe()
        assert "192.168.1.5:9999" in record["listen"]
        assert {listener.listen for listener in stage.engine.current.open} == {
            TcpEndpoint(address, 9999) for address in ("127.0.0.1", "::1", "192.168.1.5")
        }
        await stage.session.close()

    run(story)
    assert "asks for no token" not in caplog.text


def test_one_that_asks_nobody_is_here_with_a_warning_and_not_on_the_lan(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        stage = Stage()
        stage.server.of_its_own = {"token": ""}
        await stage.session.bring_up(None)
        assert len(stage.server.tokens) == 2
        shared = Stage(lan=True, lan_trusts=True, binds=("localhost",))
        shared.server.of_its_own = {"token": ""}
        assert "everybody could run commands" in str(await shared.refused())
        await stage.session.close()

    run(story)
    assert "asks for no token" in caplog.text


def test_a_server_that_tells_without_end_is_not_heard_without_end() -> None:
    async def story() -> None:
        stage = Stage()
        for _ in range(1000):
            stage.server.begin("x")
        assert "too many" in str(await stage.refused())

    run(story)


def test_a_server_that_does_not_say_what_runs_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage()
    monkeypatch.setattr(stage.server, "answer", lambda *_: [])
    monkeypatch.setattr("sshvpn.wiring.notebooks.make_engine", lambda _: Engine(stage.server))
    monkeypatch.setattr("sshvpn.wiring.notebooks._ANSWER_WITHIN_S", 0.01)
    with pytest.raises(UnreachableError, match="does not say what runs"):
        list_notebooks(stage.profile)


def test_what_starts_it_is_given_less_time_than_who_waits_has() -> None:
    assert [module.start_within_s(whole) for whole in (None, 120, 600, 30, 5, 0.5)] == [
        100, 100, 580, 15, 2, 1,
    ]  # fmt: skip

"""Logins that need a person: passwords, questions, and several steps one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import paramiko
import pytest

from sshvpn.errors import (
    AuthenticationError,
    HostKeyUnknownError,
    LoginNeededError,
    SshvpnError,
)
from sshvpn.system.sshtunnel import knownhosts
from sshvpn.system.sshtunnel.keys import Keyring
from sshvpn.system.sshtunnel.login import Asker, LogIn, check_host_key
from sshvpn.system.sshtunnel.settings import Settings, settings_of
from sshvpn.system.sshtunnel.transport import Transport, algorithms
from tests.unit.fakes import FakePrompter
from tests.unit.system.sshtunnel.ssh_server import HOST_KEY, Policy, RunningServer


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = {
        "host": ("box",),
        "hostname": ("box.example",),
        "port": ("2222",),
        "user": ("alice",),
        "identityagent": ("none",),
        "userknownhostsfile": (f"{tmp_path}/known_hosts",),
    }
    return settings_of(config, {}, tmp_path)


@pytest.fixture
def serve() -> Iterator[Callable[[Policy], RunningServer]]:
    running: list[RunningServer] = []

    def start(policy: Policy) -> RunningServer:
        running.append(RunningServer(policy))
        return running[-1]

    yield start
    for server in running:
        server.close()


def log_in(
    server: RunningServer,
    settings: Settings,
    person: FakePrompter | None,
    *,
    missing: str | None = None,
    check: bool = False,
) -> None:
    """Log in as the engine does: blocking, on a thread beside the loop that asks."""

    async def run() -> None:
        asker = None if person is None else Asker(person, asyncio.get_running_loop())
        transport = Transport(server.sock, algorithms(settings), 10, lambda: None)

        def work() -> None:
            try:
                transport.start_client()
                if check:
                    check_host_key(transport, settings, asker)
                LogIn(transport, settings, Keyring(), asker).run(missing=lambda: missing)
                assert transport.is_authenticated()
            finally:
                with contextlib.suppress(OSError):  # it may have ended by itself
                    server.sock.shutdown(socket.SHUT_RDWR)
                transport.join()

        await asyncio.to_thread(work)

    asyncio.run(run())


def told_on_a_thread(person: FakePrompter, before: Callable[[Asker], None]) -> str:
    """Do BEFORE, ask on a thread beside the loop, and return why there was no answer."""

    async def run() -> str:
        asker = Asker(person, asyncio.get_running_loop())
        before(asker)
        with pytest.raises(LoginNeededError) as caught:
            await asyncio.wait_for(asyncio.to_thread(asker.ask, "? ", echo=False), 20)
        return caught.value.message

    return asyncio.run(run())


def test_once_it_was_cancelled_nobody_is_asked_any_more() -> None:
    person = FakePrompter("tulip")
    assert told_on_a_thread(person, Asker.cancel) == "the login was cancelled"
    assert person.asked == []


def test_a_question_that_has_just_begun_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    askers: list[Asker] = []
    submit = asyncio.run_coroutine_threadsafe

    class Impatient(FakePrompter):
        async def ask(self, prompt: str, *, echo: bool) -> str | None:
            begun.set()
            askers[0].cancel()
            await asyncio.Event().wait()
            return await super().ask(prompt, echo=echo)

    def slowly(question: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Future[Any]:
        future = submit(question, loop)
        assert begun.wait(20)
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", slowly)
    assert told_on_a_thread(Impatient(), askers.append) == "the login was cancelled"


Serve = Callable[[Policy], RunningServer]


def test_a_password_is_asked_for_unseen(serve: Serve, settings: Settings) -> None:
    person = FakePrompter("tulip")
    log_in(serve(Policy(["password"])), settings, person)
    assert person.asked == [("alice@box.example's password: ", False)]


def test_a_wrong_password_may_be_typed_again(serve: Serve, settings: Settings) -> None:
    person, policy = FakePrompter("rose", "tulip"), Policy(["password"])
    log_in(serve(policy), settings, person)
    assert policy.seen == ["password wrong", "password right"]
    assert person.told == ["Permission denied, please try again."]


def test_after_three_wrong_passwords_it_is_refused(serve: Serve, settings: Settings) -> None:
    person = FakePrompter("a", "b", "c", "tulip")
    with pytest.raises(AuthenticationError) as caught:
        log_in(serve(Policy(["password"])), settings, person)
    assert len(person.asked) == 3
    assert "password" in caught.value.hint


def test_questions_of_the_server_are_asked_and_made_printable(
    serve: Serve, settings: Settings
) -> None:
    person = FakePrompter("123456")
    log_in(serve(Policy(["keyboard-interactive"])), settings, person)
    assert person.asked == [("(alice@box.example) Code: ", False)]
    evil = Policy(["keyboard-interactive"], questions={"\x1b[2JCode: ": "1"})
    person = FakePrompter("1")
    log_in(serve(evil), settings, person)
    assert "\x1b" not in person.asked[0][0]


def test_a_second_factor_follows_the_password(serve: Serve, settings: Settings) -> None:
    person = FakePrompter("tulip", "123456")
    policy = Policy(["password", "keyboard-interactive"])
    log_in(serve(policy), settings, person)
    assert policy.seen == ["password right", "keyboard-interactive right"]


def test_a_second_factor_follows_the_key(serve: Serve, settings: Settings, tmp_path: Path) -> None:
    key = paramiko.ECDSAKey.generate()
    file = tmp_path / "key"
    key.write_private_key_file(str(file))
    with_key = dataclasses.replace(settings, identity_files=(str(file),))
    policy = Policy(["publickey", "keyboard-interactive"], key=key)
    person = FakePrompter("123456")
    log_in(serve(policy), with_key, person)
    assert len(person.asked) == 1


def test_an_answer_that_is_not_given_ends_the_login(serve: Serve, settings: Settings) -> None:
    for steps in (["password"], ["keyboard-interactive"]):
        with pytest.raises(LoginNeededError):
            log_in(serve(Policy(steps)), settings, FakePrompter())


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_without_anybody_a_password_needs_a_login(
    serve: Serve, settings: Settings, method: str
) -> None:
    policy = Policy([method])
    with pytest.raises(LoginNeededError):
        log_in(serve(policy), settings, None)
    assert policy.seen == []


def test_a_key_that_is_refused_where_an_earlier_login_had_help_needs_a_login(
    serve: Serve, settings: Settings
) -> None:
    with pytest.raises(LoginNeededError, match="the agent is gone"):
        log_in(serve(Policy(["publickey"])), settings, None, missing="the agent is gone")
    with pytest.raises(AuthenticationError):
        log_in(serve(Policy(["publickey"])), settings, None)


def test_methods_that_ssh_config_leaves_out_are_not_used(serve: Serve, settings: Settings) -> None:
    only_keys = dataclasses.replace(settings, methods=("publickey",))
    person = FakePrompter("tulip")
    with pytest.raises(AuthenticationError):
        log_in(serve(Policy(["password"])), only_keys, person)
    assert person.asked == []


def test_a_fingerprint_that_is_typed_is_as_good_as_yes(serve: Serve, settings: Settings) -> None:
    shown = knownhosts.fingerprint(HOST_KEY.asbytes())
    person = FakePrompter("what?", shown, "tulip")
    log_in(serve(Policy(["password"])), settings, person, check=True)
    assert shown in person.asked[0][0]
    assert "[box.example]:2222" in Path(settings.user_known_hosts[0]).read_text()
    again = FakePrompter("tulip")
    log_in(serve(Policy(["password"])), settings, again, check=True)
    assert len(again.asked) == 1


def test_where_known_hosts_cannot_be_written_the_login_goes_on_and_says_so(
    serve: Serve, settings: Settings, tmp_path: Path
) -> None:
    nowhere = dataclasses.replace(settings, user_known_hosts=(f"{tmp_path}/key/known_hosts",))
    (tmp_path / "key").write_text("a file is no directory")
    person = FakePrompter("yes", "tulip")
    log_in(serve(Policy(["password"])), nowhere, person, check=True)
    assert "was not written" in person.told[0]


def test_nothing_is_offered_to_a_host_that_is_not_accepted(
    serve: Serve, settings: Settings
) -> None:
    policy = Policy(["password"])
    with pytest.raises(HostKeyUnknownError):
        log_in(serve(policy), settings, FakePrompter("no", "tulip"), check=True)
    assert policy.seen == []


def test_a_server_that_ends_during_the_login_is_told_by_its_end(
    serve: Serve, settings: Settings
) -> None:
    class Leaving(FakePrompter):
        async def ask(self, prompt: str, *, echo: bool) -> str | None:
            server.close()
            return await super().ask(prompt, echo=echo)

    server = serve(Policy(["password"]))
    with pytest.raises((EOFError, OSError, paramiko.SSHException, SshvpnError)) as caught:
        log_in(server, settings, Leaving("tulip"))
    assert not isinstance(caught.value, AuthenticationError)

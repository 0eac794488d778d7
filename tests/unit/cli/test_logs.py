"""``sshvpn logs``: what is in the file, and what comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from sshvpn.cli.logs import Log, logs
from sshvpn.errors import NotRunningError, UsageError
from sshvpn.services import KINDS
from sshvpn.wiring import places
from tests.unit.cli.conftest import Begin, Session
from tests.unit.cli.records import forward, tunnel


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is printed, piece by piece."""
    pieces: list[str] = []

    def echo(text: str, *, nl: bool = True) -> None:
        pieces.append(text + "\n" if nl else text)

    monkeypatch.setattr("sshvpn.cli.logs.click.echo", echo)
    return pieces


def log_of(kind: str, name: str) -> Path:
    file = places.log_file(kind, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(*words: str) -> str:
    return CliRunner().invoke(logs, words, catch_exceptions=False).stdout


def notice(session: Session, text: str) -> None:
    session._loop.call_soon_threadsafe(session.server.notice, "info", text)


def test_what_is_not_up_has_its_place_told(begin: Begin) -> None:
    with pytest.raises(NotRunningError, match="nothing is up"):
        run()
    begin("forward", "gpu-box", forward())
    with pytest.raises(NotRunningError, match="nothing called office is up"):
        run("office")
    begin("tunnel", "office", tunnel())
    with pytest.raises(UsageError, match="2 things are up"):
        run()


def test_a_name_of_two_things_shows_both(begin: Begin) -> None:
    begin("forward", "office", forward(name="office"))
    begin("tunnel", "office", tunnel())
    log_of("forward", "office").write_text("a\n")
    log_of("tunnel", "office").write_text("b\n")
    assert sorted(run("office").split()) == ["a", "b"]


def test_a_log_that_is_begun_anew_is_followed(tmp_path: Path, printed: list[str]) -> None:
    file = tmp_path / "log"
    with Log(file) as log:
        _follow_by_hand(log, file)
    assert "".join(printed) == "one\ntwo\nthree\n"


def _follow_by_hand(log: Log, file: Path) -> None:
    log.print_new()
    assert not log.is_there
    file.write_text("one\n")
    log.print_new()
    with file.open("a") as writing:
        writing.write("two\n")
    file.rename(file.with_suffix(".1"))
    file.write_text("three\n")
    log.print_new()
    log.print_new()
    file.unlink()
    log.print_new()
    assert log.is_there


def test_following_ends_with_the_session_and_sees_all_that_was_written(
    begin: Begin, printed: list[str]
) -> None:
    session = begin("forward", "gpu-box", forward())
    file = log_of("forward", "gpu-box")
    file.write_text("old\n")
    follower = threading.Thread(target=run, args=("-f", "gpu-box"))
    follower.start()
    wait(lambda: printed == ["old\n"])
    file.write_text("old\nnew\n")
    notice(session, "new")
    wait(lambda: printed == ["old\n", "new\n"])
    file.write_text("old\nnew\nended\n")
    session.close()
    follower.join(20)
    assert printed == ["old\n", "new\n", "ended\n"]


def test_where_no_log_can_be_written_what_is_told_is_printed(
    begin: Begin, printed: list[str]
) -> None:
    session = begin("forward", "gpu-box", forward())
    follower = threading.Thread(target=run, args=("-f",))
    follower.start()
    wait(lambda: any(peer.watches for peer in session.server._peers))
    notice(session, "running")
    wait(lambda: printed == ["running\n"])
    session.close()
    follower.join(20)


def test_all_services_of_a_name_are_followed_until_each_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[tuple[str, str]] = []
    looks = {"forward": 1, "tunnel": 3}
    closed: list[str] = []

    class Followed:
        def __init__(self, session: str) -> None:
            self.session = session

        def is_over(self) -> bool:
            looks[self.session] -= 1
            return looks[self.session] == 0

        def close(self) -> None:
            closed.append(self.session)

    def follow(session: str, unit: str) -> Followed:
        begun.append((session, unit))
        return Followed(session)

    monkeypatch.setattr("sshvpn.cli.logs._LOOK_S", 0.0)
    both = [(kind, "office") for kind in KINDS.values()]
    monkeypatch.setattr("sshvpn.wiring.services.enabled", lambda: both)
    monkeypatch.setattr("sshvpn.wiring.services.follow_journal", follow)
    run("-f", "office")
    unit = "sshvpn@office.service"
    assert begun == [("forward", unit), ("tunnel", unit)]
    assert looks == {"forward": 0, "tunnel": 0}
    assert sorted(closed) == ["forward", "tunnel"]

"""What ``down`` takes down: of sessions that only talk."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from sshvpn.cli.down import down
from sshvpn.errors import NotRunningError, UsageError
from tests.unit.cli.conftest import Begin, Session

pytestmark = pytest.mark.usefixtures("home")


def run(*words: str) -> Result:
    return CliRunner().invoke(down, words, catch_exceptions=False)


def wrong(*words: str) -> tuple[str, str]:
    """Return the message and the hint of what is raised for ``words``."""
    with pytest.raises((UsageError, NotRunningError)) as raised:
        run(*words)
    return raised.value.message, raised.value.hint


@pytest.fixture
def both(begin: Begin) -> tuple[Session, Session]:
    """Return a tunnel and a forward of the same name."""
    return begin("tunnel", "office"), begin("forward", "office")


def test_the_only_one_needs_no_name(begin: Begin) -> None:
    session = begin("tunnel", "office")
    done = run()
    assert (done.exit_code, done.stdout) == (0, "office is down\n")
    assert session.commands == ["down"]
    assert wrong()[0] == "nothing is up"


def test_a_name_takes_down_all_that_is_called_so(both: tuple[Session, Session]) -> None:
    assert run("office").stdout == "office is down\n" * 2
    assert not any(session.is_up for session in both)


@pytest.mark.parametrize(("option", "gone"), [("--tunnel", 0), ("--forward", 1)])
@pytest.mark.parametrize("words", [("office",), (), ("--all",)])
def test_an_option_limits_it_to_one_kind(
    both: tuple[Session, Session], option: str, gone: int, words: tuple[str, ...]
) -> None:
    assert run(option, *words).exit_code == 0
    assert [session.commands for session in both] == [
        ["down"] if number == gone else [] for number in range(2)
    ]


def test_where_more_are_up_a_name_is_wanted(both: tuple[Session, Session], begin: Begin) -> None:
    begin("tunnel", "other")
    message, hint = wrong()
    assert message == "3 things are up: office (forward), office (tunnel), other"
    assert hint == "say which, or --all: sshvpn down NAME"
    assert wrong("--tunnel")[0] == "2 tunnels are up: office, other"
    assert all(session.is_up for session in both)
    assert run("--all").stdout.count("is down") == 3


def test_two_forwards_of_one_host_are_told_apart_from_one(begin: Begin) -> None:
    begin("forward", "server")
    begin("forward", "server")
    begin("tunnel", "server")
    assert wrong()[0] == "3 things are up: server (2 forwards), server (tunnel)"
    assert wrong("--forward")[0] == "2 forwards are up: server (2 forwards)"
    assert run("server").stdout == "server is down\n" * 3


def test_what_is_not_there_is_exit_3_and_the_others_go_all_the_same(begin: Begin) -> None:
    begin("forward", "gpu")
    done = run("nosuch", "gpu")
    assert (done.exit_code, done.stdout) == (3, "gpu is down\n")
    assert done.stderr == "sshvpn: nothing called nosuch is up\n  see: sshvpn status\n"
    assert wrong("--tunnel") == ("no tunnel is up", "sshvpn up HOST starts one")
    assert run("--tunnel", "gpu").stderr.startswith("sshvpn: no tunnel called gpu is up\n")


def test_a_name_and_all_exclude_each_other() -> None:
    assert wrong("--all", "office")[0] == "NAME and --all exclude each other"


def test_what_it_warns_of_while_it_ends_is_told(begin: Begin) -> None:
    begin("tunnel", "office").warns = ("the server is away: its end goes at 12:10",)
    done = run()
    assert done.exit_code == 0
    assert done.stderr == "sshvpn: office: the server is away: its end goes at 12:10\n"

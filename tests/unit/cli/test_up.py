"""The command ``up``, over processes that only talk: what it waits for, tells and returns."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sshvpn.cli import main
from sshvpn.cli.up import up
from sshvpn.control import AlreadyUpError
from sshvpn.errors import PrivilegeError, SshvpnError, TakenError, UsageError
from sshvpn.model import TunnelProfile
from sshvpn.wiring import beginning, lan, places, privilege, terminal, tunnels
from tests.unit.cli.conftest import Begin
from tests.unit.cli.records import tunnel, waiting_tunnel

pytestmark = pytest.mark.usefixtures("home")

Script = list[dict[str, Any]]


def snapshot(state: str = "running", **changes: Any) -> dict[str, Any]:
    record = tunnel(**changes) if state == "running" else waiting_tunnel("lost", "gone", **changes)
    return {"event": "snapshot", "snapshot": {"state": state, "wanted": [], "records": [record]}}


def notice(level: str, text: str) -> dict[str, Any]:
    return {"event": "notice", "level": level, "text": text}


def end(code: str, exit_code: int, message: str, hint: str = "") -> dict[str, Any]:
    return {
        "event": "end",
        "exit_code": exit_code,
        "error": {"code": code, "message": message},
        "message": message,
        "hint": hint,
    }


class Launches:
    """Stands in for what starts processes: each says its script, or could not be started."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script | SshvpnError] = {}
        self.profiles: list[TunnelProfile] = []
        self.begun: list[tuple[str, socket.socket]] = []
        self.handed: list[bool] = []

    def begin(self, name: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.close()
        self.begun.append((name, ours))
        return ours

    def start(
        self, profile: TunnelProfile, begun: socket.socket | None, *, verbose: bool = False
    ) -> socket.socket:
        del verbose
        self.profiles.append(profile)
        self.handed.append(begun is not None)
        script = self.scripts.get(profile.name, [snapshot(name=profile.name)])
        if isinstance(script, SshvpnError):
            raise script
        ours, theirs = socket.socketpair()
        with theirs:
            for message in script:
                theirs.sendall(json.dumps({"v": 1, **message}).encode() + b"\n")
        return ours


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    found = Launches()
    monkeypatch.setattr(beginning, "begin_tunnel", found.begin)
    monkeypatch.setattr(tunnels, "start_tunnel", found.start)
    monkeypatch.setattr(privilege, "leave_root", lambda _tunnels: None)
    monkeypatch.setattr(terminal, "prompter", lambda: None)
    return found


def run(*words: str) -> Result:
    return CliRunner().invoke(up, words, catch_exceptions=False)


def refused(*words: str) -> SshvpnError:
    with pytest.raises(SshvpnError) as raised:
        run(*words)
    return raised.value


# The background ----------------------------------------------------------------------------


def test_it_returns_when_it_runs_and_says_how_all_is_reachable(launches: Launches) -> None:
    launches.scripts["office"] = [snapshot("starting"), snapshot()]
    done = run("office")
    assert done.exit_code == 0
    assert done.stdout.startswith("office is up\n  here         alice@vpn.example.com is 100.64")
    assert done.stderr == ""
    assert launches.profiles[0].timeout_s == 12.0
    run("gpu")
    assert launches.profiles[1].timeout_s == 30.0


def test_the_first_one_loads_while_its_words_are_still_read(launches: Launches) -> None:
    run("gpu", "other")
    run("gpu", "--name", "box")
    assert [name for name, _ in launches.begun] == ["gpu", "box"]
    assert launches.handed == [True, False, True]


@pytest.mark.parametrize("words", [("gpu", "--mtu", "7"), ("gpu", "gpu")])
def test_what_loads_already_ends_where_nothing_runs(
    launches: Launches, words: tuple[str, ...]
) -> None:
    refused(*words)
    assert [begun.fileno() for _, begun in launches.begun] == [-1]
    assert launches.profiles == []


NOTICES = [
    notice("debug", "ssh: debug1"),
    notice("change", "[local] ip route add 10.20.0.0/16 dev sshvpn0"),
    notice("info", "running"),
    notice("warning", "not shared on eth0"),
]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "sshvpn: not shared on eth0\n"),
        (
            ("-v",),
            "[local] ip route add 10.20.0.0/16 dev sshvpn0\n"
            "sshvpn: running\nsshvpn: not shared on eth0\n",
        ),
    ],
)
def test_changes_are_shown_as_they_are_to_who_wants_to_know(
    launches: Launches, words: tuple[str, ...], told: str
) -> None:
    launches.scripts["gpu"] = [*NOTICES, snapshot()]
    assert run("gpu", *words).stderr == told


def test_what_stopped_it_is_its_error(launches: Launches) -> None:
    launches.scripts["gpu"] = [end("tunnel_refused", 5, "no tun", "set PermitTunnel")]
    error = refused("gpu")
    assert (error.exit_code, error.message, error.hint) == (5, "no tun", "set PermitTunnel")
    launches.scripts["gpu"] = PrivilegeError("sudo said no", "ask somebody")
    assert refused("gpu").exit_code == 4
    launches.scripts["gpu"] = []
    assert refused("gpu").message == "the background process has ended"


def test_several_are_all_started_and_the_first_failure_is_the_exit_code(
    launches: Launches,
) -> None:
    launches.scripts |= {
        "a": PrivilegeError("sudo said no", "ask somebody"),
        "c": [end("unreachable", 6, "no route", "wait")],
    }
    done = run("a", "b", "c", "d")
    assert done.exit_code == 4
    assert [profile.name for profile in launches.profiles] == ["a", "b", "c", "d"]
    assert [line for line in done.stdout.splitlines() if line[0] != " "] == ["b is up", "d is up"]
    assert done.stderr == ("sshvpn: a: sudo said no\n  ask somebody\nsshvpn: c: no route\n  wait\n")


# What is up already ------------------------------------------------------------------------


@pytest.fixture(params=["before", "meanwhile"])
def taken(request: pytest.FixtureRequest, launches: Launches) -> str:
    """Let ``office`` be found to be up: before anything is started, or in a race."""
    up_already = AlreadyUpError(places.runtimes()[0])
    launches.scripts["office"] = (
        up_already if request.param == "before" else [end("already_up", 7, "it is up already")]
    )
    return "office"


WANTED = [
    "route fd20::/48",
    "route 10.20.0.0/16",
    "exclude 10.20.9.0/24",
    "publish 8888",
    "lan eth1",
]


def test_what_is_up_is_told_and_no_failure(taken: str, begin: Begin) -> None:
    begin("tunnel", "office", tunnel(), wanted=WANTED)
    done = run(taken)
    assert (done.exit_code, done.stderr) == (0, "office is up already\n")
    assert done.stdout.startswith(
        "  here         alice@vpn.example.com is 100.64.0.2\n               and fd5a::2\n"
    )


def test_other_wishes_than_those_that_run_are_told(taken: str, begin: Begin) -> None:
    begin("tunnel", "office", tunnel(), wanted=WANTED)
    error = refused(taken, "-r", "10.99.0.0/16")
    assert isinstance(error, TakenError)
    assert error.message == "office is up with other wishes"
    assert error.hint == "first: sshvpn down office"


@pytest.mark.usefixtures("launches")
def test_a_bare_host_wishes_nothing_else(begin: Begin, launches: Launches) -> None:
    launches.scripts["gpu"] = AlreadyUpError(places.runtimes()[0])
    begin("tunnel", "gpu", tunnel(name="gpu"), wanted=["route 10.0.0.0/8"])
    assert run("gpu").exit_code == 0


@pytest.mark.parametrize(
    ("runs", "words"), [(["no lan"], ["--lan"]), ([], ["--no-lan"])], ids=["alone", "shared"]
)
def test_whether_it_is_shared_is_a_wish_too(
    begin: Begin, launches: Launches, runs: list[str], words: list[str]
) -> None:
    launches.scripts["gpu"] = AlreadyUpError(places.runtimes()[0])
    begin("tunnel", "gpu", tunnel(name="gpu"), wanted=runs)
    assert isinstance(refused("gpu", *words), TakenError)
    if runs:
        assert run("gpu", "--no-lan").exit_code == 0, "the same"
    assert run("gpu").exit_code == 0, "a bare name wishes nothing"


def test_lan_trusts_the_network_for_what_runs(
    taken: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin("tunnel", "office", tunnel(lan=[]), wanted=WANTED)
    monkeypatch.setattr(lan, "trust_lan", lambda _profile: session.publish(records=[tunnel()]))
    assert "shared with  192.168.1.0/24 on eth0\n" in run(taken, "--lan").stdout


def test_what_waits_for_a_login_gets_one(
    taken: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = waiting_tunnel("needs_login", "a password is wanted")
    session = begin("tunnel", "office", waiting, state="backoff", wanted=WANTED)
    error = refused(taken)
    assert (error.exit_code, error.message) == (5, "a password is wanted")

    def log_in() -> None:
        session.publish(state="starting")
        session.publish(state="running", records=[tunnel()])

    session.on_attach = log_in
    monkeypatch.setattr(terminal, "prompter", object)
    assert run(taken).stderr == "office is up already\n"
    assert session.commands == ["attached"]


# The words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("--portal-tokens",),
        ("--dns",),
        ("--dns-domain", "office.example"),
    ],
)
def test_what_this_version_has_not_is_told(launches: Launches, words: tuple[str, ...]) -> None:
    error = refused("gpu", *words)
    assert isinstance(error, UsageError)
    assert "is not in this version (" in error.message
    assert words[0] in error.message
    assert launches.profiles == []


def test_words_that_say_what_holds_anyway_are_taken(launches: Launches) -> None:
    assert run("gpu", "--no-announce", "--streams", "1", "--transport", "w").exit_code == 0
    assert launches.profiles[0].streams == 1


def test_the_help_shows_no_option_that_does_nothing() -> None:
    told = run("--help").stdout
    for option in ("-tokens", "--dns"):
        assert option not in told
    for option in (
        "--lan / --no-lan",
        "--publish",
        "-r, --route",
        "--dry-run",
        "-J JUMP",
        "--portal [PORT]",
    ):
        assert option in told


@pytest.mark.usefixtures("launches")
def test_under_sudo_it_acts_for_the_caller_before_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[int] = []

    def leave(tunnels: int) -> None:
        left.append(tunnels)
        monkeypatch.setenv("SSHVPN_HOST", "gpu")

    monkeypatch.setattr(privilege, "leave_root", leave)
    assert run().exit_code == 0
    run("a", "b")
    assert left == [1, 2]


def test_a_dry_run_prints_what_would_be_done(
    launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["[local] ip tuntap add sshvpn0 mode tun", "[remote] ip link set tun0 up"]
    monkeypatch.setattr(tunnels, "dry_run", lambda _profile: lines, raising=False)
    assert run("gpu", "--dry-run").stdout == "\n".join(lines) + "\n"
    assert launches.profiles == [] == launches.begun


# The foreground ----------------------------------------------------------------------------


def in_foreground(
    monkeypatch: pytest.MonkeyPatch, story: Callable[[Any], int]
) -> Callable[..., Result]:
    """Let the foreground session be ``story`` of its front."""

    def run_tunnel(_profile: TunnelProfile, make_front: Callable[[], Any], **_: Any) -> int:
        return story(make_front())

    monkeypatch.setattr(tunnels, "run_tunnel", run_tunnel)
    return lambda *words: run("--foreground", *words)


RUNNING: Mapping[str, Any] = {"kind": "tunnel", **snapshot()["snapshot"]}


@pytest.mark.usefixtures("launches")
def test_in_the_foreground_events_are_lines_and_the_reach_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story(front: Any) -> int:
        front.notice("change", "[local] ip link set sshvpn0 up")
        front.notice("debug", "ssh: debug1")
        front.notice("info", "running")
        front.update(RUNNING)
        front.update(RUNNING)
        front.close()
        return 130

    foreground = in_foreground(monkeypatch, story)
    done = foreground("gpu")
    assert done.exit_code == 130
    assert done.stdout.splitlines()[0] == "gpu: running"
    assert done.stdout.count("100.64.0.2") == 1
    told = foreground("gpu", "-v").stdout.splitlines()
    assert told[:2] == ["[local] ip link set sshvpn0 up", "gpu: running"]


@pytest.mark.usefixtures("launches")
def test_in_the_foreground_the_first_start_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float | None] = []

    def run_tunnel(profile: TunnelProfile, *_: Any, **__: Any) -> int:
        bounds.append(profile.timeout_s)
        return 0

    monkeypatch.setattr(tunnels, "run_tunnel", run_tunnel)
    run("--foreground", "gpu")
    run("--foreground", "gpu", "--timeout", "5")
    assert bounds == [None, 5.0]
    assert "--timeout 0: not a time" in refused("gpu", "--timeout", "0").message


@pytest.mark.usefixtures("launches")
def test_the_foreground_is_for_one_that_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def story(_front: Any) -> int:
        raise AlreadyUpError(places.runtimes()[0])

    foreground = in_foreground(monkeypatch, story)
    with pytest.raises(TakenError, match="gpu is up already"):
        foreground("gpu")
    with pytest.raises(UsageError, match="--foreground is for one HOST"):
        foreground("a", "b")


def test_a_dry_run_is_for_one() -> None:
    assert "--dry-run is for one HOST" in refused("--dry-run", "a", "b").message


def test_a_failure_reaches_the_shell_with_its_exit_code(
    launches: Launches, capsys: pytest.CaptureFixture[str]
) -> None:
    launches.scripts["gpu"] = [end("lost", 6, "gone", "wait")]
    assert main.run(["up", "gpu"]) == 6
    assert capsys.readouterr().err == "sshvpn: gone\n  wait\n"

"""The words of ``sshvpn notebook``, and what it prints."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Any

import click
import pytest

from sshvpn.cli import main
from sshvpn.cli.forward_request import ForwardWords, build_profile as build_forward
from sshvpn.cli.lan_options import TypedWishes
from sshvpn.cli.notebook import leads_to, said_against
from sshvpn.cli.notebook_request import NotebookWords, build_profile
from sshvpn.cli.notebook_view import NotebookExtras, told, with_token
from sshvpn.cli.typed import words_of
from sshvpn.config import load, parse, render
from sshvpn.config.from_profile import of_profile
from sshvpn.control import session_id
from sshvpn.errors import ConfigError, UsageError
from sshvpn.model import ForwardProfile, JupyterWay, NotebookWish
from sshvpn.remote.notebook_protocol import Server
from sshvpn.services.keys import limits

NOTEBOOKS = """
[notebooks.thesis]
host = "alice@gpu"
dir = "work/my thesis"
command = "uv run 'jupyter' lab"
port = 7777
lan = true
timeout = 9
ssh_options = { Port = 2222 }
"""


@pytest.fixture
def home(home: Path) -> Path:
    file = home / "config.toml"
    file.write_text(file.read_text() + NOTEBOOKS)
    return home


pytestmark = pytest.mark.usefixtures("home")


def built(host: str | None, **typed: Any) -> ForwardProfile:
    return build_profile(NotebookWords(host=host, **typed))


def test_a_bare_host_is_its_home_directory_at_9999() -> None:
    profile = built("gpu")
    assert profile.notebook == NotebookWish()
    assert (profile.name, profile.specs[0].listen, profile.binds) == ("gpu", 9999, ())
    assert profile.timeout_s == 120


def test_a_profile_is_what_the_file_says_and_the_command_line_goes_before() -> None:
    profile = built("thesis")
    words = ("uv", "run", "jupyter", "lab")
    assert profile.notebook == NotebookWish(
        "work/my thesis", JupyterWay.COMMAND, words, has_port=True
    )
    assert (profile.destination.user, profile.lan, profile.lan_trusts) == ("alice", True, False)
    assert profile.ssh.options == (("Port", "2222"),)
    other = built("thesis", jupyter={JupyterWay.VENV: "v"}, port=1, lan=False, directory="d")
    assert other.notebook == NotebookWish("d", JupyterWay.VENV, ("v",), has_port=True)
    assert (other.specs[0].listen, other.lan, other.binds) == (1, False, ())
    assert session_id(other) == session_id(profile)


def test_forward_with_its_name_is_the_same_one_as_a_service_runs_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "service.toml"
    file.write_text(render(of_profile(built("thesis"))))
    file.chmod(0o600)
    monkeypatch.setenv("SSHVPN_CONFIG", str(file))
    service = build_forward(ForwardWords(name="thesis"))
    assert service.notebook == built("thesis").notebook
    assert session_id(service) == session_id(built("thesis"))
    assert limits(service) == "restrict,port-forwarding"


def test_the_words_that_were_typed_make_it_again() -> None:
    profile = built("gpu", jupyter={JupyterWay.VENV: "v"}, lan=True)
    assert profile.typed is not None
    assert build_profile(words_of(NotebookWords, profile.typed)) == profile


def test_shared_it_is_at_localhost_too() -> None:
    assert built("gpu", lan=True).binds == ("localhost",)


def test_a_notebook_is_known_by_its_directory_whatever_else_is_wished() -> None:
    plain = built("gpu")
    assert session_id(plain) == session_id(built("gpu", lan=True, port=7))
    assert session_id(plain) != session_id(built("gpu", directory="x"))
    shared = built("gpu", lan=True)
    assert plain.is_met_by(shared.wanted)
    assert not shared.is_met_by(plain.wanted)


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("notes", "notes"),
        ("~/notes", "notes"),
        ("notes/", "notes"),
        ("./notes//thesis/./", "notes/thesis"),
        ("//notes/", "/notes"),
        ("/", "/"),
        ("~", "~"),
        ("~/", "~"),
        (".", "~"),
        ("./~", "./~"),
        ("~/~/x", "./~/x"),
        ("~bob/x", "~bob/x"),
        ("a/../b", "a/../b"),
        ("/~/x", "/~/x"),
    ],
)
def test_a_directory_is_the_same_however_it_is_written(typed: str, plain: str) -> None:
    profile = built("gpu", directory=typed)
    assert profile.notebook is not None
    assert profile.notebook.directory == plain
    assert session_id(profile) == session_id(built("gpu", directory=plain))


@pytest.mark.parametrize(
    ("lan", "wishes", "against"),
    [
        (None, TypedWishes(), set()),
        (True, TypedWishes(announce=False), set()),
        (False, TypedWishes(), {"lan"}),
        (None, TypedWishes(announce=True), {"no announce"}),
    ],
)
def test_what_is_said_not_to_be_is_a_wish_too(
    lan: bool | None, wishes: TypedWishes, against: set[str]
) -> None:
    assert said_against(lan, wishes) == against


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"host": "8888"}, "is no HOST"),
        ({"host": "gpu", "directory": ""}, "is not a directory"),
        ({"host": "gpu", "directory": "a\nstop"}, "is not a directory"),
        ({"host": "gpu", "jupyter": {JupyterWay.COMMAND: "'"}}, "not closed"),
        ({"host": "gpu", "jupyter": {JupyterWay.COMMAND: " "}}, "is no command"),
        ({"host": "gpu", "jupyter": {JupyterWay.VENV: "a", JupyterWay.PYTHON: "b"}}, "each name"),
        ({"host": "-oProxyCommand=x"}, "-oProxyCommand"),
    ],
)
def test_what_is_wrong_is_told(typed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        built(**typed)


def test_the_file_reads_back_as_it_is_shown() -> None:
    config = load()
    assert dict(parse(render(config), Path("x")).notebooks) == dict(config.notebooks)


@pytest.mark.parametrize(
    "text", ['venv = "a"\npython = "b"', 'dir = ""', "port = 0", 'command = "a\'"']
)
def test_a_wrong_profile_is_told_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x:\d+: notebooks"):
        parse(f'[notebooks.n]\nhost = "gpu"\n{text}\n', Path("x"))


@pytest.mark.parametrize(
    ("line", "name", "host"),
    [
        (["gpu"], "notebook", "gpu"),
        (["--lan", "gpu"], "notebook", "gpu"),
        (["--", "list"], "notebook", "list"),
        (["list", "gpu"], "list", "gpu"),
        (["stop", "--all", "gpu"], "stop", "gpu"),
    ],
)
def test_a_line_is_about_a_notebook_unless_it_names_a_command(
    line: list[str], name: str, host: str
) -> None:
    group = main.load("notebook")
    context = group.make_context("notebook", line)
    if isinstance(context.command, click.Group):
        command = context.command.get_command(context, name)
        assert command is not None
        context = command.make_context(name, line[1:], parent=context)
    assert (context.command.name, context.params["host"]) == (name, host)


def test_the_token_is_beside_the_url_only_where_it_is_printed() -> None:
    assert with_token("http://localhost:9999/", "a b&c") == "http://localhost:9999/?token=a%20b%26c"
    assert with_token("http://localhost:9999/", "") == "http://localhost:9999/"
    record = {"host": "gpu", "notebook": {"directory": "/d", "started_with": None, "pid": 5}}
    assert list(told(record, "HERE", ["http://lan/"])) == [
        "Jupyter in /d at gpu, it ran already (process 5 there)",
        "  here        HERE",
        "  on the LAN  http://lan/",
        "  (plain HTTP: who listens in on the local network can read it, the token too)",
    ]


def running(directory: str, origin: str = "directory") -> Server:
    return Server(7, directory, "127.0.0.1", 8888, "", "/", has_tls=False, has_password=False,
                  version="2", origin=origin, log="/log", token="x")  # fmt: skip


@pytest.mark.parametrize(
    ("state", "about", "wanted", "leads"),
    [
        ("running", {"directory": "/h/d", "pid": 7, "log": "/log"}, "notebook d", True),
        ("running", {"directory": "/h/d", "pid": 8, "log": "/l"}, "notebook d", False),
        # It was there, and starts again what is ended now.
        ("backoff", {"directory": "/h/d", "pid": 8, "log": "/l"}, "notebook d", True),
        ("backoff", {"directory": "/h/e", "pid": 8, "log": "/l"}, "notebook e", False),
        ("starting", None, "notebook d", True),
        ("starting", None, "notebook /h/d", True),
        ("starting", None, "notebook e", False),
        ("starting", None, "notebook ~", False),
        ("starting", None, "local 9999:8888", False),
    ],
)
def test_what_leads_to_a_jupyter_that_ends_is_known_in_any_state(
    state: str, about: dict[str, Any] | None, wanted: str, leads: bool
) -> None:
    record = {"host": "gpu", "notebook": about}
    snapshot = {"state": state, "wanted": [wanted, "lan"], "records": [record]}
    assert leads_to(snapshot, "gpu", running("/h/d"), "/h") is leads


def test_what_is_started_without_a_directory_leads_to_where_home_or_configuration_says() -> None:
    record = {"host": "gpu", "notebook": None}
    snapshot = {"state": "starting", "wanted": ["notebook ~"], "records": [record]}
    assert leads_to(snapshot, "gpu", running("/h"), "/h")
    assert leads_to(snapshot, "gpu", running("/data", "home"), "/h")
    assert not leads_to(snapshot, "gpu", running("/h/d"), "/h")


def test_a_host_s_other_name_is_known_by_the_log() -> None:
    about = {"directory": "/h/d", "pid": 7, "log": "/log"}
    record = {"host": "gpu.example", "notebook": about}
    snapshot = {"state": "running", "wanted": ["notebook d"], "records": [record]}
    assert leads_to(snapshot, "gpu", running("/h/d"), "/h")


def test_a_browser_that_runs_on_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``BROWSER="chromium --app=%s"`` is waited for until its window is closed."""
    closed, opened = threading.Event(), threading.Event()

    def browse(_: str) -> bool:
        opened.set()
        return closed.wait(10)

    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setenv("BROWSER", "chromium --app=%s")
    monkeypatch.setattr("sshvpn.wiring.places.session_path", lambda _: tmp_path)
    about = {"directory": "/d", "started_with": None, "pid": 5}
    record = {"host": "gpu", "notebook": about, "direction": "local",
              "url": "http://localhost:9999/", "listen": ["127.0.0.1:9999"]}  # fmt: skip
    extras = NotebookExtras(built("gpu"), qr=False, browser=True)
    try:
        extras.once_running({"state": "running", "records": [record]})
        assert opened.wait(5)
        assert not closed.is_set()
        assert "here" in capsys.readouterr().out
    finally:
        closed.set()
    extras.wait_opened()

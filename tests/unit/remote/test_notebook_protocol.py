"""What is said with the script that finds and starts Jupyter."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sshvpn.model import JupyterWay, NotebookWish
from sshvpn.remote import notebook_protocol as protocol, notebook_script
from sshvpn.remote.notebook_protocol import Ended, Ends, Hello, LogLine, Problem, Reader, Server
from sshvpn.remote.protocol import MalformedLineError

NONCE = "0123456789abcdef"
RECORD = {
    "base_url": "/", "hostname": "127.0.0.1", "password": False, "pid": 56, "port": 8888,
    "root_dir": "/home/alice", "secure": False, "sock": "", "token": "t0ken",
    "url": "http://127.0.0.1:8888/", "version": "2.21.1",
}  # fmt: skip


def read(*lines: str) -> list[protocol.Message | None]:
    reader = Reader(NONCE)
    return [reader.feed(f"{NONCE} {line}\n") for line in lines]


def server(head: str = "server 56 other ", **changed: Any) -> Server | None:
    text = json.dumps({**RECORD, **changed}, indent=2)
    said = read(head, *(f"json {line}" for line in text.splitlines()), "end")[-1]
    assert said is None or isinstance(said, Server)
    return said


def test_what_jupyter_tells_of_itself_is_read() -> None:
    found = server("server 56 home /home/alice/x.log")
    assert found is not None
    assert (found.pid, found.host, found.port, found.token) == (56, "127.0.0.1", 8888, "t0ken")
    assert (found.directory, found.log, found.is_ours) == ("/home/alice", "/home/alice/x.log", True)
    assert not found.is_open
    assert "t0ken" not in repr(found)


def test_a_directory_that_is_reached_over_a_link_is_the_real_one() -> None:
    lines = [f"json {line}" for line in json.dumps(RECORD, indent=2).splitlines()]
    real, plain = (
        ["server 1 other ", *lines, "real /data/alice", "end"],
        ["server 2 other ", *lines],
    )
    told = [found for found in read(*real, *plain, "end") if isinstance(found, Server)]
    assert [one.directory for one in told] == ["/data/alice", "/home/alice"]


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({"hostname": "localhost"}, "host", "127.0.0.1"),
        ({"hostname": "0.0.0.0"}, "host", "127.0.0.1"),
        ({"hostname": "10.1.2.3"}, "host", "10.1.2.3"),
        ({"root_dir": "/home/ärger"}, "directory", "/home/ärger"),
        ({"root_dir": None, "notebook_dir": "/old"}, "directory", "/old"),
        ({"base_url": "/user/alice/"}, "base_url", "/user/alice/"),
        ({"base_url": '/"><script>/'}, "base_url", "/"),
        ({"base_url": "//evil.example/"}, "base_url", "/"),
        ({"port": 0}, "port", 0),
        ({"port": "22"}, "port", 0),
        ({"port": 65536}, "port", 0),
        ({"token": "two\nlines"}, "token", ""),
        ({"token": "x" * 3000}, "token", ""),
        ({"token": "x" * 3000}, "is_open", False),
        ({"base_url": f"/{'x' * 300}/"}, "base_url", "/"),
        ({"token": ""}, "is_open", True),
        ({"token": "", "password": True}, "is_open", False),
        ({"secure": True}, "has_tls", True),
        ({"sock": "/run/j.sock"}, "socket", "/run/j.sock"),
        ({"version": "2.21.1"}, "is_classic", False),
        ({"version": None}, "is_classic", True),
    ],
)
def test_each_of_its_words_is_taken_for_what_it_is(
    changed: dict[str, Any], field: str, value: object
) -> None:
    assert getattr(server(**changed), field) == value


def test_for_how_long_it_lives_is_read() -> None:
    assert read("ends logout", "ends last_logout") == [
        Ends(is_with_last=False),
        Ends(is_with_last=True),
    ]
    with pytest.raises(MalformedLineError):
        read("ends tomorrow")


def test_what_is_not_its_file_is_no_server() -> None:
    for text in ("", "[1]", "{", "null"):
        assert read("server 5 other ", f"json {text}", "end") == [None, None, None]


def test_noise_around_a_line_is_passed_over() -> None:
    reader = Reader(NONCE)
    assert reader.feed("Welcome to the server!\n") is None
    assert reader.feed(f"\x1b[0mNOISE {NONCE} hello 1 /home/alice\n") == Hello("/home/alice")


def test_its_text_is_made_harmless_for_a_terminal() -> None:
    assert read("log \x1b[2Jgone", "error died \x07x", "ended 12", "left 13") == [
        LogLine("\\x1b[2Jgone"), Problem("died", "\\x07x"),
        Ended(12, is_gone=True), Ended(13, is_gone=False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", ["hello 2 /home", "server x other ", "server 1 mine ", "ended -1", "ended 1²", "what"]
)
def test_what_is_not_understood_is_an_error(line: str) -> None:
    with pytest.raises(MalformedLineError):
        read(line)


def test_a_server_s_record_has_an_end() -> None:
    with pytest.raises(MalformedLineError, match="too much"):
        read("server 5 other ", *["json x"] * 100)
    with pytest.raises(MalformedLineError, match="too much"):
        read("server 5 other ", *["json " + "x" * 10_000] * 10)


@given(st.lists(st.text() | st.sampled_from(["json {", "server 1 home x", "end"]), max_size=8))
def test_no_line_breaks_the_reader(lines: list[str]) -> None:
    reader = Reader(NONCE)
    with contextlib.suppress(MalformedLineError):
        for line in lines:
            reader.feed(f"{NONCE} {line}")


def test_what_is_asked_for_is_lines_and_no_words_for_a_shell() -> None:
    wish = NotebookWish("d", JupyterWay.COMMAND, ("sh", "-c", "echo $(id); 'x'"))
    assert protocol.start(wish, "abc", shared=True).decode().splitlines() == [
        "way command", "words", "word sh", "word -c", "word echo $(id); 'x'", "token abc",
        "shared", "within 100", "start",
    ]  # fmt: skip
    assert protocol.look("") == b"look\n"
    with pytest.raises(ValueError, match="not one line"):
        protocol.look("a\nstop")


def test_the_command_has_nothing_that_a_login_shell_would_expand() -> None:
    command = protocol.remote_command(notebook_script(), NONCE)
    quoted = command.split("'")
    assert len(quoted) == 3
    assert not set("!\\\n") & set(command)
    assert quoted[2] == f" sshvpn-notebook {len(notebook_script())} {NONCE}"
    with pytest.raises(ValueError, match="nonce"):
        protocol.remote_command(notebook_script(), "$(id)")

"""The process that `up` will need begins before its words are read, where they are plain."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sshvpn.cli import early
from sshvpn.wiring import beginning, privilege


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, socket.socket]]:
    """Return what was begun, by its name."""
    found: dict[str, socket.socket] = {}

    def begin(name: str) -> socket.socket:
        found[name], other = socket.socketpair()
        other.close()
        return found[name]

    monkeypatch.setattr(beginning, "begin_tunnel", begin)
    monkeypatch.setattr(privilege, "is_for_caller", lambda: False)
    yield found
    for one in found.values():
        early.take("office")
        one.close()


def test_a_host_behind_up_is_begun_and_taken_once(begun: dict[str, socket.socket]) -> None:
    early.begin(["up", "office", "--lan", "--publish", "8888"])
    assert list(begun) == ["office"]
    assert early.take("other") is None
    assert early.take("office") is begun["office"]
    assert early.take("office") is None


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["up"],
        ["up", "--lan", "office"],
        ["up", "office", "--help"],
        ["up", "office", "-h"],
        ["up", "office", "--dry-run"],
        ["up", "office", "--foreground"],
        ["up", "office", "--name=work"],
        ["up", "office", "--name", "work"],
        ["--debug", "up", "office"],
        ["down", "office"],
        ["forward", "office", "8888"],
    ],
)
def test_nothing_is_begun_where_words_must_be_read_first(
    begun: dict[str, socket.socket], words: list[str]
) -> None:
    early.begin(words)
    assert not begun


def test_nothing_is_begun_by_root_for_who_called_sudo(
    begun: dict[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privilege, "is_for_caller", lambda: True)
    early.begin(["up", "office"])
    assert not begun


def test_what_stands_in_the_way_is_left_to_who_needs_it(
    begun: dict[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise BlockingIOError

    monkeypatch.setattr(beginning, "begin_tunnel", refuse)
    early.begin(["up", "office"])
    assert not begun

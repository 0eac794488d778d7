"""The tree of errors: its picture, the exit codes of the contract, and text from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from sshvpn import errors
from sshvpn.errors import Retry, SshvpnError, UsageError, printable


def every_class(root: type[SshvpnError] = SshvpnError) -> Iterator[type[SshvpnError]]:
    yield root
    for below in root.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from every_class(below)


CLASSES = list(every_class())


def drawn() -> dict[str, int]:
    """Return the classes and exit codes that the picture in the module shows."""
    picture = re.findall(r"(\w+Error)\s+(\d+) ", errors.__doc__ or "")
    return {name: int(code) for name, code in picture}


def test_the_picture_shows_the_tree_as_it_is() -> None:
    assert drawn() == {kind.__name__: kind.exit_code for kind in CLASSES}


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {kind.exit_code for kind in CLASSES} == {1, 2, 3, 4, 5, 6, 7}


def test_each_class_has_its_own_code_for_status() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_only_a_person_can_mend_is_not_retried_for_ever(kind: type[SshvpnError]) -> None:
    if kind.exit_code in (2, 3, 4):
        assert kind.retry is Retry.NEVER
    if kind.exit_code == 7:
        assert kind.retry is Retry.ONCE_RUN
    if kind.exit_code == 6:
        assert kind.retry is Retry.FOREVER


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_is_one_line_and_a_hint(kind: type[SshvpnError]) -> None:
    error = kind("wrong\nhere\x1b[2J", "do\tthis")
    assert str(error) == error.message == "wrong here\\x1b[2J"
    assert error.hint == "do this"
    assert kind("wrong").hint == ""


def test_a_wrong_file_is_a_wrong_word_to_whoever_catches_it() -> None:
    assert issubclass(errors.ConfigError, UsageError)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("a\r\nb", "a  b"),
        ("a\x00b\x9b\x7f", "a\\x00b\\x9b\\x7f"),
        ("\u202egpj", "\\x202egpj"),
        ("\udcff", "\\xdcff"),
        ("  bücher …  ", "bücher …"),
        ("", ""),
    ],
)
def test_text_from_outside_cannot_move_the_cursor_or_forge_a_line(text: str, safe: str) -> None:
    assert printable(text) == safe


@given(st.text())
def test_any_text_becomes_one_printable_line(text: str) -> None:
    once = printable(text)
    assert once.isprintable()
    assert printable(once) == once
    once.encode()  # no lone surrogates


def test_a_record_for_status_has_its_code_and_the_way_out() -> None:
    error = errors.TakenError("port 80 is taken", "take another")
    assert error.as_record() == {"code": "taken", "message": "port 80 is taken; take another"}
    assert SshvpnError("no").as_record() == {"code": "failed", "message": "no"}

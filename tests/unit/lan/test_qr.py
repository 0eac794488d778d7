"""What a reader sees of a code on the terminal."""

from __future__ import annotations

import re

import pytest
import segno

from sshvpn.lan.qr import terminal_qr

URL = "http://192.168.1.5:9999/"
QUIET = 2


def modules(text: str) -> list[list[bool]]:
    """Return the code of ``text`` with its quiet zone, True for dark."""
    rows = segno.make(text, micro=False).matrix_iter(border=QUIET)
    return [[bool(module) for module in row] for row in rows]


def seen_in_half_blocks(printed: str) -> list[list[bool]]:
    rows: list[list[bool]] = []
    for line in printed.splitlines():
        found = re.fullmatch("\x1b\\[38;5;16;48;5;231m([ █▀▄]+)\x1b\\[0m", line)
        assert found, line
        rows.append([character in "█▀" for character in found[1]])
        rows.append([character in "█▄" for character in found[1]])
    return rows


@pytest.mark.parametrize("text", [URL, "http://[fd00::5]:9999/", "x" * 300])
def test_each_module_is_where_it_belongs(text: str) -> None:
    expected = modules(text)
    seen = seen_in_half_blocks(terminal_qr(text))
    assert seen[: len(expected)] == expected
    assert not any(any(row) for row in seen[len(expected) :])


def test_a_url_fits_a_narrow_terminal() -> None:
    lines = terminal_qr(URL).splitlines()
    assert len(lines) <= 20
    assert all(len(re.sub("\x1b\\[[0-9;]*m", "", line)) <= 40 for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "no-such-encoding"])
def test_without_block_characters_it_is_drawn_with_spaces(encoding: str) -> None:
    printed = terminal_qr(URL, encoding)
    assert printed.isascii()
    seen = [
        [colour == "38;5;231;48;5;16" for colour in re.findall("\x1b\\[([0-9;]+)m  ", line)]
        for line in printed.splitlines()
    ]
    assert seen == modules(URL)


def test_more_than_a_code_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"(?i)data"):
        terminal_qr("x" * 5000)

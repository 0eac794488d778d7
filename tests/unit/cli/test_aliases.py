"""The aliases of ssh_config, read as ssh reads it, where that matters to completion."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshvpn.cli.aliases import aliases


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Host a b\nhost c", ["a", "b", "c"]),
        ("  HOST=a b", ["a", "b"]),
        ("Host = a", ["a"]),
        ("Host =a", ["a"]),
        ('Host "a" b # c', ["a", "b"]),
        ("Host * ?x a* !b c", ["c"]),
        ("# Host a\nHostName b\nMatch host c\nHost", []),
        ('Host "a', ['"a']),
        ("", []),
    ],
)
def test_host_lines_without_patterns_are_aliases(
    text: str, found: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    assert list(aliases(file)) == found


def test_includes_are_followed_relative_absolute_and_by_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    (ssh / "one").write_text("Host one")
    (ssh / "two-a").write_text("Host two-a")
    (ssh / "two-b").write_text("Host two-b\nInclude one")
    (tmp_path / "three").write_text("Host three")
    (ssh / "config").write_text(f"Include two-* {tmp_path}/three ~/.ssh/one nothing\nHost four")
    found = list(aliases())
    assert found[:6] == ["two-a", "two-b", "one", "three", "one", "four"]


def test_a_file_that_includes_itself_ends(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(f"Host a\nInclude {file}\n")
    assert set(aliases(file)) == {"a"}


def test_what_is_not_there_or_not_readable_has_no_aliases(tmp_path: Path) -> None:
    assert list(aliases(tmp_path / "nothing")) == []
    assert list(aliases(tmp_path)) == []
    binary = tmp_path / "binary"
    binary.write_bytes(b"Host a\xff\nHost \x00b\n")
    assert len(list(aliases(binary))) == 2

"""known_hosts is read as ssh reads it, and what is added ssh-keygen finds again."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from sshvpn.system.sshtunnel.knownhosts import (
    Marker,
    Verdict,
    add,
    fingerprint,
    host_name,
    judge,
    parse,
    read,
    types_first,
)

ED1, ED2, RSA = b"ed25519 one", b"ed25519 two", b"rsa one"
needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")


def line(names: str, blob: bytes = ED1, kind: str = "ssh-ed25519", marker: str = "") -> str:
    return f"{marker} {names} {kind} {base64.b64encode(blob).decode()} a comment\n"


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        ("box", "box", True),
        ("BOX.Example", "box.example", True),
        ("other,box", "box", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("b?x", "box", True),
        ("*.example.com,!bad.example.com", "bad.example.com", False),
        ("!bad.example.com,*.example.com", "good.example.com", True),
        ("[box]:2222", "[box]:2222", True),
        ("[box]:2222", "box", False),
        ("box", "[box]:2222", False),
        ("[*.example.com]:2222", "[a.example.com]:2222", True),
        ("[fd00::1]:2222", "[fd00::1]:2222", True),
        ("b", "[box]:2222", False),
    ],
)
def test_names_match_as_in_ssh(names: str, name: str, *, expected: bool) -> None:
    assert bool(parse(line(names), "f", name)) is expected


@pytest.mark.parametrize(
    ("host", "port", "alias", "expected"),
    [
        ("Box", 22, None, "box"),
        ("box", 2222, None, "[box]:2222"),
        ("box", 2222, "Office", "office"),
        ("fd00::1", 22, None, "fd00::1"),
    ],
)
def test_a_server_is_known_by_host_port_or_alias(
    host: str, port: int, alias: str | None, expected: str
) -> None:
    assert host_name(host, port, alias) == expected


def test_comments_and_lines_that_make_no_sense_are_passed_over() -> None:
    text = "# box ssh-ed25519 AAAA\n\nbox\nbox ssh-ed25519 !!!\n@new box ssh-ed25519 AAAA\n"
    (found,) = parse(text + line("box"), "known", "box")
    assert (found.line, found.file, found.blob) == (6, "known", ED1)


def test_a_known_key_is_known_though_another_of_its_type_stands_before_it() -> None:
    known = parse(line("box", ED2) + line("box", ED1), "f", "box")
    assert judge(known, "ssh-ed25519", ED1).verdict is Verdict.KNOWN


def test_another_key_of_the_same_type_is_a_change_and_its_line_is_told() -> None:
    known = parse("\n" + line("box", ED2), "f", "box")
    answer = judge(known, "ssh-ed25519", ED1)
    assert answer.verdict is Verdict.CHANGED
    assert answer.line is not None
    assert answer.line.line == 2


def test_a_key_of_another_type_leaves_the_host_unknown() -> None:
    known = parse(line("box", RSA, "ssh-rsa"), "f", "box")
    assert judge(known, "ssh-ed25519", ED1).verdict is Verdict.UNKNOWN


def test_a_revoked_key_is_refused_even_if_another_line_knows_it() -> None:
    known = parse(line("box") + line("*", marker="@revoked"), "f", "box")
    assert judge(known, "ssh-ed25519", ED1).verdict is Verdict.REVOKED


def test_a_certificate_authority_is_no_host_key() -> None:
    known = parse(line("*", marker="@cert-authority"), "f", "box")
    assert [key.marker for key in known] == [Marker.AUTHORITY]
    assert judge(known, "ssh-ed25519", ED1).verdict is Verdict.UNKNOWN


def test_the_algorithms_of_known_keys_come_first() -> None:
    known = parse(line("box", RSA, "ssh-rsa"), "f", "box")
    offered = ("ssh-ed25519", "rsa-sha2-512", "ecdsa-sha2-nistp256", "rsa-sha2-256")
    expected = ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256")
    assert types_first(known, offered) == expected


def test_files_that_are_not_there_know_nothing(tmp_path: Path) -> None:
    (tmp_path / "two").write_text(line("box"))
    found = read([str(tmp_path / "one"), str(tmp_path / "two")], "box")
    assert [key.file for key in found] == [str(tmp_path / "two")]


@pytest.mark.parametrize("hashed", [True, False])
def test_an_added_key_is_known_and_the_lines_before_it_stay(
    tmp_path: Path, *, hashed: bool
) -> None:
    file = tmp_path / "ssh" / "known_hosts"
    file.parent.mkdir()
    file.write_text(line("old").rstrip("\n"))
    add(str(file), "[box]:2222", "ssh-ed25519", ED2, hashed=hashed)
    assert judge(read([str(file)], "[box]:2222"), "ssh-ed25519", ED2).verdict is Verdict.KNOWN
    assert read([str(file)], "old")
    assert ("box" in file.read_text()) is not hashed


def test_a_new_file_is_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "ssh" / "known_hosts"
    add(str(file), "box", "ssh-ed25519", ED1, hashed=False)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@needs_keygen
def test_hashed_names_and_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "k"], check=True
    )
    public = (tmp_path / "k.pub").read_text()
    kind, blob = public.split()[0], base64.b64decode(public.split()[1])
    file = tmp_path / "known_hosts"
    file.write_text(f"[box]:2222 {public}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    assert "box" not in file.read_text()
    assert judge(read([str(file)], "[box]:2222"), kind, blob).verdict is Verdict.KNOWN
    add(str(file), "other", kind, blob, hashed=True)
    found = subprocess.run(
        ["ssh-keygen", "-F", "other", "-f", file], check=True, capture_output=True, text=True
    )
    assert kind in found.stdout
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "k.pub"], check=True, capture_output=True, text=True
    )
    assert fingerprint(blob) in shown.stdout.split()

"""ProxyJump: the hops as they are written, and the words that go through them."""

from __future__ import annotations

import pytest

from sshvpn.system.ssh.jump import Hop, jump_words, jumps_of, parse_hop


@pytest.mark.parametrize(
    ("jump", "expected"),
    [
        ("hop", "-W [box.example]:2222 -- hop"),
        ("eve@hop:22", "-W [box.example]:2222 -l eve -p 22 -- hop"),
        ("ssh://eve@hop:22", "-W [box.example]:2222 -l eve -p 22 -- hop"),
        ("a,b@b:1,c", "-W [box.example]:2222 -J a,b@b:1 -- c"),
        ("[fd00::1]:33", "-W [box.example]:2222 -p 33 -- fd00::1"),
        ("fd00::1", "-W [box.example]:2222 -- fd00::1"),
    ],
)
def test_the_last_hop_reaches_the_host_over_those_before_it(jump: str, expected: str) -> None:
    jumps = jumps_of({"proxyjump": (jump,)})
    assert " ".join(jump_words(jumps, "[box.example]:2222", ())) == expected


def test_the_users_file_holds_for_the_hops_too() -> None:
    assert jump_words(("hop",), "[box]:22", ("-F", "/c"))[:2] == ("-F", "/c")


def test_a_host_may_have_no_hops() -> None:
    assert jumps_of({}) == jumps_of({"proxyjump": ("none",)}) == ()


def test_a_users_name_may_hold_an_at_sign() -> None:
    assert parse_hop("bob@example.com@hop:22") == Hop("bob@example.com", "hop", "22")

"""Which SPECs of one forward would listen at the same place, and which live beside each other."""

from __future__ import annotations

import pytest

from sshvpn.errors import UsageError
from sshvpn.model import Direction, ForwardSpec
from sshvpn.spec import (
    forward_twins,
    parse_dynamic,
    parse_forward,
    parse_publish,
    published_twins,
    refuse_twins,
)


def parsed(word: str) -> ForwardSpec:
    """Return the SPEC of ``word``, which may begin with -R or -D."""
    if word.startswith("-D"):
        return parse_dynamic(word[2:])
    if word.startswith("-R"):
        return parse_forward(word[2:], Direction.REMOTE)
    return parse_forward(word)


def is_refused(words: str, binds: str = "", *, lan: bool = False) -> bool:
    specs = [parsed(word) for word in words.split()]
    return forward_twins(specs, tuple(binds.split()), lan=lan) is not None


TOGETHER = [
    # SPECs, --bind
    ("8888 8888", ""),
    ("9999:8888 127.0.0.1:9999:1", ""),
    ("9999:8888 [::1]:9999:1", ""),
    ("9999:8888 localhost:9999:1", ""),
    ("9999:8888 *:9999:1", ""),
    ("localhost:9999:8888 [::1]:9999:2", ""),
    ("127.0.0.1:9999:1 0.0.0.0:9999:2", ""),
    ("[fd00::5]:9999:1 [::]:9999:2", ""),
    ("[fd00::5]:9999:1 *:9999:2", ""),
    ("192.168.1.1:9999:1 0.0.0.0:9999:2", ""),
    ("9999:8888 -D9999", ""),
    ("-D127.0.0.1:9999 9999:8888", ""),
    ("1:1 2:2 9999:8888 3:3 [::1]:9999:1", ""),
    ("9999:8888 192.168.1.5:9999:1", "192.168.1.5"),
    ("9999:8888 *:9999:1", "eth0"),
    ("9999:8888 9999:1", "eth0"),
    ("9999:8888 0.0.0.0:9999:1", "192.168.1.5"),
    ("9999:8888 127.0.0.1:9999:1", "*"),
    ("9999:8888 127.0.0.1:9999:1", "eth0 localhost"),
    ("/run/k/a.sock:8888 /run/k/./a.sock:1", ""),
    ("/run/a.sock:8888 //run//a.sock:1", ""),
    ("-R9999:1 -R9999:2", ""),
    ("-R9999:1 -Rlocalhost:9999:2", ""),
    ("-R*:9999:1 -R*:9999:2", ""),
    ("-R/run/a.sock:1 -R/run/./a.sock:2", ""),
]


@pytest.mark.parametrize(("words", "binds"), TOGETHER)
def test_what_would_listen_at_the_same_place_is_refused(words: str, binds: str) -> None:
    assert is_refused(words, binds)
    assert is_refused(" ".join(reversed(words.split())), binds)


APART = [
    ("8888 8889", ""),
    ("127.0.0.1:9999:1 192.168.1.1:9999:2", ""),
    ("9999:1 192.168.1.1:9999:2", ""),
    ("127.0.0.1:9999:1 [::1]:9999:2", ""),
    ("127.0.0.1:9999:1 [::]:9999:2", ""),
    ("0.0.0.0:9999:1 [::]:9999:2", ""),
    ("0:1 0:2", ""),
    ("0:1 127.0.0.1:0:2 *:0:3", ""),
    ("9999:1 127.0.0.1:9999:2", "192.168.1.5"),
    # Only the adapter knows its addresses.
    ("9999:1 127.0.0.1:9999:2", "eth0"),
    ("9999:1 192.168.1.5:9999:2", "eth0"),
    ("9999:1 [::]:9999:2", "eth0"),
    ("9999:1 -R9999:2", ""),
    ("/run/a.sock:1 -R/run/a.sock:2", ""),
    ("/run/a.sock:1 /run/b.sock:2", ""),
    # What is behind a link only the file system knows.
    ("/run/a.sock:1 /run/k/../a.sock:2", ""),
    # What the server makes of an address, only the server knows (GatewayPorts).
    ("-R127.0.0.1:9999:1 -R192.168.1.1:9999:2", ""),
    ("-R9999:1 -R*:9999:2", ""),
]


@pytest.mark.parametrize(("words", "binds"), APART)
def test_what_can_work_is_not_refused(words: str, binds: str) -> None:
    assert not is_refused(words, binds)


def test_the_lan_is_a_place_of_its_own() -> None:
    assert not is_refused("9999:1 127.0.0.1:9999:2", lan=True)
    assert is_refused("9999:1 *:9999:2", lan=True)
    assert is_refused("9999:1 127.0.0.1:9999:2", "127.0.0.1", lan=True)


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        ("8888 8888:db:80", True),
        ("9999:1 *:9999:2", True),
        ("*:9999:1 127.0.0.1:9999:2", False),
        ("9999:1 127.0.0.1:9999:2", False),
        ("192.168.1.5:9999:1 192.168.1.6:9999:2", False),
    ],
)
def test_published_services_share_a_place_where_the_lan_would_see_one(
    words: str, is_one: bool
) -> None:
    found = published_twins([parse_publish(word) for word in words.split()])
    assert (found == (0, 1)) is is_one


def test_it_says_which_two_and_what_to_change() -> None:
    with pytest.raises(UsageError, match=r"^9999:8888 and 127\.0\.0\.1:9999:1 would") as raised:
        refuse_twins([parsed("1:1"), parsed("9999:8888"), parsed("127.0.0.1:9999:1")])
    assert raised.value.hint == "give one of them another port"
    with pytest.raises(UsageError) as raised:
        refuse_twins([parsed("/run/a.sock:1"), parsed("/run/a.sock:2")])
    assert raised.value.hint == "give one of them another path"

"""Our own words of ssh's command line: what the user chose stays, what is ours goes first."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from sshvpn.errors import UsageError
from sshvpn.model import Endpoint, TcpEndpoint, UnixEndpoint
from sshvpn.system.openssh.words import (
    aes_first,
    command_words,
    forward_word,
    forward_words,
    tunnel_words,
)

DEFAULT = "chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com"
CONFIG = {
    "ciphers": (DEFAULT,),
    "default-ciphers": (DEFAULT,),
    "addressfamily": ("any",),
    "serveraliveinterval": ("0",),
    "connecttimeout": ("none",),
}


def options(may_prompt: bool = False, **changed: str) -> dict[str, str]:
    """Return the options that are given to ssh where CHANGED is what its configuration says."""
    config = CONFIG | {key: (value,) for key, value in changed.items()}
    return said(forward_words(config, Path("/run/mux"), may_prompt=may_prompt))


def said(words: tuple[str, ...]) -> dict[str, str]:
    given = [word for before, word in itertools.pairwise(words) if before == "-o"]
    return dict(word.split("=", 1) for word in given)


def test_nobody_is_asked_unless_somebody_is_there() -> None:
    assert options()["BatchMode"] == "yes"
    assert options()["StrictHostKeyChecking"] == "yes"
    assert options(may_prompt=True)["BatchMode"] == "no"
    assert options(may_prompt=True)["StrictHostKeyChecking"] == "ask"


def test_what_lasts_has_a_keepalive_and_a_limit_unless_the_user_has_chosen() -> None:
    assert options()["ServerAliveInterval"] == "3"
    assert options()["ConnectTimeout"] == "10"
    chosen = options(serveraliveinterval="60", connecttimeout="90")
    assert not chosen.keys() & {"ServerAliveInterval", "ConnectTimeout"}


def test_aes_goes_first_on_a_cpu_with_aes_unless_the_user_has_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sshvpn.system.openssh.words.has_aes", lambda: True)
    assert options()["Ciphers"].startswith("aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha")
    assert "Ciphers" not in options(ciphers="chacha20-poly1305@openssh.com")
    monkeypatch.setattr("sshvpn.system.openssh.words.has_aes", lambda: False)
    assert "Ciphers" not in options()


def test_no_cipher_is_added_or_lost() -> None:
    assert sorted(aes_first(DEFAULT).split(",")) == sorted(DEFAULT.split(","))


def test_an_address_family_is_kept_by_where_the_connection_comes_from() -> None:
    assert not options().keys() & {"AddressFamily", "BindAddress"}
    for family, unspecified in (("inet", "0.0.0.0"), ("inet6", "::")):
        given = options(addressfamily=family)
        assert (given["AddressFamily"], given["BindAddress"]) == ("any", unspecified)
        own = options(addressfamily=family, bindaddress="192.0.2.1")
        assert not own.keys() & {"AddressFamily", "BindAddress"}


def test_what_an_older_ssh_does_not_know_is_not_said_to_it() -> None:
    younger = {"ForkAfterAuthentication", "SessionType", "RemoteCommand"}
    assert not options().keys() & younger
    known = options(forkafterauthentication="yes", sessiontype="default", remotecommand="id")
    assert known.keys() >= younger


def test_a_tunnel_keeps_what_would_take_it_away_out() -> None:
    config = CONFIG | {"sessiontype": ("none",), "stdinnull": ("yes",), "remotecommand": ("id",)}
    words = tunnel_words(config, Path("/run/mux"), "5300:any", may_prompt=False)
    assert words[:2] == ("-w", "5300:any")
    assert "-N" not in words
    given = said(words)
    assert (
        given.items()
        >= {
            "Tunnel": "point-to-point",
            "ExitOnForwardFailure": "yes",
            "ClearAllForwardings": "no",
            "SessionType": "default",
            "StdinNull": "no",
            "RemoteCommand": "none",
            "ForwardAgent": "no",
            "PermitLocalCommand": "no",
        }.items()
    )
    assert not said(tunnel_words(CONFIG, Path("/m"), "1:1", may_prompt=False)).keys() & {
        "SessionType", "StdinNull",
    }  # fmt: skip


def test_a_command_alone_runs_without_tunnel_and_forwards() -> None:
    given = said(command_words(CONFIG, Path("/run/mux"), may_prompt=True))
    assert (given["Tunnel"], given["ClearAllForwardings"]) == ("no", "yes")
    assert given["BatchMode"] == "no"


def test_a_forward_is_one_word_whatever_its_ends() -> None:
    unix, tcp = UnixEndpoint("/run/a.sock"), TcpEndpoint("::1", 80)
    assert forward_word(TcpEndpoint("127.0.0.1", 9999), tcp) == "[127.0.0.1]:9999:[::1]:80"
    assert forward_word(unix, tcp) == "/run/a.sock:[::1]:80"
    assert forward_word(TcpEndpoint("::1", 1080), None) == "[::1]:1080"


@pytest.mark.parametrize(
    "target",
    [
        UnixEndpoint("/tmp/${AWS_SECRET_ACCESS_KEY}"),  # noqa: S108 (a server's word)
        UnixEndpoint("/run/%u.sock"),
        UnixEndpoint("/run/a:b"),
        UnixEndpoint("/run/a b"),
        UnixEndpoint("j.sock"),
        UnixEndpoint(""),
        TcpEndpoint("a]:/run/${HOME", 8888),
        TcpEndpoint("-x", 8888),
        TcpEndpoint("", 8888),
    ],
)
def test_what_ssh_would_read_as_more_than_text_is_not_said_to_it(target: Endpoint) -> None:
    with pytest.raises(UsageError, match=r"would read|no host"):
        forward_word(TcpEndpoint("127.0.0.1", 1), target)
    with pytest.raises(UsageError, match=r"would read|no host"):
        forward_word(target, None)

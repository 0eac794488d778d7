"""From the words of ``sshvpn forward`` to a profile: what it shares with ``up``."""

from __future__ import annotations

from typing import Any

import pytest

from sshvpn.cli.forward_request import ForwardWords, build_profile
from sshvpn.errors import UsageError
from sshvpn.model import ForwardProfile, SshOptions
from tests.unit.cli.conftest import Begin

pytestmark = pytest.mark.usefixtures("home")


def built(*words: str, **typed: Any) -> ForwardProfile:
    said: dict[str, Any] = {
        **dict.fromkeys(("local", "remote", "dynamic", "binds"), ()),
        **dict.fromkeys(
            ("host", "name", "lan", "engine", "metrics", "timeout_s", "default_timeout_s")
        ),
        "ssh": SshOptions(),
        **typed,
    }
    return build_profile(ForwardWords(words=words, **said))


@pytest.mark.parametrize(
    ("words", "typed", "timeout_s"),
    [
        (("gpu", "1"), {}, None),
        (("gpu", "1"), {"default_timeout_s": 30.0}, 30.0),
        (("notebook",), {"default_timeout_s": 30.0}, 7.0),
        (("notebook",), {"default_timeout_s": 30.0, "timeout_s": 3.0}, 3.0),
    ],
)
def test_the_bound_of_the_first_start_is_typed_or_the_profile_s_or_the_usual_one(
    words: tuple[str, ...], typed: dict[str, Any], timeout_s: float | None
) -> None:
    assert built(*words, **typed).timeout_s == timeout_s


def test_without_host_it_is_the_one_tunnel_that_is_up(begin: Begin) -> None:
    begin("tunnel", "office", {"host": "alice@vpn.example.com"})
    profile = built("8888")
    assert (profile.name, profile.destination.user) == ("office", "alice")
    begin("tunnel", "other", {"host": "other"})
    with pytest.raises(UsageError) as raised:
        built("8888")
    assert raised.value.hint == "name one of: later, notebook, office, other, stream"


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (("gpu", "9999:8888", "127.0.0.1:9999:1"), {}),
        (("gpu", "9999:8888", "192.168.1.5:9999:1"), {"binds": ("192.168.1.5",)}),
        (("gpu", "9999:8888", "*:9999:1"), {"lan": True}),
    ],
)
def test_two_specs_that_would_listen_at_one_place_are_refused(
    words: tuple[str, ...], typed: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="listen at the same place"):
        built(*words, **typed)


def test_what_is_too_long_to_read_is_shortened_in_the_message() -> None:
    with pytest.raises(UsageError, match="more than one HOST: gpu, aaa") as raised:
        built("gpu", "a" * 100_000)
    assert len(raised.value.message) < 200


@pytest.mark.parametrize("words", [("gpu", ""), ("",), ("", "8888")])
def test_an_empty_word_is_neither_a_host_nor_a_spec(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="'' is neither a HOST nor a SPEC"):
        built(*words)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"binds": ("",)}, "--bind: '' is no name of an adapter"),
        ({"binds": ("eth0", "1.2.3.400")}, "--bind: '1.2.3.400' is no IP address"),
        ({"metrics": "x"}, "--metrics: the listener 'x' is not [ADDRESS:]PORT"),
        ({"metrics": ""}, "--metrics: the listener '' is not [ADDRESS:]PORT"),
    ],
)
def test_an_option_that_is_no_place_is_told_as_its_help_has_it(
    typed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        built("gpu", "8888", **typed)
    assert raised.value.message == message


def test_an_address_may_stand_in_brackets_as_in_a_spec() -> None:
    assert built("gpu", "8888", binds=("[fd00:0::5]", "eth0")).binds == ("fd00::5", "eth0")

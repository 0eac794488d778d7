"""HOST told from SPEC, what a HOST means, and the chain of ``-J``."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from sshvpn.errors import UsageError
from sshvpn.model import Destination
from sshvpn.spec import check_jump, is_host, parse_destination


@pytest.mark.parametrize(
    "word",
    [
        "gpu-box",
        "alice@example.com",
        "ssh://alice@example.com:2222",
        "SSH://x",
        "192.168.1.5",
        "::1",
        "fd00::5",
        "fe80::1%eth0",
        "alice@fe80::1%eth0",
        "alice@corp@gpu",
        "8888a",
        "-x",
        "٣",
        "",
    ],
)
def test_a_host_is_told_by_its_shape(word: str) -> None:
    assert is_host(word)


@pytest.mark.parametrize(
    "word",
    ["8888", "9999:8888", "gpu-box:8888", "alice@gpu:22", "/run/a.sock", "/run/a:8888", ":9999:80",
     "*:9999:80", "[::1]:9999:80", "[::1]", "192.168.1.5:9999:8888", "fe80::1%e;h", "ssh:22"],
)  # fmt: skip
def test_all_else_is_a_spec(word: str) -> None:
    assert not is_host(word)


DESTINATIONS = [
    ("gpu-box", Destination("gpu-box")),
    ("alice@example.com", Destination("example.com", "alice")),
    ("alice@corp.com@gpu", Destination("gpu", "alice@corp.com")),
    ("alice+2fa@gpu", Destination("gpu", "alice+2fa")),
    ("my_box.", Destination("my_box.")),
    ("192.168.1.5", Destination("192.168.1.5")),
    ("::1", Destination("::1")),
    ("alice@fe80::1%eth0", Destination("fe80::1%eth0", "alice")),
    ("::ffff:10.0.0.1", Destination("::ffff:10.0.0.1")),
    ("ssh://example.com", Destination("example.com")),
    ("ssh://example.com/", Destination("example.com")),
    ("SSH://example.com", Destination("example.com")),
    ("ssh://alice@example.com:2222", Destination("example.com", "alice", 2222)),
    ("ssh://alice%40corp.com@gpu:22", Destination("gpu", "alice@corp.com", 22)),
    ("ssh://alice@[fd00::5]:2222", Destination("fd00::5", "alice", 2222)),
    ("ssh://[fe80::1%25eth0]", Destination("fe80::1%eth0")),
    ("ssh://[fe80::1%eth0]:1", Destination("fe80::1%eth0", None, 1)),
    # an alias may be in any script: ssh_config gives it a HostName
    ("büro", Destination("büro")),
    ("jörg@büro", Destination("büro", "jörg")),
]


@pytest.mark.parametrize(("text", "meaning"), DESTINATIONS)
def test_a_host_means_what_ssh_takes_it_for(text: str, meaning: Destination) -> None:
    assert parse_destination(text) == meaning
    assert is_host(text)


MISTAKES = [
    ("", "empty HOST"),
    ("@gpu", "empty user"),
    ("alice@", "no host name"),
    ("-oProxyCommand=reboot", "begin with '-'"),
    ("alice@-oProxyCommand=reboot", "begin with '-'"),
    ("-l@gpu", "a user does not begin with '-'"),
    ("ssh://-l@gpu", "a user does not begin with '-'"),
    ("ssh://%2Dl@gpu", "a user does not begin with '-'"),
    ("ssh://-gpu", "a host does not begin with '-'"),
    ("gpu box", "holds ' '"),
    ("gpu\nbox", "control character (U+000A)"),
    ("gpu\x00", "control character (U+0000)"),
    ("ssh://a%0Ab@gpu", "control character (U+000A)"),
    ("ssh://a%27b@gpu", "holds '''"),
    ("ssh://a%ff@gpu", "not UTF-8"),
    ("ssh://a%zz@gpu", "two hex digits"),
    ("ssh://a:secret@gpu", "password"),
    ("ssh://", "no host name"),
    ("ssh://gpu/etc", "path"),
    ("ssh://gpu:", "without a port"),
    ("ssh://gpu:0", "port is 0"),
    ("ssh://gpu:65536", "too large"),
    ("ssh://gpu:22:22", "not a number"),
    ("ssh://[::1", "brackets"),
    ("ssh://[::1]22", "brackets"),
    ("ssh://[gpu]:22", "brackets"),
    ("alice@gpu:22", "holds a colon"),
    ("[::1]", "no IPv6"),
    ("fe80::1%e;h", "no IPv6"),
    ("bücher.example", "outside ASCII"),
    ("gpu\u202ebox", "control character (U+202E)"),
    ("gpu\udcff", "control character (U+DCFF)"),
    ("a" * 254, "longer"),
    ("a" * 256 + "@gpu", "longer"),
    *[(f"gpu{c}", f"holds '{c}'") for c in "'\"`\\$;|&<>(){}*?!#~%^[],="],
    *[(f"al{c}ice@gpu", f"holds '{c}'") for c in "'\"`\\$;|&<>(){}*?!#~%^[],:/" if c != ":"],
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_wrong_host_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_destination(text)
    assert message in caught.value.message


def test_an_internationalised_name_is_answered_with_its_ascii_form() -> None:
    with pytest.raises(UsageError) as caught:
        parse_destination("alice@bücher.example")
    assert "xn--bcher-kva.example" in caught.value.hint


@pytest.mark.parametrize("rest", ["gpu", "gpu/path", "[gpu", "-gpu", "gpu:x", ""])
def test_a_password_in_a_uri_is_not_repeated(rest: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_destination(f"ssh://alice:hunter2@{rest}")
    assert "hunter2" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["none", "bastion", "alice@bastion:2222", "a,b,c", "alice@[fd00::5]:22,ssh://bob@b:2222"],
)
def test_a_jump_chain_is_handed_on_as_it_is(text: str) -> None:
    assert check_jump(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "a,", ",a", "-x", "a,-x", "a;b", "$(reboot)", "a b", "a\n", "alice@", "a:0", "a:x",
     "ssh://a/b", "fd00::5", "a@-b", "%h", "none,a@", "[fe80::1%eth0]:22", "ssh://[fe80::1%25eth0]"],
)  # fmt: skip
def test_a_wrong_jump_chain_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        check_jump(text)


host_like = st.text(alphabet="ab.-_@:[]%/0123456789 \n'", max_size=30)
anything = st.text() | host_like | host_like.map("ssh://".__add__)


def outcome(text: str) -> Destination | UsageError:
    """Return what the parser returns or the UsageError it raises; anything else is a bug."""
    try:
        return parse_destination(text)
    except UsageError as error:
        return error


@given(anything)
@example("ssh://@")
@example("@")
@example("ssh://[]")
@example("ssh://[%]:1")
@example("\ud800")
def test_any_text_is_a_harmless_host_or_a_usage_error(text: str) -> None:
    found = outcome(text)
    if isinstance(found, UsageError):
        assert found.message.isprintable()
        assert found.hint.isprintable()
        return
    for word in (found.host, found.user or "x"):
        assert word
        assert not word.startswith("-")
        assert word.isprintable()
        assert not set(word) & set(" '\"`$\\;|&<>(){}*?!#~\n")
    assert "%" not in (found.user or "")
    assert ":" in found.host or "%" not in found.host
    host = f"[{found.host}]" if ":" in found.host else found.host
    user = f"{found.user}@" if found.user else ""
    port = f":{found.port}" if found.port else ""
    assert parse_destination(f"ssh://{user}{host}{port}") == found


@given(anything)
def test_any_jump_chain_is_harmless_or_a_usage_error(text: str) -> None:
    try:
        check_jump(text)
    except UsageError:
        return
    assert not text.startswith("-")
    assert text.isprintable()
    assert not set(text) & set(" '\"`$\\;|&<>(){}*?!#~")


@given(st.text() | host_like)
def test_the_shape_of_any_word_can_be_told(word: str) -> None:
    assert isinstance(is_host(word), bool)

"""``-o``: which options are the user's, and which are refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from sshvpn.errors import UsageError
from sshvpn.spec import parse_ssh_option
from sshvpn.spec.ssh_option import OWNED


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("ConnectTimeout=5", "ConnectTimeout", "5"),
        ("ConnectTimeout 5", "ConnectTimeout", "5"),
        (" ConnectTimeout = 5 ", "ConnectTimeout", "5"),
        ("ProxyCommand=nc -X 5 %h %p", "ProxyCommand", "nc -X 5 %h %p"),
        ("SetEnv=A=b", "SetEnv", "A=b"),
        ("user==x", "user", "=x"),
        # where the known keys are is the user's affair
        ("UserKnownHostsFile=/dev/null", "UserKnownHostsFile", "/dev/null"),
        ("GlobalKnownHostsFile=/x", "GlobalKnownHostsFile", "/x"),
        ("HostKeyAlias=gpu", "HostKeyAlias", "gpu"),
        ("KnownHostsCommand=/bin/x %H", "KnownHostsCommand", "/bin/x %H"),
        ("LocalCommand=true", "LocalCommand", "true"),
    ],
)
def test_an_option_of_ssh_is_parted_as_ssh_parts_it(text: str, key: str, value: str) -> None:
    assert parse_ssh_option(text) == (key, value)


@pytest.mark.parametrize("key", sorted(OWNED))
def test_what_sshvpn_owns_is_refused_in_any_case(key: str) -> None:
    for text in (f"{key}=x", f"{key.upper()} x", f"  {key.title()} =x"):
        with pytest.raises(UsageError, match="cannot be set") as caught:
            parse_ssh_option(text)
        assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "=", "Port", "Port=", "=22", "Port\n22", "User=x\nProxyCommand=y", "-oPort=22",
     "Port=\x00", '"StrictHostKeyChecking"=no', "Strict-Host=no", "ümlaut=x",
     "Port=\u2028", f"User={'x' * 5000}"],
)  # fmt: skip
def test_a_wrong_option_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ssh_option(text)


@given(st.text() | st.from_regex(r"[A-Za-z]{1,8} ?=? ?\S{0,9}"))
def test_any_text_is_an_option_or_a_usage_error(text: str) -> None:
    try:
        key, value = parse_ssh_option(text)
    except UsageError:
        return
    assert key.isascii()
    assert key.isalnum()
    assert key.lower() not in OWNED
    assert value.isprintable()
    assert value
    assert parse_ssh_option(f"{key}={value}") == (key, value) or value.startswith("=")

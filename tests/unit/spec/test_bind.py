"""``--bind``: an address, or the name of an adapter."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from sshvpn.errors import UsageError
from sshvpn.spec import parse_bind, parse_interface


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("192.168.1.5", "192.168.1.5"),
        ("fd00:0::5", "fd00::5"),
        ("[fd00::5]", "fd00::5"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost", "localhost"),
        ("*", "*"),
        ("eth0", "eth0"),
        ("br-lan.7", "br-lan.7"),
    ],
)
def test_a_bind_is_an_address_or_an_adapter(text: str, meaning: str) -> None:
    assert parse_bind(text) == meaning


@pytest.mark.parametrize(
    "text", ["", "-x", "1.2.3.256", "fd00::g", "[eth0]", "eth0:1", "a" * 16, "a/b", "a b", "é", "."]
)
def test_what_can_be_neither_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_bind(text)


@given(st.text(max_size=20))
def test_any_text_is_a_harmless_name_or_a_usage_error(text: str) -> None:
    for parse in (parse_bind, parse_interface):
        try:
            found = parse(text)
        except UsageError:
            continue
        assert found
        assert found[0] not in "-."
        assert found.isprintable()
        assert " " not in found

"""Netlink messages as bytes: whatever comes, it is read to its end and no further."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sshvpn.plan.netlink import HEADER, attributes, messages

ATTRIBUTE = b"\x08\0\x03\0abcd"


def message(kind: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


@given(st.lists(st.tuples(st.integers(1, 0xFFFF), st.binary(max_size=40))))
def test_messages_are_read_one_after_the_other(those: list[tuple[int, bytes]]) -> None:
    assert list(messages(b"".join(message(*one) for one in those))) == those


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_to_its_end(data: bytes) -> None:
    found = list(messages(data))
    assert (not data) == (not found)
    for at in range(20):
        attributes(data, at)


def test_attributes_end_where_one_of_them_would_not() -> None:
    assert attributes(ATTRIBUTE, 0) == {3: b"abcd"}
    assert attributes(bytes(4) + ATTRIBUTE + b"\x09\0\x04\0abcd", 4) == {3: b"abcd"}
    assert attributes(b"\x02\0\x03\0", 0) == {}
    assert attributes(b"\x08\0\x03\x80abcd", 0) == {3: b"abcd"}

"""What is no message of the kernel's concerns everybody; a radio's own scan concerns nobody.

Which of its real messages concern whom is in tests/contract/test_concern.py.
"""

from __future__ import annotations

import gc
import logging
import struct

import pytest
from hypothesis import given, strategies as st

from sshvpn.plan.netlink import HEADER
from sshvpn.system.network.concern import concerns_firewall, concerns_routing

LABEL = "3e8_0123456789"
LINK, ADDRESS, ROUTE, RULE, NETCONF = 16, 20, 24, 32, 80
TABLE = 10 << 8
IFNAME, WIRELESS = 3, 11
KINDS = st.sampled_from([LINK, ADDRESS, ROUTE, RULE, NETCONF, TABLE, TABLE + 15, 2, 3])


def message(kind: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(*attributes: bytes) -> bytes:
    return message(LINK, struct.pack("=BxHiII", 0, 1, 5, 1, 0) + b"".join(attributes))


def name_of(index: int) -> str | None:
    return f"sshvpn{index % 300}" if index % 2 else None


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "pyroute2")  # it tells of what it cannot read


@given(st.binary(max_size=200))
def test_whatever_comes_concerns_somebody_or_nobody(data: bytes) -> None:
    concerns_routing(data, 3, name_of)
    concerns_routing(data, None, name_of)
    concerns_firewall(data, LABEL)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=80)), max_size=4), st.integers(0, 20))
def test_messages_that_are_cut_or_full_of_anything_end_in_an_answer(
    those: list[tuple[int, bytes]], cut: int
) -> None:
    data = b"".join(message(*one) for one in those)
    data = data[: len(data) - cut]
    concerns_routing(data, 3, name_of)
    concerns_firewall(data, LABEL)


@given(st.binary(min_size=1, max_size=15))
def test_what_cannot_be_read_concerns_everybody(data: bytes) -> None:
    assert concerns_routing(data, 3, lambda _: "sshvpn7")
    assert concerns_routing(link(attribute(IFNAME, b"sshvpn7\0")) + data, 3, lambda _: "sshvpn7")
    assert concerns_firewall(data, LABEL)


@pytest.mark.parametrize("name", ["wlan0", "straße", b"\xff"])
def test_a_link_of_any_name_concerns_who_follows(name: str | bytes) -> None:
    told = link(attribute(IFNAME, (name.encode() if isinstance(name, str) else name) + b"\0"))
    assert concerns_routing(told, 3, name_of)
    assert concerns_routing(told, None, name_of)


def test_a_scan_of_a_radio_concerns_nobody() -> None:
    told = link(attribute(IFNAME, b"wlan0\0"), attribute(WIRELESS, bytes(8)))
    assert not concerns_routing(told, 3, name_of)
    assert not concerns_routing(told, None, name_of)


def test_a_forward_hears_of_tunnels_too() -> None:
    told = link(attribute(IFNAME, b"sshvpn7\0"))
    assert not concerns_routing(told, 3, name_of)
    assert concerns_routing(told, None, name_of)


OIF = attribute(4, struct.pack("=I", 7))
GATEWAY, PRIORITY = attribute(5, bytes([10, 0, 0, 1])), attribute(6, struct.pack("=I", 50))
FOUR = attribute(1, bytes([10, 0, 0, 2]))
"""RTA_DST, IFA_ADDRESS, FRA_DST."""
TOLD = {
    "a link of another's": link(attribute(IFNAME, b"sshvpn7\0"), attribute(99, bytes(8))),
    "a link of ours": link(attribute(IFNAME, b"sshvpn3\0")),
    "an address": message(ADDRESS, struct.pack("=BBBBi", 2, 24, 0, 0, 7) + FOUR),
    "a route": message(
        ROUTE, bytes([2, 24, 0, 0, 254, 83, 0, 1]) + bytes(4) + FOUR + OIF + GATEWAY
    ),
    "a rule": message(RULE, bytes([2, 24]) + bytes(10) + FOUR + PRIORITY),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_was_read_is_not_left_to_the_garbage_collector(what: str) -> None:
    told = TOLD[what]
    concerns_routing(told, 3, name_of)
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            concerns_routing(told, 3, name_of)
        assert gc.collect() == 0
    finally:
        gc.enable()

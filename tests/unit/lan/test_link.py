"""What is said on one adapter, and how often, whatever the neighbours send."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

import pytest
from zeroconf import DNSAddress, DNSOutgoing

from sshvpn.lan import link as module
from sshvpn.lan.link import Link
from sshvpn.presence import Adapter

NAME = "gpu.local."
ADDRESS = "192.168.77.1"


class FakeMulticast:
    """Notes what is sent, and hands on what a test says that a neighbour sent."""

    made: list[FakeMulticast]

    def __init__(self, _: Adapter, take: Callable[[bytes, tuple[str, int]], None]) -> None:
        self.take = take
        self.sent: list[bytes] = []
        FakeMulticast.made = [self]

    async def open(self) -> None:
        """Begin."""

    def send(self, packet: bytes, _: tuple[str, int] | None = None) -> None:
        self.sent.append(packet)

    def close(self) -> None:
        """End."""


def goodbye() -> bytes:
    out = DNSOutgoing(0x8400)
    packed = ipaddress.ip_address(ADDRESS).packed
    out.add_answer_at_time(DNSAddress(NAME, 1, 0x8001, 0, packed), 0)
    (packet,) = out.packets()
    return packet


def test_goodbyes_said_for_us_are_answered_and_not_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "Multicast", FakeMulticast)
    monkeypatch.setattr(module, "_PROBE_EVERY_S", 0.001)
    monkeypatch.setattr(module, "_GOODBYE_EVERY_S", 0.001)

    async def story() -> None:
        adapter = Adapter("lan0", 3, (f"{ADDRESS}/24",))
        link = Link(adapter, {NAME: (ADDRESS,)}, frozenset({ADDRESS}), lambda: None)
        await asyncio.wait_for(link.is_claimed.wait(), 5)
        (multicast,) = FakeMulticast.made
        await asyncio.sleep(0.01)
        before = len(multicast.sent)
        for _ in range(100):
            multicast.take(goodbye(), ("192.168.77.9", 5353))
        await asyncio.sleep(0.05)
        assert len(multicast.sent) == before + 1, "it is said again at once"
        for _ in range(100):
            multicast.take(goodbye(), ("192.168.77.9", 5353))
        assert len(multicast.sent) == before + 1
        await asyncio.sleep(0.15)
        assert len(multicast.sent) == before + 2, "and again in a moment"
        multicast.take(goodbye(), ("192.168.77.9", 5353))
        await link.close()
        after = len(multicast.sent)
        await asyncio.sleep(0.15)
        assert len(multicast.sent) == after, "nothing after our own"

    asyncio.run(story())

"""Asking a tunnel whether packets cross it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from sshvpn.boundary import Prober, TunnelConnection
from sshvpn.plan.request import TunnelAddresses
from sshvpn.pulse import DOUBTED_FOR_S, KEEPALIVE_S
from sshvpn.tunnel.life import TunnelLife

ADDRESSES = TunnelAddresses("100.64.0.1/30", "100.64.0.2/30")


class Silence:
    """A prober that nobody answers, and a connection of which nothing is heard."""

    async def round_trip_s(self, _address: str, _source: str, timeout_s: float) -> float | None:
        await asyncio.sleep(timeout_s)
        return None

    def life(self) -> int:
        return 0


def test_what_came_before_a_doubt_is_no_answer_to_it() -> None:
    received = [1000]

    async def main() -> Any:
        silence = Silence()
        life = TunnelLife(cast("Prober", silence), lambda: received[0])
        watching = asyncio.create_task(life.watch(ADDRESSES, cast("TunnelConnection", silence)))
        await asyncio.sleep(0)  # it has begun, and waits
        received[0] += 1000  # the last that came, and then the way has changed
        life.doubt()
        return await asyncio.wait_for(watching, DOUBTED_FOR_S + KEEPALIVE_S)

    error = asyncio.run(main())
    assert error.code == "no_answer", error.code

"""Asks a tunnel whether packets cross it: once before it is up, and while it is quiet."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from sshvpn import pulse
from sshvpn.boundary import Prober, TunnelConnection
from sshvpn.errors import NoAnswerError, SshvpnError
from sshvpn.plan.request import TunnelAddresses

FIRST_PROBE_S = 0.2
"""How long the first probe waits for an answer; each waits longer than the one before."""
LONGEST_PROBE_S = 2.0
LEAST_PROBE_S = 0.5
"""How long is waited for an answer at least, also where it should have come long ago."""
PROVEN_WITHIN_S = 8.0


class TunnelLife:
    """The life of one tunnel. ``received`` returns the bytes that came out of its device.

    ``rtt_s`` is the last round trip, in seconds.
    """

    def __init__(self, prober: Prober, received: Callable[[], int]) -> None:
        self._prober = prober
        self._received = received
        self.rtt_s: float | None = None
        self._doubted = asyncio.Event()

    async def prove(self, addresses: TunnelAddresses) -> None:
        """Return when a packet has crossed and come back. Raises NoAnswerError."""
        deadline = time.monotonic() + PROVEN_WITHIN_S
        wait = FIRST_PROBE_S
        while (started := time.monotonic()) < deadline:
            if await self._probe(addresses, wait):
                return
            # Where nothing can come the answer is at once, and would be so again.
            await asyncio.sleep(max(0.0, started + wait - time.monotonic()))
            wait = min(wait * 2, LONGEST_PROBE_S)
        raise NoAnswerError(
            f"the tunnel stands, but nothing comes back from {_host(addresses.remote4)}",
            "see whether the server's firewall drops what comes out of the tunnel",
        )

    def doubt(self) -> None:
        """Let :meth:`watch` ask at once: something has happened that may have ended it."""
        self._doubted.set()

    async def watch(
        self,
        addresses: TunnelAddresses,
        connection: TunnelConnection,
        keepalive_s: float = pulse.KEEPALIVE_S,
    ) -> SshvpnError:
        """Return an error when nothing comes through any more."""
        self._doubted.clear()
        seen = pulse.begin(time.monotonic(), self._received(), connection.life())
        while True:
            wait_s = pulse.next_look_s(seen, time.monotonic(), keepalive_s)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._doubted.wait(), wait_s)
            # First what has come meanwhile: all of us may have stood still (a machine that slept),
            # and what came before a doubt is no answer to it.
            now = time.monotonic()
            seen = self._look(seen, now, connection, keepalive_s, answered=False)
            if self._doubted.is_set():
                self._doubted.clear()
                seen = pulse.doubt(seen, now)
            answered = False
            if pulse.wants_probe(seen, now, keepalive_s):
                left_s = pulse.dies_at(seen, keepalive_s) - now
                answered = await self._probe(addresses, min(max(left_s, LEAST_PROBE_S), 1.0))
            now = time.monotonic()
            seen = self._look(seen, now, connection, keepalive_s, answered=answered)
            if pulse.is_dead(seen, now, keepalive_s):
                return NoAnswerError(
                    "nothing comes through the tunnel any more", "a new connection is made"
                )

    def _look(
        self,
        seen: pulse.Pulse,
        now: float,
        connection: TunnelConnection,
        keepalive_s: float,
        *,
        answered: bool,
    ) -> pulse.Pulse:
        received, life = self._received(), connection.life()
        return pulse.look(seen, now, received, life, answered=answered, keepalive_s=keepalive_s)

    async def _probe(self, addresses: TunnelAddresses, timeout_s: float) -> bool:
        remote, source = _host(addresses.remote4), _host(addresses.local4)
        rtt_s = await self._prober.round_trip_s(remote, source, timeout_s)
        if rtt_s is not None:
            self.rtt_s = rtt_s
        return rtt_s is not None


def _host(cidr: str) -> str:
    return cidr.partition("/")[0]

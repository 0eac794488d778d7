"""Asks a tunnel whether packets cross it: once before it is up, and while it is quiet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from sshvpn import pulse
from sshvpn.boundary import Prober, TunnelConnection
from sshvpn.errors import NoAnswerError, SshvpnError
from sshvpn.plan.request import TunnelAddresses
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.tunnel")

FIRST_PROBE_S = 0.2
"""How long the first probe waits for an answer; each waits longer than the one before, and who has
waited for PROBE_S in vain waits until a tunnel must be proven."""
PROBE_S = 1.0
"""How long a later one waits, where a decision is not due sooner, and the way is not a long one."""
LONGEST_PROBE_S = 2.0
PROVEN_WITHIN_S = 8.0
MEASURE_EVERY_S = 60.0
"""How old the round trip that is told gets at most, while traffic says that the tunnel lives."""


class TunnelLife:
    """The life of one tunnel. ``received`` returns the bytes that came out of its device.

    ``rtt_s`` is the last round trip, ``took_s`` how long a connection takes to be made, in seconds;
    None where that is not known.
    """

    def __init__(self, prober: Prober, received: Callable[[], int]) -> None:
        self._prober = prober
        self._received = received
        self.rtt_s: float | None = None
        self.took_s: float | None = None
        self._asked_at = time.monotonic()
        self._doubted = asyncio.Event()

    async def prove(self, addresses: TunnelAddresses) -> None:
        """Return when a packet has crossed and come back. Raises NoAnswerError."""
        deadline = time.monotonic() + PROVEN_WITHIN_S
        wait = FIRST_PROBE_S
        while (started := time.monotonic()) < deadline:
            # Of the later ones each answer is heard, also one behind seconds of a queue.
            patience_s = wait if wait <= PROBE_S else deadline - started
            if await self._probe(addresses, patience_s):
                return
            # Where nothing can come the answer is at once, and would be so again.
            await asyncio.sleep(max(0.0, started + wait - time.monotonic()))
            wait = min(wait * 2, LONGEST_PROBE_S)
        raise NoAnswerError(
            f"the tunnel stands, but nothing comes back from {_host(addresses.remote4)}",
            "see whether the server's firewall drops what comes out of the tunnel",
        )

    def note_made(self, seconds: float) -> None:
        """Remember how long it took to make a connection: of the quickest.

        Others may have waited for a proxy that hung.
        """
        self.took_s = min(seconds, self.took_s or seconds)

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
        seen = pulse.begin(time.monotonic(), self._received(), connection.counters(), self.took_s)
        while True:
            wait_s = pulse.next_look_s(seen, time.monotonic(), keepalive_s)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(wait_s, self._doubted.wait())
            # First what has come meanwhile: all of us may have stood still (a machine that slept),
            # and what came before a doubt is no answer to it.
            now = time.monotonic()
            seen = self._look(seen, now, connection, keepalive_s, answered=False)
            if self._doubted.is_set():
                self._doubted.clear()
                seen = pulse.doubt(seen, now, keepalive_s)
            if pulse.is_stuck(seen, now, keepalive_s):
                return _silent(seen, now)
            is_old = seen.is_busy and now - self._asked_at >= MEASURE_EVERY_S
            if is_old or pulse.wants_probe(seen, now, keepalive_s):
                wait_s = _probe_s(seen, pulse.dies_at(seen, keepalive_s) - now)
                # One that waits behind what is repeated tells nothing of the way.
                is_measured = not seen.tcp.unanswered_s and seen.doubted_until is None
                answered = await self._probe(
                    addresses, wait_s, is_sparing=True, is_measured=is_measured
                )
                now = time.monotonic()
                seen = self._look(seen, now, connection, keepalive_s, answered=answered)
                if pulse.is_stuck(seen, now, keepalive_s):
                    return _silent(seen, now)
            if pulse.is_dead(seen, now, keepalive_s):
                return _silent(seen, now)

    def _look(
        self,
        seen: pulse.Pulse,
        now: float,
        connection: TunnelConnection,
        keepalive_s: float,
        *,
        answered: bool,
    ) -> pulse.Pulse:
        return pulse.look(
            seen,
            now,
            self._received(),
            connection.counters(),
            answered=answered,
            rtt_s=self.rtt_s,
            keepalive_s=keepalive_s,
        )

    async def _probe(
        self,
        addresses: TunnelAddresses,
        timeout_s: float,
        *,
        is_sparing: bool = False,
        is_measured: bool = True,
    ) -> bool:
        self._asked_at = time.monotonic()
        remote, source = _host(addresses.remote4), _host(addresses.local4)
        rtt_s = await self._prober.round_trip_s(remote, source, timeout_s, is_sparing=is_sparing)
        if rtt_s is not None and is_measured:
            self.rtt_s = rtt_s
        return rtt_s is not None


def _probe_s(seen: pulse.Pulse, left_s: float) -> float:
    """Return how long an answer is waited for: no longer than until something is decided."""
    wait_s = pulse.answered_within_s(seen)
    if not seen.tcp.repeats_in_s:
        wait_s = max(wait_s, min(left_s, PROBE_S))
    return min(wait_s, LONGEST_PROBE_S)


def _silent(seen: pulse.Pulse, now: float) -> SshvpnError:
    """Return why a new connection is made; the log has what was seen."""
    doubted = "" if seen.doubted_until is None else ", doubted"
    log.info(
        "no packet for %.1f s, nothing acknowledged for %.1f s, repeated in %.1f s%s",
        now - seen.heard_at, seen.tcp.unanswered_s, seen.tcp.repeats_in_s, doubted,
    )  # fmt: skip
    return NoAnswerError("nothing comes through the tunnel any more", "a new connection is made")


def _host(cidr: str) -> str:
    return cidr.partition("/")[0]

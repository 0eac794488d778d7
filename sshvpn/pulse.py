"""Whether packets still cross a tunnel: what is looked at, and what it means; pure.

A probe is sent while nothing comes out of the tunnel. One without an answer proves nothing on
a slow, full link, where it waits behind other packets: there the server goes on acknowledging
what ssh sends (RFC 9293, 3.4), and that counts as life, too, for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PROBE_EVERY_S = 3.0
PROBE_TIMEOUT_S = 3.0
DEAD_AFTER_S = 9.0
"""As long as ssh itself waits for an answer to its keepalives."""
DEAD_FOR_SURE_S = 120.0
"""Nothing has come out for so long, whatever is acknowledged: ssh lives, its tunnel does not."""
ONLY_KEEPALIVES = 4096
"""Bytes that ssh's keepalives, our heartbeats and our probes may have acknowledged meanwhile."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What was seen last: when something came out, and when ssh was last heard at length.

    Times are seconds on one clock. ``received`` are the device's bytes, ``life`` is
    TunnelConnection.life().
    """

    heard_at: float
    lived_at: float
    received: int
    life: int


def begin(now: float, received: int, life: int) -> Pulse:
    """Return the pulse of a tunnel through which a packet has just come."""
    return Pulse(now, now, received, life)


def look(pulse: Pulse, now: float, received: int, life: int, *, answered: bool) -> Pulse:
    """Return what ``pulse`` becomes; ``answered``: a probe has come back."""
    if answered or received > pulse.received:
        return Pulse(now, now, received, life)
    if life - pulse.life > ONLY_KEEPALIVES:
        return replace(pulse, lived_at=now, life=life)
    return pulse


def is_dead(pulse: Pulse, now: float) -> bool:
    """Whether it is time to make a new connection."""
    return now - pulse.lived_at >= DEAD_AFTER_S or now - pulse.heard_at >= DEAD_FOR_SURE_S

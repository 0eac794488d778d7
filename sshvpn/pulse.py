"""Whether packets still cross a tunnel: what is looked at, and what it means; pure.

A probe is sent while nothing comes out of the tunnel, and at once where it is doubted. One
without an answer proves nothing on a slow, full link, where it waits behind other packets:
there the server goes on acknowledging what ssh sends (RFC 9293, 3.4), and that counts as life,
too, for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LOOK_EVERY_S = 0.5
"""How often is looked while something comes out: as exactly is known when it stopped."""
KEEPALIVE_S = 3.0
"""After so much silence a probe is sent, unless the profile says otherwise."""
DEAD_AFTER_KEEPALIVES = 3
"""As many as ssh itself waits for (ServerAliveCountMax 2, and the one that was not answered)."""
DOUBTED_FOR_S = 2.0
"""How long a tunnel that is doubted has to show life."""
DEAD_FOR_SURE_S = 120.0
"""Nothing has come out for so long, whatever is acknowledged: ssh lives, its tunnel does not."""
ONLY_KEEPALIVES = 4096
"""Bytes that ssh's keepalives, our heartbeats and our probes may have acknowledged meanwhile."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What was seen last: when something came out, and when ssh was last heard at length.

    Times are seconds on one clock. ``received`` are the device's bytes, ``life`` is
    TunnelConnection.life(). ``looked_at`` is the last look, ``is_busy`` whether something came
    out before it by itself.
    """

    heard_at: float
    lived_at: float
    received: int
    life: int
    doubted_at: float | None = None
    looked_at: float = 0.0
    is_busy: bool = False


def begin(now: float, received: int, life: int) -> Pulse:
    """Return the pulse of a tunnel through which a packet has just come."""
    return Pulse(now, now, received, life, looked_at=now)


def next_look_s(pulse: Pulse, now: float, keepalive_s: float = KEEPALIVE_S) -> float:
    """Return in how many seconds is to be looked again.

    Where nothing comes out by itself nothing can be decided before the next probe: who is not
    woken costs nothing.
    """
    if pulse.is_busy:
        return LOOK_EVERY_S
    return max(LOOK_EVERY_S, pulse.heard_at + keepalive_s - now)


def look(
    pulse: Pulse,
    now: float,
    received: int,
    life: int,
    *,
    answered: bool,
    keepalive_s: float = KEEPALIVE_S,
) -> Pulse:
    """Return what ``pulse`` becomes; ``answered``: a probe has come back."""
    if answered:
        return Pulse(now, now, received, life, looked_at=now, is_busy=pulse.is_busy)
    # What came while nobody looked may have come, and stopped, at the beginning of that; but for
    # a while that was longer than meant: then this machine itself has stood still.
    is_meant = now - pulse.looked_at <= keepalive_s + LOOK_EVERY_S
    seen_at = min(now, pulse.looked_at + LOOK_EVERY_S) if is_meant else now
    if received > pulse.received:
        return Pulse(seen_at, seen_at, received, life, looked_at=now, is_busy=True)
    if life - pulse.life > ONLY_KEEPALIVES:
        return replace(
            pulse, lived_at=seen_at, life=life, doubted_at=None, looked_at=now, is_busy=True
        )
    return replace(pulse, looked_at=now, is_busy=False)


def doubt(pulse: Pulse, now: float) -> Pulse:
    """Return ``pulse`` after something happened that may have ended the connection."""
    return replace(pulse, doubted_at=pulse.doubted_at or now)


def wants_probe(pulse: Pulse, now: float, keepalive_s: float = KEEPALIVE_S) -> bool:
    """Whether it has been silent for so long that it is to be asked, or is doubted."""
    return pulse.doubted_at is not None or now - pulse.heard_at >= keepalive_s


def dies_at(pulse: Pulse, keepalive_s: float = KEEPALIVE_S) -> float:
    """Return when it is to be taken for dead, should nothing show life before."""
    # Life that is seen may be as old as the look before.
    silent = pulse.lived_at + DEAD_AFTER_KEEPALIVES * keepalive_s - LOOK_EVERY_S
    sure = pulse.heard_at + max(DEAD_FOR_SURE_S, DEAD_AFTER_KEEPALIVES * keepalive_s + 1)
    doubted = silent if pulse.doubted_at is None else pulse.doubted_at + DOUBTED_FOR_S
    return min(silent, sure, doubted)


def is_dead(pulse: Pulse, now: float, keepalive_s: float = KEEPALIVE_S) -> bool:
    """Whether it is time to make a new connection."""
    return now >= dies_at(pulse, keepalive_s)

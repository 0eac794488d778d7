"""Whether packets still cross a tunnel: what is looked at, and what it means; pure.

A probe is sent while nothing comes out of the tunnel, and at once where it is doubted. One
without an answer proves nothing on a slow, full link, where it waits behind other packets:
there the server goes on acknowledging what ssh sends (RFC 9293, 3.4), and that counts as life,
too, for a while.

TCP waits twice as long before each repeat (RFC 6298, 5.5): after an outage of four seconds its
next one may be three more away, after one of a minute a minute. So a connection whose next repeat
is further away than a new connection takes is not waited for. After a doubt (this machine slept,
the network is another one) only a packet counts: the server's end may have to repeat itself, too,
and waits as long, whatever it acknowledges.
"""

from __future__ import annotations

from dataclasses import replace

from sshvpn.frozen import dataclass
from sshvpn.model import TcpCounters

LOOK_EVERY_S = 0.5
"""How often is looked while something comes out: as exactly is known when it stopped."""
KEEPALIVE_S = 3.0
"""After so much silence a probe is sent, unless the profile says otherwise."""
DEAD_AFTER_KEEPALIVES = 3
"""As many as ssh itself waits for (ServerAliveCountMax 2, and the one that was not answered)."""
ANSWERED_WITHIN_S = 0.5
ANSWERED_WITHIN_RTTS = 4
"""How long a tunnel that is doubted has to answer: so many seconds, or so many round trips,
whatever is longer."""
RECONNECTED_WITHIN_S = 1.5
RECONNECTED_WITHIN_RTTS = 8
"""How long a new connection takes: TCP, the key exchange, the login, both ends. So many round
trips at the least, and where it was never seen so many seconds."""
RECONNECT_WAIT_S = 0.5
"""How long is waited before one is begun, at most."""
SHORT_CUT_S = 2.95
"""No connection is given up for a cut that is shorter, unless it is known to be over, and TCP would
repeat itself later than is promised."""
BACK_WITHIN_S = 1.9
"""What is promised is two seconds."""
DEAD_FOR_SURE_S = 120.0
"""Nothing has come out for so long, whatever is acknowledged: ssh lives, its tunnel does not."""
ONLY_KEEPALIVES = 4096
"""Bytes that ssh's keepalives, our heartbeats and our probes may have acknowledged meanwhile."""
NOTHING_TOLD = TcpCounters()
"""Where the kernel shows nothing of the connection."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What was seen last: when something came out, and when ssh was last heard at length.

    Times are seconds on one clock. ``received`` are the device's bytes, ``tcp`` is the connection
    under it, ``lived_bytes`` what that one had received, and had acknowledged, at ``lived_at``.
    ``doubted_until`` is when a doubt ends it. ``looked_at`` is the last look, ``is_busy`` whether
    something came out before it by itself. ``took_s`` is how long this connection took to be made,
    ``rtt_s`` the last round trip through the tunnel; None where nobody knows.
    """

    heard_at: float
    lived_at: float
    received: int
    tcp: TcpCounters
    lived_bytes: int
    doubted_until: float | None = None
    looked_at: float = 0.0
    is_busy: bool = False
    took_s: float | None = None
    rtt_s: float | None = None


def begin(now: float, received: int, tcp: TcpCounters | None, took_s: float | None = None) -> Pulse:
    """Return the pulse of a tunnel through which a packet has just come."""
    tcp = tcp or NOTHING_TOLD
    return Pulse(now, now, received, tcp, _bytes(tcp), looked_at=now, took_s=took_s)


def _alive(
    pulse: Pulse, at: float, now: float, received: int, tcp: TcpCounters, *, is_busy: bool
) -> Pulse:
    return replace(
        pulse,
        heard_at=at,
        lived_at=at,
        received=received,
        tcp=tcp,
        lived_bytes=_bytes(tcp),
        doubted_until=None,
        looked_at=now,
        is_busy=is_busy,
    )


def _bytes(tcp: TcpCounters) -> int:
    return tcp.rx_bytes + tcp.tx_bytes


def next_look_s(pulse: Pulse, now: float, keepalive_s: float = KEEPALIVE_S) -> float:
    """Return in how many seconds is to be looked again.

    Where nothing comes out by itself nothing can be decided before the next probe: who is not
    woken costs nothing.
    """
    if pulse.is_busy or pulse.doubted_until is not None:
        return LOOK_EVERY_S
    return max(LOOK_EVERY_S, pulse.heard_at + keepalive_s - now)


def look(
    pulse: Pulse,
    now: float,
    received: int,
    tcp: TcpCounters | None,
    *,
    answered: bool,
    rtt_s: float | None = None,
    keepalive_s: float = KEEPALIVE_S,
) -> Pulse:
    """Return what ``pulse`` becomes; ``answered``: a probe has come back.

    ``tcp`` is None where nothing is told just now; its ``rtt_s`` may be that of a first hop.
    ``rtt_s`` is the tunnel's own, which is longer on a busy machine, too.
    """
    tcp = tcp or pulse.tcp
    pulse = replace(pulse, rtt_s=rtt_s)
    if answered:
        return _alive(pulse, now, now, received, tcp, is_busy=pulse.is_busy)
    # What came while nobody looked may have come, and stopped, at the beginning of that; but for
    # a while that was longer than meant: then this machine itself has stood still.
    is_meant = now - pulse.looked_at <= keepalive_s + LOOK_EVERY_S
    seen_at = min(now, pulse.looked_at + LOOK_EVERY_S) if is_meant else now
    if received > pulse.received:
        heard_at = max(pulse.heard_at, min(seen_at, now - tcp.silent_s))
        return _alive(pulse, heard_at, now, received, tcp, is_busy=True)
    if _bytes(tcp) - pulse.lived_bytes > ONLY_KEEPALIVES:
        pulse = replace(pulse, lived_at=seen_at, lived_bytes=_bytes(tcp), is_busy=True)
    else:
        pulse = replace(pulse, is_busy=False)
    # What is acknowledged again had been cut, and the other end may still wait for its own repeat.
    is_over = pulse.tcp.unanswered_s > 0 and not tcp.unanswered_s
    pulse = replace(pulse, tcp=tcp, looked_at=now)
    is_doubted = is_over or pulse.doubted_until is not None
    return doubt(pulse, now, keepalive_s) if is_doubted else pulse


def doubt(pulse: Pulse, now: float, keepalive_s: float = KEEPALIVE_S) -> Pulse:
    """Return ``pulse`` after something happened that may have ended the connection.

    The answer to a probe comes behind what TCP repeats first, if that is near, and the silence not
    a long one already. More doubts give no more time.
    """
    repeats_in_s = 0.0 if _is_far(pulse) else pulse.tcp.repeats_in_s
    bearable_s = max(0.0, pulse.heard_at + keepalive_s + LOOK_EVERY_S - now)
    until = now + min(repeats_in_s, bearable_s) + answered_within_s(pulse)
    return replace(pulse, doubted_until=min(until, pulse.doubted_until or until))


def wants_probe(pulse: Pulse, now: float, keepalive_s: float = KEEPALIVE_S) -> bool:
    """Whether it has been silent for so long that it is to be asked, or is doubted."""
    return pulse.doubted_until is not None or now - pulse.heard_at >= keepalive_s


def answered_within_s(pulse: Pulse) -> float:
    """Return how long the answer to a probe takes at most, through a tunnel that is well."""
    return max(ANSWERED_WITHIN_S, ANSWERED_WITHIN_RTTS * _longest_rtt_s(pulse))


def _longest_rtt_s(pulse: Pulse) -> float:
    return max(pulse.tcp.rtt_s or 0.0, pulse.rtt_s or 0.0)


def is_stuck(pulse: Pulse, now: float, keepalive_s: float = KEEPALIVE_S) -> bool:
    """Whether a new connection is there before TCP repeats itself: then no probe can help.

    What comes out meanwhile helps neither: the server has repeated itself before us.
    """
    unanswered_s = pulse.tcp.unanswered_s
    is_long = max(now - pulse.heard_at, unanswered_s) >= keepalive_s
    return is_long and unanswered_s >= SHORT_CUT_S and _is_far(pulse)


def _is_far(pulse: Pulse) -> bool:
    """Whether TCP repeats itself later than a new connection would be there."""
    if pulse.took_s is None:
        another_s = max(RECONNECTED_WITHIN_S, RECONNECTED_WITHIN_RTTS * _longest_rtt_s(pulse))
    else:
        # The kernel's own round trip alone: with how busy this machine is it has been made.
        by_path_s = RECONNECTED_WITHIN_RTTS * (pulse.tcp.rtt_s or 0.0)
        another_s = max(RECONNECT_WAIT_S + pulse.took_s, by_path_s)
    if pulse.tcp.unanswered_s < SHORT_CUT_S:
        another_s = max(another_s, BACK_WITHIN_S)
    return pulse.tcp.repeats_in_s > another_s


def dies_at(pulse: Pulse, keepalive_s: float = KEEPALIVE_S) -> float:
    """Return when it is to be taken for dead, should no probe be answered before."""
    # Life that is seen may be as old as the look before.
    ends = [
        pulse.lived_at + DEAD_AFTER_KEEPALIVES * keepalive_s - LOOK_EVERY_S,
        pulse.heard_at + max(DEAD_FOR_SURE_S, DEAD_AFTER_KEEPALIVES * keepalive_s + 1),
    ]
    if pulse.doubted_until is not None:
        ends.append(pulse.doubted_until)
    return min(ends)


def is_dead(pulse: Pulse, now: float, keepalive_s: float = KEEPALIVE_S) -> bool:
    """Whether it is time to make a new connection, a probe having been sent in vain."""
    return now >= dies_at(pulse, keepalive_s)

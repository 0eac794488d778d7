"""The queue in front of ssh, pure: whose packet is next, and how much may be on its way.

The kernel's tun has a ring that drops at its tail and never pushes back into a qdisc, and ssh
takes two megabytes a channel before it makes its writer wait. So the queue has to stand here:
FairQueue is FQ-CoDel (RFC 8290), and Window keeps all buffers behind it nearly empty.

Runs on the server too: Python 3.6, the standard library alone (see sshvpn.stream.program).
"""

from collections import deque
from heapq import heapify, heapreplace
from typing import Deque, Dict, Optional, Tuple

TARGET_S = 0.005
INTERVAL_S = 0.1
QUANTUM = 1 << 14
"""Bytes a flow may send in its turn (RFC 8290, 5.2.1); the packets here are up to 64 KiB."""
MOST_QUEUED = 4 << 20
"""Bytes that stand here at most, with what Python needs around them."""
_AROUND = 256
MOST_FLOWS = 1 << 10
"""Queues, as many as RFC 8290 has: once half of them are in use, new flows share the other half."""
_OWN = _SHARED = MOST_FLOWS // 2


# Whose packets begin with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite; and ESP, with its SPI.
_HAS_PORTS = bytes(protocol in (6, 17, 33, 136, 132, 50) for protocol in range(256))
_Key = Tuple[int, bytes]


def flow_of(data: bytes) -> _Key:
    """Return what the packets of one flow have in common, behind a virtio header of 10 bytes.

    That is protocol, addresses and ports. Where there are none, it is the first two: ICMP has a
    checksum there, and of the fragments of a datagram only one has ports.
    """
    if data[10] >> 4 == 4:  # noqa: PLR2004
        if data[16] & 0x3F or data[17] or not _HAS_PORTS[data[19]]:
            return data[19], data[22:30]
        return data[19], data[22:34]
    if _HAS_PORTS[data[16]]:
        return data[16], data[18:54]
    return data[16], data[18:50]  # of fragments it is 44, their header's own (RFC 8200, 4.5)


class _Flow:
    """One flow: its packets with when they came, and CoDel's state (RFC 8289, 5)."""

    __slots__ = ("count", "deficit", "drop_next", "first_above", "is_dropping", "key", "packets",
                 "size")  # fmt: skip

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.packets: Deque[Tuple[float, bytes]] = deque()
        self.size = 0
        self.deficit = QUANTUM
        self.first_above = 0.0
        self.drop_next = 0.0
        self.count = 0
        self.is_dropping = False


class FairQueue:
    """Packets in the order in which they shall leave; one that waits too long is dropped.

    A flow that sends little goes before those that always have something waiting.
    """

    def __init__(self, most: int = MOST_QUEUED) -> None:
        self._most = most
        self._flows: Dict[_Key, _Flow] = {}
        self._new: Deque[_Flow] = deque()
        self._old: Deque[_Flow] = deque()
        self.size = 0
        self.dropped = 0

    def put(self, data: bytes, now: float) -> None:
        """Queue a packet; where there is no room the longest flow loses its oldest."""
        key = flow_of(data)
        flow = self._flows.get(key)
        if flow is None:
            flow = self._begin(key)
        flow.packets.append((now, data))
        size = len(data) + _AROUND
        flow.size += size
        self.size += size
        if self.size > self._most:
            self._make_room()

    def _begin(self, key: _Key) -> _Flow:
        """Return where packets of a flow without any go: what it shares, as long as that is there.

        So its packets are never in two places, where the later ones could come out first.
        """
        shared = (hash(key) % _SHARED, b"")
        flow = self._flows.get(shared)
        if flow is None:
            if len(self._flows) >= _OWN:
                key = shared
            flow = self._flows[key] = _Flow(key)
            self._new.append(flow)
        return flow

    def _make_room(self) -> None:
        # Of the longest by then, a batch at a time (RFC 8290), until more than this one
        # packet fits: so a flood is not paid for by a look at all flows for each packet.
        longest = [(-flow.size, at, flow) for at, flow in enumerate(self._flows.values())]
        heapify(longest)
        while self.size > self._most - self._most // 16:
            _, at, flow = longest[0]
            for _ in range(min(64, (len(flow.packets) + 1) // 2)):
                self._pop(flow)
                self.dropped += 1
            heapreplace(longest, (-flow.size, at, flow))

    def _pop(self, flow: _Flow) -> Tuple[float, bytes]:
        came, data = flow.packets.popleft()
        size = len(data) + _AROUND
        flow.size -= size
        self.size -= size
        return came, data

    def take(self, now: float) -> Optional[bytes]:
        """Return the next packet, None where there is none."""
        while True:
            turns = self._new or self._old
            if not turns:
                return None
            flow = turns[0]
            if flow.deficit <= 0:
                flow.deficit += QUANTUM
                turns.popleft()
                self._old.append(flow)
                continue
            data = self._dequeue(flow, now)
            if data is None:
                turns.popleft()
                if turns is self._new and self._old:
                    self._old.append(flow)  # or it could be new again and again
                else:
                    del self._flows[flow.key]
                continue
            flow.deficit -= len(data)
            return data

    def _dequeue(self, flow: _Flow, now: float) -> Optional[bytes]:
        if not flow.packets:
            return None
        came, data = self._pop(flow)
        if now - came < TARGET_S or flow.size == 0:
            flow.first_above = 0.0
            flow.is_dropping = False
            return data
        if not flow.first_above:
            flow.first_above = now + INTERVAL_S
            return data
        return self._control(flow, data, now)

    def _control(self, flow: _Flow, data: bytes, now: float) -> Optional[bytes]:
        """Drop as CoDel's control law says, of a flow that has been too slow for a while."""
        if flow.is_dropping:
            while now >= flow.drop_next and flow.packets:
                self.dropped += 1
                flow.count += 1
                flow.drop_next += INTERVAL_S / flow.count**0.5
                _, data = self._pop(flow)
        elif now >= flow.first_above and flow.packets:
            self.dropped += 1
            flow.is_dropping = True
            # A flow that was dropped from lately goes on where it stood.
            flow.count = flow.count - 2 if now - flow.drop_next < 16 * INTERVAL_S else 1
            flow.count = max(flow.count, 1)
            flow.drop_next = now + INTERVAL_S / flow.count**0.5
            _, data = self._pop(flow)
        return data


FIRST_WINDOW = 1 << 19
SMALLEST_WINDOW = 1 << 15
LARGEST_WINDOW = 4 << 20
DRAIN_EVERY_S = 10.0
_SLACK_S = 0.002
_NEARLY = 1.1
_UNUSED = 0.375
"""Of the window: with less free than this, whether half of it would do as well can be tried."""
_PROBE_EVERY_S = 0.02
"""Of who sends little: acknowledgements alone, each with a probe, would be answered as often."""


FIRST_TRIAL_S, LONGEST_TRIAL_S = 4.0, 32.0
_BETWEEN_LOSSES_S = 8.0
PATIENCE = 2.0
_TRIAL_ROUNDS = 4
_FASTER, _AS_FAST = 1.15, 0.87


class Patience:
    """Whether the path is faster when more is on its way than a path without losses holds.

    What TCP has lost holds up all that comes behind it, so an answer that is late may tell of a
    loss and not of a queue, and who then sends less only gets less. It is found by trying: with
    ``factor`` times as much, and from time to time without. A trial that changed nothing is
    made again later and later.
    """

    def __init__(self) -> None:
        self.factor = PATIENCE
        self._is_trying = False
        self._rate = 0.0
        self._count = 0
        self._seconds = 0.0
        self._rounds = 0
        self._since_s = 0.0
        self._pause_s = 0.0

    def note(self, count: int, seconds: float) -> float:
        """Take a round's bytes and time; return by how much to change the window now."""
        self._rounds += 1
        if self._is_trying and self._rounds == 1:  # what was before the change still arrives
            return 1.0
        self._count += max(count, 1)
        self._seconds += max(seconds, 1e-6)
        if self._is_trying:
            return self._judge() if self._rounds > _TRIAL_ROUNDS else 1.0
        if self._rounds % _TRIAL_ROUNDS:
            return 1.0
        # The latest rounds are what a trial is compared with: TCP may have been slow before.
        self._rate = self._count / self._seconds
        self._since_s += self._seconds
        self._count, self._seconds = 0, 0.0
        if self._since_s < self._pause_s or self._rounds < 2 * _TRIAL_ROUNDS:
            return 1.0
        return self._change(is_trying=True)

    def _judge(self) -> float:
        change = self._count / self._seconds / self._rate
        if self.factor == 1 and change > _FASTER:  # so the rate was still growing
            self._pause_s = 0.0
            return self._change(is_trying=False)
        stays = change > (_FASTER if self.factor > 1 else _AS_FAST)
        if (self.factor > 1) == stays:  # there are losses
            self._pause_s = _BETWEEN_LOSSES_S
        else:
            self._pause_s = min(max(2 * self._pause_s, FIRST_TRIAL_S), LONGEST_TRIAL_S)
        if not stays:
            return self._change(is_trying=False)
        self._begin(is_trying=False)
        return 1.0

    def _change(self, *, is_trying: bool) -> float:
        self._begin(is_trying=is_trying)
        before, self.factor = self.factor, 1.0 if self.factor > 1 else PATIENCE
        return self.factor / before

    def _begin(self, *, is_trying: bool) -> None:
        self._is_trying = is_trying
        self._count, self._seconds, self._rounds, self._since_s = 0, 0.0, 0, 0.0


class Window:
    """How many bytes may be between the two pumps: as many as the path holds, and a little.

    A PROBE goes with every eighth of it, and with less after a while; its ANSWER says that what
    was before it has arrived, and how long that took. The shortest time seen is the path's own;
    what comes on top of it is a queue somewhere behind us, which is kept at a few milliseconds
    (as FAST TCP does). Every ten seconds the window is halved for one round trip, to see whether
    the path has changed.
    """

    def __init__(self) -> None:
        self.limit = FIRST_WINDOW
        self.sent = 0
        self.arrived = 0
        self.base_s = 0.0
        self.round_trip_s = 0.0
        self._probes: Deque[Tuple[int, float]] = deque()
        self._probed = 0
        self._probed_at = -_PROBE_EVERY_S
        self._round_end = 0
        self._round_min = 0.0
        self._was_full = False
        self._was_used = False
        self._is_starting = True
        self._full_limit = 0
        self._rounds = 0
        self._drain_at = 0.0
        self._patience = Patience()
        self._is_settling = False
        self._round_begin = (0, 0.0)

    def room(self) -> int:
        """Return how many bytes may be sent now; below 1 for none."""
        room = self.limit - self.sent + self.arrived
        if room <= 0:
            self._was_full = True
        if room <= self.limit * _UNUSED:
            self._was_used = True
        return room

    def note_sent(self, count: int, now: float) -> Optional[int]:
        """Count bytes that were sent; return the token of a probe that is to follow, if any."""
        self.sent += count
        if self.sent - self._probed < self.limit >> 3 and (
            self._probes or now < self._probed_at + _PROBE_EVERY_S
        ):
            return None
        self._probed, self._probed_at = self.sent, now
        self._probes.append((self.sent, now))
        return self.sent

    def note_answer(self, token: int, now: float) -> bool:
        """Take the answer to the oldest probe; False where it is to none."""
        if not self._probes or self._probes[0][0] != token:
            return False
        self.arrived, sent_at = self._probes.popleft()
        took = max(now - sent_at, 1e-6)
        self.round_trip_s = took
        if not self._round_min or took < self._round_min:
            self._round_min = took
        if self.arrived >= self._round_end:
            self._end_round(now)
        return True

    def _end_round(self, now: float) -> None:
        took, self._round_min = self._round_min, 0.0
        (arrived, began), self._round_begin = self._round_begin, (self.arrived, now)
        self._round_end = self.sent
        self._rounds += 1
        if not self.base_s:  # before there is a queue of ours
            self._learn(took, now)
        if self._rounds % 2:  # what arrived was sent before the last change
            return
        was_full, self._was_full = self._was_full, False
        was_used, self._was_used = self._was_used, False
        if self._full_limit:  # with half of it: what it took is the path's own
            self.limit, self._full_limit = self._full_limit, 0
            self._learn(took, now)
        elif took < self.base_s:
            self._learn(took, now)
        elif now >= self._drain_at:
            self._full_limit = self.limit
            self.limit = max(int(self.limit / 2 / self._patience.factor), SMALLEST_WINDOW)
            return
        if not was_used:
            return
        if self._is_settling:  # a queue that was let grow empties, or the other way round
            self._is_settling = False
        elif was_full:
            self._adjust(took)
        if not self._is_starting and began:
            self._try(self._patience.note(self.arrived - arrived, now - began))

    def _try(self, change: float) -> None:
        if change != 1:
            self._resize(change)
            self._is_settling = True

    def _resize(self, factor: float) -> None:
        self.limit = min(max(int(self.limit * factor), SMALLEST_WINDOW), LARGEST_WINDOW)

    def _learn(self, took: float, now: float) -> None:
        self.base_s = took
        self._drain_at = now + DRAIN_EVERY_S

    def _adjust(self, took: float) -> None:
        wanted = (self.base_s * 9 / 8 * self._patience.factor + _SLACK_S) / took
        if wanted < _NEARLY:  # what is wanted is come near to, and perhaps never reached
            self._is_starting = False
        # Half of the way to what would do; but much too much goes at once (Little's law).
        factor = (1 + wanted) / 2 if wanted > 0.5 else max(wanted, 0.25)  # noqa: PLR2004
        self._resize(min(factor, 2.0 if self._is_starting else 1.5))

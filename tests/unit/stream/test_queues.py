"""The queue: who sends little goes first, who waits too long is dropped; no more than fits."""

from __future__ import annotations

import random

import pytest

from sshvpn.stream.queues import (
    DRAIN_EVERY_S,
    FIRST_WINDOW,
    LARGEST_WINDOW,
    MOST_FLOWS,
    SMALLEST_WINDOW,
    FairQueue,
    Window,
    flow_of,
)
from tests.unit.stream.packets import ip4, ip6, tcp, udp, virtio


def bulk(number: int, size: int = 60000, sport: int = 1) -> bytes:
    return virtio() + ip4(6, tcp(number.to_bytes(4, "big") + bytes(size), sport=sport))


def datagram(number: int, data: bytes = b"") -> bytes:
    """Return a packet of flow NUMBER."""
    return virtio() + ip4(17, udp(data, sport=number))


PING = virtio() + ip4(1, b"\x08\0" + bytes(60))


def number_of(data: bytes) -> int:
    return int.from_bytes(data[50:54], "big")


def drain(queue: FairQueue, now: float) -> list[bytes]:
    found = []
    while (data := queue.take(now)) is not None:
        found.append(data)
    return found


def test_a_flow_keeps_its_order() -> None:
    queue = FairQueue()
    for number in range(50):
        queue.put(bulk(number), 0.0)
    assert [number_of(data) for data in drain(queue, 0.0)] == list(range(50))
    assert queue.size == 0


def test_a_ping_goes_before_what_waits() -> None:
    queue = FairQueue()
    for number in range(20):
        queue.put(bulk(number), 0.0)
    queue.take(0.0)
    queue.put(PING, 0.0)
    assert queue.take(0.0) == PING


def test_two_flows_share() -> None:
    queue = FairQueue()
    for number in range(30):
        queue.put(bulk(number, sport=1), 0.0)
    for number in range(300):
        queue.put(bulk(number, 1400, sport=2), 0.0)
    sent = {1: 0, 2: 0}
    while min(sent.values()) < 200_000:
        data = queue.take(0.0)
        assert data is not None
        sent[data[31]] += len(data)
    assert sent[1] == pytest.approx(sent[2], abs=70_000)


def test_what_waits_for_long_is_dropped_until_it_does_not() -> None:
    queue, now = FairQueue(), 0.0
    for number in range(60):
        queue.put(bulk(number), now)
    taken = []
    while (data := queue.take(now)) is not None:
        taken.append(number_of(data))
        now += 0.02
    assert queue.dropped > 3
    assert taken == sorted(taken)


def test_what_leaves_at_once_is_not_dropped() -> None:
    queue = FairQueue()
    for number in range(5000):
        queue.put(bulk(number), number * 0.001)
        queue.put(bulk(number, sport=2), number * 0.001)
        assert len(drain(queue, number * 0.001 + 0.004)) == 2
    assert queue.dropped == 0


def test_memory_is_bounded_and_the_longest_pays() -> None:
    queue = FairQueue(most=1 << 20)
    queue.put(PING, 0.0)
    for number in range(10_000):
        queue.put(bulk(number, 100), 0.0)
        assert queue.size <= 1 << 20
    assert queue.dropped > 0
    assert PING in drain(queue, 0.0)


def test_a_flood_of_flows_is_bounded_too() -> None:
    queue = FairQueue(most=1 << 18)
    for number in range(5000):
        queue.put(datagram(number), 0.0)
        assert queue.size <= 1 << 18
        assert len(queue._flows) <= MOST_FLOWS
    drain(queue, 0.0)
    assert queue._flows == {}


def test_with_more_flows_than_there_may_be_each_still_keeps_its_order() -> None:
    queue, seen = FairQueue(most=1 << 30), dict.fromkeys(range(5000), -1)
    for turn in range(6):
        for number in seen:
            queue.put(datagram(number, bytes([turn])), 0.0)
        for _ in range(3000):  # some end meanwhile, and come back as new ones
            take_in_order(queue, seen)
    while queue.size:
        take_in_order(queue, seen)
    assert set(seen.values()) == {5}


def take_in_order(queue: FairQueue, seen: dict[int, int]) -> None:
    data = queue.take(0.0)
    assert data is not None
    number, turn = int.from_bytes(data[30:32], "big"), data[38]
    assert turn == seen[number] + 1
    seen[number] = turn


def test_a_flood_is_not_paid_for_by_a_look_at_all_flows_a_packet() -> None:
    queue, looks = FairQueue(), 0
    make_room = queue._make_room

    def counted() -> None:
        nonlocal looks
        looks += len(queue._flows)
        make_room()

    queue._make_room = counted  # type: ignore[method-assign]
    for number in range(40_000):
        queue.put(datagram(number), 0.0)
    assert queue.dropped > 20_000
    assert looks < 5 * queue.dropped


def test_where_there_is_no_room_the_longest_loses_its_oldest() -> None:
    queue = FairQueue(most=1 << 20)
    for number in range(200):
        queue.put(datagram(number), 0.0)
    for number in range(2000):
        queue.put(bulk(number, 1400), 0.0)
    left = drain(queue, 0.0)
    assert [data for data in left if data[19] == 17] == [datagram(number) for number in range(200)]
    numbers = [number_of(data) for data in left if data[19] == 6]
    assert numbers == list(range(numbers[0], 2000))
    assert queue.dropped == numbers[0]


def test_a_flow_is_told_by_addresses_and_ports() -> None:
    one, other = (virtio() + ip4(6, tcp(b"", sport=sport)) for sport in (1, 2))
    assert flow_of(one) != flow_of(other)
    assert flow_of(one) == flow_of(virtio() + ip4(6, tcp(b"xyz")))
    assert flow_of(virtio() + ip6(17, udp(b""))) != flow_of(virtio() + ip6(17, udp(b"", sport=9)))
    assert flow_of(virtio() + ip4(6, tcp(b""))) != flow_of(virtio() + ip4(17, tcp(b"")))
    assert flow_of(virtio() + ip4(1, b""))


def test_a_flow_of_fragments_is_told_by_addresses_and_protocol() -> None:
    """Only the first has ports; and what overtakes it is of no use before it has come."""
    one = virtio() + ip4(17, udp(b"x" * 64))
    fragments4 = [
        one[:16] + at.to_bytes(2, "big") + one[18:30] + bytes([at % 251] * 8)
        for at in (0x2000, 0x20B9, 0x2172, 0x22B)
    ]
    fragments6 = [
        virtio() + ip6(44, bytes([17, 0]) + at.to_bytes(2, "big") + b"same" + bytes([at % 251] * 8))
        for at in (1, 1449, 2897, 4344)
    ]
    for fragments in (fragments4, fragments6):
        assert len({flow_of(fragment) for fragment in fragments}) == 1
    assert flow_of(fragments4[0]) != flow_of(virtio() + ip4(17, b"", source=9))
    assert flow_of(fragments6[0]) != flow_of(virtio() + ip6(17, udp(b"")))


@pytest.mark.parametrize("kind", [1, 58], ids=["ICMP", "ICMPv6"])
def test_pings_are_one_flow_whatever_their_checksum_is(kind: int) -> None:
    """Else each would be a new one: before all else, and never dropped for having waited."""
    make = ip4 if kind == 1 else ip6
    pings = [virtio() + make(kind, bytes([8, 0, sum_, sum_, 0, 7, 0, sum_])) for sum_ in range(9)]
    assert len({flow_of(ping) for ping in pings}) == 1
    assert flow_of(pings[0]) != flow_of(virtio() + make(17, udp(b"")))
    queue = FairQueue()
    for sum_ in range(200):
        queue.put(pings[sum_ % 9] + bytes(1400), 0.0)
    queue.put(bulk(1), 0.0)
    assert bulk(1) in [queue.take(0.0) for _ in range(20)]


class Path:
    """A path of RATE bytes a second and BASE_S there and back, with a queue before it.

    Of its packets, 1448 bytes each, LOSS are lost: that costs a round trip each time, and all
    that is behind them waits, as TCP has it. STARTS: it is as fast as that only after a while,
    as TCP is, which begins with ten packets a round trip and doubles them each time (RFC 6928).
    MOST: no more bytes are on their way at once, as the TCP inside has it, whatever the window is.
    """

    def __init__(
        self,
        rate: float,
        base_s: float,
        loss: float = 0.0,
        seed: int = 1,
        *,
        starts: bool = False,
        most: float = float("inf"),
    ) -> None:
        self.rate, self.base_s, self.loss, self.starts = rate, base_s, loss, starts
        self.most = most
        self.random = random.Random(seed)  # noqa: S311 (it shall be repeatable)
        self.last = 0.0
        self.now = 0.0
        self.free_at = 0.0
        self.answers: list[tuple[float, int]] = []
        self.window = Window()

    def run(self, seconds: float, batch: int = 16384) -> int:
        """Send all that may be sent for so long; return the bytes that arrived."""
        end, before = self.now + seconds, self.window.arrived
        while self.now < end:
            while self.window.room() > 0 and self.window.sent - self.window.arrived < self.most:
                token = self.window.note_sent(batch, self.now)
                begin = max(self.free_at, self.now)
                self.free_at = begin + batch / self.rate_at(begin)
                late = max(self.losses() for _ in range(-(-batch // 1448)))
                self.last = max(self.last, self.free_at + self.base_s * (1 + late))
                if token is not None:
                    self.answers.append((self.last, token))
            when, token = self.answers.pop(0)
            self.now = max(self.now, when)
            assert self.window.note_answer(token, self.now)
        return self.window.arrived - before

    def rate_at(self, now: float) -> float:
        """Return how fast TCP is by then."""
        rounds = min(now / self.base_s, 30)
        return min(self.rate, 14480 / self.base_s * 2**rounds) if self.starts else self.rate

    def losses(self) -> int:
        """Return how often one packet is lost before it arrives."""
        count = 0
        while self.random.random() < self.loss:
            count += 1
        return count

    @property
    def queue_s(self) -> float:
        return max(0.0, self.free_at - self.now)


@pytest.mark.parametrize(
    ("rate", "base_s", "most_s"),
    [(50e6 / 8, 0.04, 0.015), (200e6 / 8, 0.04, 0.01), (500e6, 0.0003, 0.004), (1e6, 0.1, 0.05)],
)
def test_the_path_is_full_and_the_queue_is_short(rate: float, base_s: float, most_s: float) -> None:
    path = Path(rate, base_s)
    path.run(3)
    arrived, queues = 0, []
    for _ in range(48):
        arrived += path.run(0.25)
        queues.append(path.queue_s)
    assert arrived >= 0.9 * rate * 12
    queues.sort()
    assert queues[24] <= most_s
    # But while it is tried whether more on its way would make it faster.
    assert queues[43] <= most_s + 1.25 * base_s


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("rate", "base_s", "loss"),
    [(200e6 / 8, 0.04, 0.01), (200e6 / 8, 0.04, 0.001), (50e6 / 8, 0.04, 0.01), (12e6, 0.01, 0.02)],
)
def test_a_path_that_loses_packets_is_full_too(
    rate: float, base_s: float, loss: float, seed: int
) -> None:
    path = Path(rate, base_s, loss, seed)
    path.run(3)
    assert path.run(20) >= 0.7 * rate * 20


def test_a_path_that_loses_packets_is_full_however_slowly_tcp_starts() -> None:
    for seed in range(20):
        path = Path(200e6 / 8, 0.04, 0.01, seed, starts=True)
        path.window.note_sent(100, 0.0)  # a ping, before there is a queue
        path.now = path.base_s
        path.window.note_answer(path.window.sent, path.now)
        path.run(1.5)
        assert path.run(4) >= 0.6 * path.rate * 4, f"with the losses of seed {seed}"


def test_a_path_that_gets_longer_or_slower_is_learnt_again() -> None:
    path = Path(25e6, 0.01)
    path.run(3)
    path.base_s = 0.06
    path.run(3 * DRAIN_EVERY_S)
    assert path.run(5) >= 0.85 * 25e6 * 5
    path.rate = 2e6
    path.run(10)
    assert path.queue_s < 0.05


def test_the_window_has_bounds() -> None:
    assert Window().limit == FIRST_WINDOW
    slow, fast = Path(1e3, 0.5), Path(1e12, 0.2)
    slow.run(2000)
    assert slow.window.limit >= SMALLEST_WINDOW
    seen = set()
    for _ in range(30):
        fast.run(1)
        seen.add(fast.window.limit)
    assert max(seen) == LARGEST_WINDOW


def test_who_sends_little_has_no_smaller_window_for_it() -> None:
    window, now = Window(), 0.0
    for _ in range(100):
        now += 1.0
        assert window.room() > 0
        token = window.note_sent(100, now)
        assert token is not None
        assert window.note_answer(token, now + 0.3)
    assert window.limit >= FIRST_WINDOW // 2


def test_who_sends_little_is_not_probed_with_each_packet() -> None:
    """As acknowledgements are, of which each would be answered."""
    window, probes = Window(), 0
    for number in range(1000):
        token = window.note_sent(66, number / 1000)
        if token is not None:
            probes += 1
            assert window.note_answer(token, number / 1000 + 0.0004)
    assert 40 <= probes <= 51
    assert window.base_s == pytest.approx(0.0004)


@pytest.mark.parametrize("batch", [1500, 6000, 16384])
@pytest.mark.parametrize("rate", [50e6 / 8, 100e6 / 8, 200e6 / 8])
def test_that_a_path_loses_nothing_is_found_in_seconds(rate: float, batch: int) -> None:
    path = Path(rate, 0.04, starts=True)
    path.window.note_sent(100, 0.0)
    path.now = path.base_s
    path.window.note_answer(path.window.sent, path.now)
    path.run(3.5, batch)
    queues = []
    for _ in range(8):
        assert path.run(0.25, batch) >= 0.8 * rate * 0.25
        queues.append(path.queue_s)
    assert sorted(queues)[4] <= 0.015


@pytest.mark.parametrize("most", [1.9, 2.1, 2.3, 3.0])
def test_a_queue_that_the_tcp_inside_keeps_is_found_too(most: float) -> None:
    """Which need not fill the window: what BBR has on its way is twice what the path holds."""
    rate = 50e6 / 8
    path = Path(rate, 0.04, starts=True)
    path.window.note_sent(100, 0.0)
    path.now = path.base_s
    path.window.note_answer(path.window.sent, path.now)
    path.run(1)
    path.most = most * rate * path.base_s
    path.run(2.5)
    queues = []
    for _ in range(20):
        path.run(0.25)
        queues.append(path.queue_s)
    assert sorted(queues)[10] <= 0.015


def test_an_answer_to_nothing_is_none() -> None:
    window = Window()
    assert not window.note_answer(5, 0.0)
    window.note_sent(100, 0.0)
    assert not window.note_answer(99, 0.0)

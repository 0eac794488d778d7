"""When a tunnel is taken for dead: silence, and what does not count as silence."""

from __future__ import annotations

from dataclasses import replace

from sshvpn import pulse
from sshvpn.model import TcpCounters

AT_FIRST = TcpCounters(4000, 1000, rtt_s=0.001)
START = pulse.begin(100.0, 1000, AT_FIRST)


def heard(count: int) -> TcpCounters:
    """Return a connection of which COUNT bytes more were heard than at the start."""
    return replace(AT_FIRST, tx_bytes=1000 + count)


def cut(for_s: float, base_s: float = 0.2, rtt_s: float = 0.001) -> TcpCounters:
    """Return a connection that nobody has acknowledged FOR_S, as TCP repeats itself (RFC 6298)."""
    due, wait = base_s, base_s
    while due <= for_s:
        wait *= 2
        due += wait
    seen = TcpCounters(4000, 1000, rtt_s=rtt_s)
    if due == base_s:
        return seen
    return replace(seen, repeats_in_s=due - for_s, unanswered_s=for_s)


def test_silence_is_death_after_the_time_ssh_itself_waits_less_that_of_a_look() -> None:
    seen = pulse.look(START, 108.4, 1000, AT_FIRST, answered=False)
    assert not pulse.is_dead(seen, 108.4)
    assert pulse.is_dead(seen, 108.5)


def test_death_is_noticed_within_ten_seconds_of_the_last_packet() -> None:
    assert pulse.dies_at(START) + pulse.LOOK_EVERY_S < START.heard_at + 10


def test_who_wants_it_slower_gets_it_slower() -> None:
    assert not pulse.wants_probe(START, 129.9, keepalive_s=30)
    assert pulse.wants_probe(START, 130.0, keepalive_s=30)
    assert not pulse.is_dead(START, 189.4, keepalive_s=30)
    assert pulse.is_dead(START, 189.5, keepalive_s=30)
    assert pulse.dies_at(START, keepalive_s=600) == START.lived_at + 1799.5


def test_a_tunnel_that_is_doubted_is_asked_at_once_and_has_half_a_second() -> None:
    doubted = pulse.doubt(START, 101.0)
    assert pulse.wants_probe(doubted, 101.0)
    assert pulse.doubt(doubted, 102.0) == doubted, "more doubts give no more time"
    assert pulse.next_look_s(doubted, 101.0) == pulse.LOOK_EVERY_S, "not when it is due anyway"
    assert not pulse.is_dead(doubted, 101.4)
    assert pulse.is_dead(doubted, 101.5)
    for alive in (
        pulse.look(doubted, 103.0, 1001, AT_FIRST, answered=False),
        pulse.look(doubted, 103.0, 1000, AT_FIRST, answered=True),
    ):
        assert not pulse.is_dead(alive, 104.0), "life ends the doubt"


def test_what_is_acknowledged_is_no_answer_to_a_doubt() -> None:
    """Ours may get through again while the server waits a minute before it repeats itself."""
    doubted = pulse.doubt(START, 101.0)
    assert pulse.is_dead(pulse.look(doubted, 101.5, 1000, heard(500_000), answered=False), 101.5)


def test_a_doubt_waits_for_a_repeat_that_is_near_and_for_no_other() -> None:
    """A link that was away for 2 s: TCP's own repeat comes as soon as a new connection would."""
    back = pulse.doubt(pulse.look(START, 102.0, 1000, cut(2.0), answered=False), 102.0)
    assert not pulse.is_stuck(back, 102.0)
    assert not pulse.is_dead(back, 103.4)
    near = pulse.look(START, 102.0, 1000, cut(2.0, 0.25), answered=False)
    assert 1.7 < near.tcp.repeats_in_s < 1.8
    assert not pulse.is_dead(pulse.doubt(near, 102.0), 103.9), "it is in time, and costs nothing"
    for at in (2.5, 3.1):
        seen = pulse.look(back, 100 + at, 1000, cut(at), answered=False)
        assert seen.doubted_until is not None
        assert seen.doubted_until <= 104.1, "what is repeated ever later gives no more time"
    assert not pulse.is_dead(back, 103.4)
    seen = pulse.look(back, 103.1, 1000, replace(cut(2.0), repeats_in_s=0.0), answered=False)
    assert pulse.is_dead(seen, 103.6), "it was repeated, and still nothing comes"
    slow = pulse.doubt(pulse.look(START, 102.0, 1000, cut(2.0, 0.28), answered=False), 102.0)
    assert not pulse.is_stuck(slow, 102.0), "it may be through already: it is asked first"
    assert pulse.is_dead(slow, 102.5)
    late = pulse.doubt(pulse.look(START, 103.1, 1000, cut(3.1), answered=False), 103.1)
    assert pulse.is_stuck(late, 103.1)


def test_a_long_way_has_four_round_trips_to_answer() -> None:
    far = pulse.doubt(pulse.begin(100.0, 1000, replace(AT_FIRST, rtt_s=0.6)), 101.0)
    assert not pulse.is_dead(far, 103.3)
    assert pulse.is_dead(far, 103.4)


def test_a_packet_that_comes_out_is_life() -> None:
    seen = pulse.look(START, 108.0, 1001, AT_FIRST, answered=False)
    assert not pulse.is_dead(seen, 116.4)
    assert pulse.is_dead(seen, 117.3)


def test_an_answered_probe_is_life() -> None:
    seen = pulse.look(START, 108.0, 1000, AT_FIRST, answered=True)
    assert not pulse.is_dead(seen, 116.4)


def test_a_slow_full_link_is_not_taken_for_dead() -> None:
    """The upload goes on being acknowledged, while every probe waits behind it."""
    seen, life = START, 0
    for second in range(3, 63, 3):
        life += 3 * 125_000
        full = replace(heard(life), silent_s=second, repeats_in_s=0.3)
        seen = pulse.look(seen, 100.0 + second, 1000, full, answered=False)
        assert not pulse.is_stuck(seen, 100.0 + second)
        assert not pulse.is_dead(seen, 100.0 + second)


def test_keepalives_of_ssh_are_no_life_of_its_tunnel() -> None:
    """OpenSSH's tun channel can die while ssh goes on (facts of packets of 20 bytes)."""
    seen, life, second = START, 0, 0
    while not pulse.is_dead(seen, 100.0 + second):
        second += 3
        life += 200
        seen = pulse.look(seen, 100.0 + second, 1000, heard(life), answered=False)
    assert second == 9


def test_what_is_sent_into_a_dead_channel_keeps_it_alive_for_two_minutes_at_most() -> None:
    seen, life, second = START, 0, 0
    while not pulse.is_dead(seen, 100.0 + second):
        second += 3
        life += 1_000_000
        seen = pulse.look(seen, 100.0 + second, 1000, heard(life), answered=False)
    assert second == 120


def test_who_is_quiet_is_looked_at_when_it_is_asked_and_not_before() -> None:
    assert pulse.next_look_s(START, 100.0) == pulse.KEEPALIVE_S
    asked = pulse.look(START, 103.0, 1100, AT_FIRST, answered=True)
    assert pulse.next_look_s(asked, 103.5) == pulse.KEEPALIVE_S - 0.5
    busy = pulse.look(asked, 106.0, 2000, AT_FIRST, answered=False)
    assert pulse.next_look_s(busy, 106.0) == pulse.LOOK_EVERY_S
    quiet = pulse.look(busy, 106.5, 2000, AT_FIRST, answered=False)
    assert pulse.wants_probe(quiet, 106.5), "nobody knows how long it has been quiet"


def test_what_came_while_nobody_looked_may_have_stopped_at_once() -> None:
    """Seen at the end of a long wait, it is dated to its beginning: ten seconds stay ten."""
    seen = pulse.look(START, 103.0, 1100, AT_FIRST, answered=True)
    # One packet at 103.1, and the link is cut; the next look is at 106.0.
    seen = pulse.look(seen, 106.0, 1200, AT_FIRST, answered=False)
    now = 106.0
    while not pulse.is_dead(seen, now):
        now += pulse.next_look_s(seen, now)
        seen = pulse.look(seen, now, 1200, AT_FIRST, answered=False)
    assert now <= 103.1 + 10


def test_what_came_before_this_process_stood_still_is_dated_by_the_kernel() -> None:
    """A stop of four seconds is no sleep that anybody tells, and the way was cut meanwhile."""
    seen = pulse.look(START, 103.0, 1100, AT_FIRST, answered=True)
    after = replace(cut(4.0), silent_s=3.9)
    seen = pulse.look(seen, 107.0, 1200, after, answered=False)
    assert pulse.is_stuck(seen, 107.0)
    # What came before anything was known is no older than that.
    old = pulse.look(START, 100.1, 1100, replace(AT_FIRST, silent_s=60), answered=False)
    assert not pulse.is_dead(old, 108.0)


# Cuts that TCP itself would get over ------------------------------------------------------------


def test_how_long_a_new_connection_takes_is_known_from_the_one_that_stands() -> None:
    """A busy machine makes round trips look long, and connects within a second all the same.

    After a sleep of four seconds TCP's own repeat is 2.2 s away.
    """
    awake = cut(4.0)
    assert 2.0 < awake.repeats_in_s < 2.3
    for took_s, stuck in ((None, False), (0.7, True), (1.6, True), (1.8, False), (30.0, False)):
        seen = pulse.begin(100.0, 1000, AT_FIRST, took_s)
        seen = pulse.look(seen, 104.0, 1000, awake, answered=False, rtt_s=0.3)
        assert pulse.is_stuck(seen, 104.0) is stuck, took_s
        alive = pulse.look(seen, 104.5, 1100, AT_FIRST, answered=False)
        assert alive.took_s == took_s, "it is this connection's, as long as that stands"


def test_where_round_trips_are_long_by_a_queue_a_new_connection_would_stand_in_it_too() -> None:
    """A full, slow link: TCP repeats itself without need, and has to be given time."""
    full = replace(cut(6.5, base_s=0.9), rtt_s=1.2)
    assert full.repeats_in_s > 6
    seen = pulse.begin(100.0, 1000, AT_FIRST, took_s=0.7)
    seen = pulse.look(seen, 107.0, 1000, full, answered=False)
    assert not pulse.is_stuck(seen, 107.0)


def test_what_the_server_repeats_first_does_not_make_ours_come_sooner() -> None:
    """A cut of 3.2 s: its end is heard of at once, and nothing is sent for three seconds more."""
    half = replace(cut(3.4), silent_s=0.06)
    assert half.repeats_in_s > 2
    seen = pulse.begin(100.0, 1000, AT_FIRST, took_s=0.6)
    seen = pulse.look(seen, 102.9, 1000, cut(2.9), answered=False)
    seen = pulse.look(seen, 103.4, 1048, half, answered=False)
    assert seen.heard_at > 103
    assert pulse.is_stuck(seen, 103.4)
    assert not pulse.is_stuck(seen, 103.4, keepalive_s=30), "who wants it slower gets it slower"


def test_a_short_cut_costs_no_connection_however_far_the_next_repeat_is() -> None:
    """Of a busy machine TCP thinks that it is further away, and begins with 0.3 s."""
    for cut_s in (1.0, 2.0, 2.9):
        seen = pulse.begin(100.0, 1000, AT_FIRST, took_s=0.6)
        seen = pulse.look(seen, 103.0 + cut_s, 1000, cut(cut_s, 0.3), answered=False)
        assert not pulse.is_stuck(seen, 103.0 + cut_s)
        assert pulse.look(seen, 103.0 + cut_s, 1000, seen.tcp, answered=False) == seen
    seen = pulse.look(seen, 106.0, 1000, cut(3.0, 0.3), answered=False)
    assert pulse.is_stuck(seen, 106.0)


def noticed_after_s(seen: pulse.Pulse, rtt_s: float = 0.001, base_s: float = 0.2) -> float:
    """Return how long a cut of a busy tunnel that begins with SEEN lasts until it is noticed."""
    now = seen.heard_at
    for _ in range(1000):
        now += pulse.next_look_s(seen, now)
        for _ in ("as it is looked at", "after a probe in vain"):
            tcp = cut(now - seen.heard_at, base_s, rtt_s)
            seen = pulse.look(seen, now, seen.received, tcp, answered=False)
            if pulse.is_stuck(seen, now):
                return now - seen.heard_at
            if pulse.wants_probe(seen, now):
                now += pulse.answered_within_s(seen)
        if pulse.is_dead(seen, now):
            return now - seen.heard_at
    raise AssertionError("it is never noticed")


def test_who_would_be_quicker_with_a_new_connection_gets_one() -> None:
    """TCP repeats itself 3.0 s after the last acknowledgement, and then after 6.2 s."""
    busy = replace(START, is_busy=True)
    assert 3.0 <= noticed_after_s(busy) <= 3.5


def test_a_long_way_is_given_the_time_that_a_new_connection_takes_there() -> None:
    """By satellite: 0.6 s there and back, 5 s for a login."""
    far = pulse.begin(100.0, 1000, replace(AT_FIRST, rtt_s=0.6))
    took = noticed_after_s(replace(far, is_busy=True), rtt_s=0.6, base_s=0.9)
    assert 6.3 <= took <= 8.5


def test_who_wants_it_slower_is_not_cut_short_by_repeats() -> None:
    stuck = pulse.look(START, 129.9, 1000, cut(29.9), answered=False, keepalive_s=30)
    assert not pulse.is_stuck(stuck, 129.9, keepalive_s=30)
    assert not pulse.is_dead(stuck, 129.9, keepalive_s=30)
    assert pulse.is_stuck(stuck, 130.0, keepalive_s=30)


def test_an_idle_tunnel_is_given_as_long_as_tcp_needs() -> None:
    """Nobody was waiting: its probe is the first that is not acknowledged."""
    for cut_s in (1.0, 2.0, 2.9):
        seen, now = pulse.look(START, 103.0, 1000, AT_FIRST, answered=False), 103.0
        while now < 103.0 + cut_s:
            now += 0.5
            seen = pulse.look(seen, now, 1000, cut(min(now - 103.0, cut_s)), answered=False)
            assert not pulse.is_stuck(seen, now), cut_s
            assert not pulse.is_dead(seen, now), cut_s
    seen = pulse.look(seen, 106.1, 1000, cut(3.1), answered=False)
    assert pulse.is_stuck(seen, 106.1)


def test_what_is_acknowledged_again_is_asked_whether_the_other_end_still_waits() -> None:
    seen = pulse.look(START, 103.0, 1000, cut(3.0 - 0.01), answered=False)
    assert 0 < seen.tcp.repeats_in_s < 0.1
    over = pulse.look(seen, 103.5, 1000, heard(500_000), answered=False)
    assert not pulse.is_dead(over, 103.9)
    assert pulse.is_dead(over, 104.0)
    assert not pulse.is_dead(pulse.look(over, 103.6, 1100, heard(1), answered=False), 104.0)
    far = replace(heard(500_000), rtt_s=12.0)  # a queue of twelve seconds, which is full
    slow = pulse.look(seen, 103.5, 1000, far, answered=False)
    assert not pulse.is_dead(slow, 111.9)


def test_a_repeat_that_is_due_is_no_acknowledgement() -> None:
    """The kernel's timers are late by up to a quarter of a second."""
    due = replace(cut(1.4 - 0.01), repeats_in_s=0.0)
    seen = pulse.look(replace(START, is_busy=True), 101.4, 1000, due, answered=False)
    seen = pulse.look(seen, 101.6, 1000, cut(1.6), answered=False)
    seen = pulse.look(seen, 101.9, 1000, replace(cut(1.9), repeats_in_s=0.0), answered=False)
    assert seen.doubted_until is None


def test_who_slept_does_not_wait_for_a_repeat() -> None:
    """Of twelve seconds nobody knows how late the server's own one is."""
    slept = pulse.doubt(pulse.look(START, 112.0, 1000, cut(12.0), answered=False), 112.0)
    assert 0 < slept.tcp.repeats_in_s < 2
    assert pulse.is_dead(slept, 112.5)


def test_a_repeat_that_is_near_by_now_is_waited_for() -> None:
    seen = pulse.look(START, 105.0, 1000, cut(5.0), answered=False)
    assert seen.tcp.repeats_in_s < 1.3
    assert not pulse.is_stuck(seen, 105.0)


def test_an_upload_that_nobody_answers_over_a_lossy_way_lives() -> None:
    """Nothing comes out but what answers our probes, which wait in its queue for seconds."""
    seen, now, life = START, 100.0, 0
    while now < 160:
        now += pulse.next_look_s(seen, now)
        life += 60_000
        full = replace(heard(life), repeats_in_s=0.8, silent_s=now - 100)
        seen = pulse.look(seen, now, 1000, full, answered=False)
        assert not pulse.is_stuck(seen, now)
        assert not pulse.is_dead(seen, now)


def test_what_cannot_be_told_for_a_moment_is_as_it_was() -> None:
    seen = pulse.look(START, 100.5, 1000, None, answered=False)
    assert seen.tcp == AT_FIRST
    assert pulse.look(seen, 101.0, 1000, AT_FIRST, answered=False).lived_at == 100.0


def test_where_the_kernel_tells_nothing_silence_alone_counts() -> None:
    seen = pulse.begin(100.0, 1000, None)
    seen = pulse.look(seen, 108.4, 1000, None, answered=False)
    assert not pulse.is_stuck(seen, 108.4)
    assert not pulse.is_dead(seen, 108.4)
    assert pulse.is_dead(seen, 108.5)

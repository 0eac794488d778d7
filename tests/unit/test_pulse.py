"""When a tunnel is taken for dead: silence, and what does not count as silence."""

from __future__ import annotations

from sshvpn import pulse

START = pulse.begin(100.0, received=1000, life=5000)


def test_silence_is_death_after_the_time_ssh_itself_waits_less_that_of_a_look() -> None:
    seen = pulse.look(START, 108.4, 1000, 5000, answered=False)
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


def test_a_tunnel_that_is_doubted_is_asked_at_once_and_has_two_seconds() -> None:
    doubted = pulse.doubt(START, 101.0)
    assert pulse.wants_probe(doubted, 101.0)
    assert pulse.doubt(doubted, 102.0) == doubted, "more doubts give no more time"
    assert not pulse.is_dead(doubted, 102.9)
    assert pulse.is_dead(doubted, 103.0)
    for alive in (
        pulse.look(doubted, 103.0, 1001, 5000, answered=False),
        pulse.look(doubted, 103.0, 1000, 5000, answered=True),
        pulse.look(doubted, 103.0, 1000, 500_000, answered=False),
    ):
        assert not pulse.is_dead(alive, 104.0), "life ends the doubt"


def test_a_packet_that_comes_out_is_life() -> None:
    seen = pulse.look(START, 108.0, 1001, 5000, answered=False)
    assert not pulse.is_dead(seen, 116.4)
    assert pulse.is_dead(seen, 117.3)


def test_an_answered_probe_is_life() -> None:
    seen = pulse.look(START, 108.0, 1000, 5000, answered=True)
    assert not pulse.is_dead(seen, 116.4)


def test_a_slow_full_link_is_not_taken_for_dead() -> None:
    """The upload goes on being acknowledged, while every probe waits behind it."""
    seen, life = START, 5000
    for second in range(3, 63, 3):
        life += 3 * 125_000
        seen = pulse.look(seen, 100.0 + second, 1000, life, answered=False)
        assert not pulse.is_dead(seen, 100.0 + second)


def test_keepalives_of_ssh_are_no_life_of_its_tunnel() -> None:
    """OpenSSH's tun channel can die while ssh goes on (facts of packets of 20 bytes)."""
    seen, life, second = START, 5000, 0
    while not pulse.is_dead(seen, 100.0 + second):
        second += 3
        life += 200
        seen = pulse.look(seen, 100.0 + second, 1000, life, answered=False)
    assert second == 9


def test_what_is_sent_into_a_dead_channel_keeps_it_alive_for_two_minutes_at_most() -> None:
    seen, life, second = START, 5000, 0
    while not pulse.is_dead(seen, 100.0 + second):
        second += 3
        life += 1_000_000
        seen = pulse.look(seen, 100.0 + second, 1000, life, answered=False)
    assert second == 120


def test_who_is_quiet_is_looked_at_when_it_is_asked_and_not_before() -> None:
    assert pulse.next_look_s(START, 100.0) == pulse.KEEPALIVE_S
    asked = pulse.look(START, 103.0, 1100, 5000, answered=True)
    assert pulse.next_look_s(asked, 103.5) == pulse.KEEPALIVE_S - 0.5
    busy = pulse.look(asked, 106.0, 2000, 5000, answered=False)
    assert pulse.next_look_s(busy, 106.0) == pulse.LOOK_EVERY_S
    quiet = pulse.look(busy, 106.5, 2000, 5000, answered=False)
    assert pulse.wants_probe(quiet, 106.5), "nobody knows how long it has been quiet"


def test_what_came_while_nobody_looked_may_have_stopped_at_once() -> None:
    """Seen at the end of a long wait, it is dated to its beginning: ten seconds stay ten."""
    seen = pulse.look(START, 103.0, 1100, 5000, answered=True)
    # One packet at 103.1, and the link is cut; the next look is at 106.0.
    seen = pulse.look(seen, 106.0, 1200, 5000, answered=False)
    now = 106.0
    while not pulse.is_dead(seen, now):
        now += pulse.next_look_s(seen, now)
        seen = pulse.look(seen, now, 1200, 5000, answered=False)
    assert now <= 103.1 + 10

"""When a tunnel is taken for dead: silence, and what does not count as silence."""

from __future__ import annotations

from sshvpn import pulse

START = pulse.begin(100.0, received=1000, life=5000)


def test_silence_is_death_after_the_time_ssh_itself_waits() -> None:
    seen = pulse.look(START, 108.9, 1000, 5000, answered=False)
    assert not pulse.is_dead(seen, 108.9)
    assert pulse.is_dead(seen, 109.0)


def test_a_packet_that_comes_out_is_life() -> None:
    seen = pulse.look(START, 108.0, 1001, 5000, answered=False)
    assert not pulse.is_dead(seen, 116.9)
    assert pulse.is_dead(seen, 117.0)


def test_an_answered_probe_is_life() -> None:
    seen = pulse.look(START, 108.0, 1000, 5000, answered=True)
    assert not pulse.is_dead(seen, 116.9)


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

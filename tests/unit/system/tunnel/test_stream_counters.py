"""Several connections, seen as one."""

from __future__ import annotations

from sshvpn.model import TcpCounters
from sshvpn.system.tunnel.stream import together


def test_packets_of_any_connection_are_life_and_the_slowest_one_says_how_long_it_takes() -> None:
    busy = TcpCounters(1000, 2000, 0.010, repeats_in_s=0.0, silent_s=0.02)
    idle = TcpCounters(10, 20, 0.040, repeats_in_s=0.3, silent_s=60.0, unanswered_s=0.4)
    assert together([busy, idle]) == TcpCounters(1010, 2020, 0.040, 0.3, 0.02, 0.4)
    assert together([idle]) == idle


def test_of_none_nothing_is_told() -> None:
    assert together([]) is None
    assert together([TcpCounters(), TcpCounters()]) == TcpCounters()

"""What a forward has carried, over its connections."""

from __future__ import annotations

from sshvpn.model import Traffic
from sshvpn.odometer import NO_TRAFFIC, Odometer


def test_it_goes_on_over_connections() -> None:
    meter = Odometer()
    assert meter.read(NO_TRAFFIC) == NO_TRAFFIC
    meter.end()  # a login that failed
    assert meter.read(NO_TRAFFIC) == NO_TRAFFIC
    assert meter.read(Traffic(10, 1, 2, 0.5)) == Traffic(10, 1, 2, 0.5)
    assert meter.read(Traffic(15, 3, 2, 0.5)) == Traffic(15, 3, 2, 0.5)
    meter.end()
    assert meter.read(NO_TRAFFIC) == Traffic(15, 3, None)
    assert meter.read(Traffic(1, 1, 0, 0.2)) == Traffic(16, 4, 0, 0.2)
    meter.end()
    assert meter.read(Traffic(0, 0, 0)) == Traffic(16, 4, 0)


def test_a_connection_that_is_dying_keeps_its_count() -> None:
    meter = Odometer()
    meter.read(Traffic(10, 20, 1, 0.1))
    assert meter.read(Traffic(None, None, 0)) == Traffic(10, 20, 0)
    meter.end()
    assert meter.read(Traffic(1, 1, 0)) == Traffic(11, 21, 0)


def test_who_cannot_tell_says_so_over_reconnects_too() -> None:
    meter = Odometer()
    for _ in range(3):
        assert meter.read(Traffic(None, None, 3)) == Traffic(None, None, 3)
        meter.end()

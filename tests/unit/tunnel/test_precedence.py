"""Where one network is on both sides: an error at a first start, and a warning after it."""

from __future__ import annotations

import pytest

from sshvpn.errors import UsageError
from sshvpn.tunnel.change import rehearse_change
from sshvpn.tunnel.precedence import Precedence
from tests.unit.test_ends import ADDRESSES, address, without_nat

AT_SERVER = without_nat(address("eth1", "192.168.77.20/24"))
ELSEWHERE = without_nat()


def test_a_lan_that_is_at_the_server_too_stops_a_first_start_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    precedence = Precedence()
    with pytest.raises(UsageError):
        precedence.remote_end(AT_SERVER, ADDRESSES, (), has_run=False)
    for _ in range(2):
        end = precedence.remote_end(AT_SERVER, ADDRESSES, (), has_run=True)
        assert [str(one) for one in end.routes] == ["fd77::/64"]
    assert len(caplog.messages) == 1, "it is told once"
    assert "192.168.77.0/24" in caplog.messages[0]


def test_it_is_routed_again_when_it_is_there_no_more(caplog: pytest.LogCaptureFixture) -> None:
    precedence = Precedence()
    for site, count in ((AT_SERVER, 1), (ELSEWHERE, 2), (AT_SERVER, 1)):
        end = precedence.remote_end(site, ADDRESSES, (), has_run=True)
        assert len(end.routes) == count
    assert len(caplog.messages) == 2


def test_an_edited_profile_that_would_route_it_is_refused() -> None:
    rehearse_change(ELSEWHERE)
    with pytest.raises(UsageError):
        rehearse_change(AT_SERVER)

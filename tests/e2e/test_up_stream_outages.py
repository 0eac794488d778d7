"""Some of the outages again, by the transport `stream`, whose pumps and ssh end differently.

All of them, at full length: `SSHVPN_TEST_TRANSPORT=stream make faults`. The drawing is that of
test_up_outages, and so are the tests; here is another tunnel for them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.test_up_outages import (
    ECHO,
    pytestmark,
    test_a_frozen_sshd_is_noticed,
    test_a_link_that_is_away_is_noticed_and_its_return_too,
    test_an_ssh_that_is_frozen_is_noticed_and_replaced,
    test_an_ssh_that_is_killed_is_started_anew,
    test_sshd_and_its_children_may_be_killed,
    ticker,
)
from tests.e2e.vpn import DATAGRAMS, SHARED, Vpn
from tests.lab import Lab

__all__ = [
    "pytestmark",
    "test_a_frozen_sshd_is_noticed",
    "test_a_link_that_is_away_is_noticed_and_its_return_too",
    "test_an_ssh_that_is_frozen_is_noticed_and_replaced",
    "test_an_ssh_that_is_killed_is_started_anew",
    "test_sshd_and_its_children_may_be_killed",
    "ticker",
]


@pytest.fixture(scope="module")
def standing() -> Iterator[Vpn]:
    """Return a tunnel that is up by the transport stream, with echo services behind."""
    with Lab() as lab:
        vpn = Vpn(lab, transport="stream")
        lab.inner.tcp_server(ECHO, "::")
        lab.inner.udp_server(DATAGRAMS, "::")
        vpn.up(*SHARED)
        yield vpn
        vpn.down()
        lab.check()

"""`sshvpn up` through silent cuts of a way that is long, loses packets, or leads by a jump host.

lan ── lan0 gateway wan0 ══ 40 ms, 1 % lost ══ server ── inner
 ticker               └══ ssh ══ jump ══ ssh ═══┘
                            cut        cut
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from tests.e2e.outage import Ticker, dropping
from tests.e2e.test_up_outages import ECHO, INNER, LOGINS, outlived, waited
from tests.e2e.vpn import DATAGRAMS, SHARED, Vpn
from tests.lab import Lab
from tests.lab.contents import ALICE
from tests.lab.wan import Wan

pytestmark = [pytest.mark.lab, pytest.mark.timed, pytest.mark.timeout(240)]

AWAY_S: Final = 12.0
FAR: Final = Wan(delay_ms=20, loss=0.01)


def standing(lab: Lab, login: str, transport: str) -> tuple[Vpn, Ticker]:
    """Return a tunnel of LOGIN's that is up, and datagrams on their way through it."""
    vpn = Vpn(lab, login=login, transport=transport, services=False)
    if "jump" in lab.machines:
        path = f"{ALICE.home}/.ssh/config"
        jump = f"Host server\n  ProxyJump jump\n{lab.gateway.read(path)}"
        lab.gateway.write(path, jump)
    lab.inner.tcp_server(ECHO, "::")
    lab.inner.udp_server(DATAGRAMS, "::")
    vpn.up(*SHARED)
    return vpn, Ticker(lab.lan, INNER)


@pytest.mark.parametrize(("login", "transport"), LOGINS, ids=[*map(" ".join, LOGINS)])
def test_a_cut_of_a_way_that_is_long_and_loses_packets(
    lab: Lab, login: str, transport: str
) -> None:
    lab.shape(FAR)
    vpn, ticker = standing(lab, login, transport)
    what = "40 ms, 1 % lost: packets dropped for 12 s"
    outage = outlived(vpn, what, ticker, lab.cut, waited(AWAY_S, lab.restore))
    assert outage.noticed_s is not None
    ticker.end()
    vpn.down()


def cut_behind_jump(lab: Lab) -> None:
    """Let nothing pass between jump host and server, in silence."""
    lab.jump.nft(dropping("fault", "tcp dport 22"))
    lab.server.nft(dropping("fault", 'oifname "wan0"'))


def restore_behind_jump(lab: Lab) -> None:
    """Undo that."""
    for machine in (lab.jump, lab.server):
        machine.nft("delete table inet fault")


Change = Callable[[Lab], None]
HOPS: Final[dict[str, tuple[Change, Change]]] = {
    "first": (Lab.cut, Lab.restore),
    "second": (cut_behind_jump, restore_behind_jump),
}


@pytest.mark.parametrize(("hop", "login"), [*zip(HOPS, LOGINS, strict=True)], ids=[*HOPS])
def test_a_cut_of_a_way_by_a_jump_host(lab: Lab, hop: str, login: tuple[str, str]) -> None:
    cut, restore = HOPS[hop]
    jump = lab.jump
    vpn, ticker = standing(lab, *login)
    assert jump.sshd.sessions()
    what = f"by a jump host: packets of the {hop} hop dropped for 12 s"
    outage = outlived(vpn, what, ticker, partial(cut, lab), waited(AWAY_S, partial(restore, lab)))
    assert outage.noticed_s is not None
    ticker.end()
    vpn.down()

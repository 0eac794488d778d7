"""What is under way through a tunnel when the link goes: it waits, and goes on, byte for byte.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
 │             cut                │          └ bulk, each way, by IPv4 and IPv6
 └ websocket ──────────────────> Jupyter on localhost:8888, published
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.flows import BYTES_PER_S, Kernel, Transfer, captured
from tests.e2e.outage import (
    BACK_WITHIN_S,
    NOTICED_WITHIN_S,
    Ticker,
    is_within,
    measure,
    tell,
)
from tests.e2e.test_up_outages import REMOTE
from tests.e2e.vpn import DATAGRAMS, INNER_HOSTS, SHARED, Vpn, counted
from tests.lab import Lab, wait_until

TRANSPORT: Final = os.environ.get("SSHVPN_TEST_TRANSPORT", "stream")
IS_LONG: Final = os.environ.get("SSHVPN_TEST_FAULTS") == "long"
pytestmark = [pytest.mark.lab, pytest.mark.timed, pytest.mark.timeout(3600 if IS_LONG else 240)]
CUT_S: Final = 300.0 if IS_LONG else 20.0
"""Five minutes by `make faults`; what is different there is the flow's own timer (RFC 6298)."""
PATIENT: Final = ("--ServerApp.tornado_settings={'ws_ping_interval': 0}",) if IS_LONG else ()
"""Jupyter itself ends a websocket on which nobody has answered its pings for 90 s."""
BEFORE_S: Final = 4.0
SAMPLED_S: Final = 0.2
"""How late a transfer sees at most that TCP has repeated something."""
FLOW_WITHIN_S: Final = 60.0 if IS_LONG else 10.0
"""The websocket's own retransmission timer adds to what the tunnel takes: it is doubled each time,
up to two minutes (TCP_RTO_MAX). Of a transfer is known when it repeated what."""


@pytest.fixture(params=["0", "1"], ids=["routes stay", "ignore_routes_with_linkdown"])
def tunnel(request: pytest.FixtureRequest) -> Iterator[Vpn]:
    """Return a tunnel on a machine that ignores, or not, routes by a link without carrier."""
    with Lab() as lab:
        for family in ("ipv4", "ipv6"):
            for name in ("all", "default", "lan0", "wan0"):
                setting = f"net.{family}.conf.{name}.ignore_routes_with_linkdown"
                lab.gateway.run(["sysctl", "-qw", f"{setting}={request.param}"], user="root")
        lab.checkpoint()
        vpn = Vpn(lab, transport=TRANSPORT, services=False)
        lab.inner.udp_server(DATAGRAMS, "::")
        yield vpn
        vpn.down()
        lab.check()


@pytest.mark.parametrize("silent", [True, False], ids=["silence", "no carrier"])
def test_transfers_and_a_kernel_outlive_a_cut(tunnel: Vpn, *, silent: bool) -> None:
    lab = tunnel.lab
    jupyter = lab.server.start_jupyter(8888, *PATIENT)
    assert jupyter.token is not None
    tunnel.up(*SHARED)
    device = str(tunnel.record()["device"])
    size = int(BYTES_PER_S * (BEFORE_S + 6))
    ways = [(host, up) for host in INNER_HOSTS for up in (True, False)]
    resets = 'oifname "inner0" tcp flags & rst == rst'
    with (
        captured(lab.gateway, device, *REMOTE) as leaked,
        counted(lab.server, "output", resets) as reset,
    ):
        kernel = Kernel(
            lab.lan, "http://192.168.77.1:8888/", jupyter.token, int(CUT_S + BEFORE_S + 12) * 2, 0.5
        )
        ticker = Ticker(lab.lan, INNER_HOSTS[0])
        flows = [
            Transfer(lab.lan, lab.inner, host, 7100 + number, up=up, size=size)
            for number, (host, up) in enumerate(ways)
        ]

        ends: list[float] = []

        def end() -> None:
            assert all(flow.is_going_on for flow in flows)
            time.sleep(CUT_S)
            lab.restore()
            ends.append(time.time())

        time.sleep(BEFORE_S)  # so long they shall have been under way
        what = f"{'silent cut' if silent else 'link unplugged'} of {CUT_S:.0f} s"
        outage = measure(tunnel, what, ticker, lambda: lab.cut(silent=silent), end)
        over = ends[0]
        assert tunnel.record()["reconnects"] == 1
        assert outage.noticed_s is not None
        assert outage.noticed_s <= NOTICED_WITHIN_S
        # How busy this machine is tells another connection, which no flow shall have to outlive.
        bounds = [(outage.back_s, BACK_WITHIN_S)]
        for flow, (host, up) in zip(flows, ways, strict=True):
            sent, received = flow.finish(FLOW_WITHIN_S + 60)
            went_on = next(at for at in received["arrivals"] if at > over) - over
            # The first that it sends by itself through the new connection gets through.
            ours = [at - over for at in sent["repeats"] if at - over > outage.back_s]
            repeated = ours[0] if ours and ours[0] <= went_on + SAMPLED_S else 0.0
            tell(
                f"bulk {'to' if up else 'from'} {host} meanwhile: went on {went_on:.1f} s after "
                f"the way was back, its own first repeat then at {repeated:.1f} s; "
                f"its timer was at {sent['rto_ms'] / 1000:.1f} s"
            )
            bounds.append((went_on, max(outage.back_s, repeated) + BACK_WITHIN_S))
        numbers = kernel.finish(CUT_S + FLOW_WITHIN_S + 60)
        first = next(at for at in numbers if at > over) - over
        tell(f"Jupyter's websocket meanwhile: went on {first:.1f} s after the way was back")
        bounds.append((first, FLOW_WITHIN_S))
        for seconds, bound_s in bounds:
            assert is_within(tunnel, seconds, bound_s)
        ticker.end()
    assert leaked == []
    assert reset == [0], "the server answered for a connection that it only translates"


def test_transfers_outlive_an_ssh_that_is_killed(lab: Lab) -> None:
    """Then the server undoes its end at once, and would answer what comes meanwhile itself."""
    vpn = Vpn(lab, transport=TRANSPORT)
    vpn.up(*SHARED)
    ways = [(host, up) for host in INNER_HOSTS for up in (True, False)]
    flows = [
        Transfer(lab.lan, lab.inner, host, 7200 + number, up=up)
        for number, (host, up) in enumerate(ways)
    ]
    for number in (1, 2, 3):
        lab.gateway.run(["pkill", "-KILL", "-u", "alice", "-x", "ssh"], user="root")
        wait_until(lambda: vpn.record()["reconnects"] == number, 30, every=0.1)  # noqa: B023
        assert all(flow.is_going_on for flow in flows)
    for flow in flows:
        flow.finish()
    vpn.down()

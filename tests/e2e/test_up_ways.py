"""`sshvpn up` where the way to the server is another one, or its one device is held there.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
 ticker             wan1 ══════════════ a second way, in one of the tests
"""

from __future__ import annotations

import time
from typing import Final

import pytest

from tests.e2e.office import Office
from tests.e2e.outage import BACK_WITHIN_S, NOTICED_WITHIN_S, TRIES, Ticker, is_within, measure
from tests.e2e.test_up_outages import ECHO, INNER, LEAKS, WAYS, settled, waited
from tests.e2e.vpn import DATAGRAMS, SHARED, Vpn, counted
from tests.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timed, pytest.mark.timeout(240)]

MOVED_AT_MOST_S: Final = 6.0
"""In each try: the old way is not waited for until the keepalive tells."""
FAR: Final = "Host far\n  HostName 198.51.100.20\n  User root\n"


@pytest.mark.parametrize(("silent", "transport"), WAYS, ids=["silent", "unplugged"])
def test_a_default_route_that_moves_to_another_adapter_is_followed(
    lab: Lab, silent: bool, transport: str
) -> None:
    lab.add_uplink()
    vpn = Vpn(lab, transport=transport, services=False)
    lab.gateway.write("/home/alice/.ssh/config", FAR)
    lab.inner.tcp_server(ECHO, "::")
    lab.inner.udp_server(DATAGRAMS, "::")
    vpn.up("far", "--name", "server", *SHARED[1:])
    ticker = Ticker(lab.lan, INNER)
    stream = Office(lab).talk(INNER, ECHO, machine=lab.lan)
    assert stream.is_answered("before")
    ways = [("203.0.113.1", "wan0"), ("203.0.114.1", "wan1")]

    def move() -> None:
        lab.cut(silent=silent)
        router, adapter = ways[1]
        lab.gateway.ip("route", "replace", "default", "via", router, "dev", adapter)

    what = f"default route moved, the old way {'silent' if silent else 'unplugged'}"
    leaks = [rule.replace("wan0", wan) for wan in ("wan0", "wan1") for rule in LEAKS]

    def move_back() -> None:
        lab.restore()
        router, adapter = ways[0]
        lab.gateway.ip("route", "replace", "default", "via", router, "dev", adapter)
        ticker.wait_after(time.time())
        settled(vpn)

    told = []
    for _ in range(TRIES):
        with counted(lab.gateway, "postrouting", *leaks) as leaked:
            outage = measure(vpn, what, ticker, move, lambda: None)
        assert leaked == [0] * 4
        assert stream.is_answered("after")
        assert outage.noticed_s is not None
        told.append(str(outage))
        # The new way is there at once: nobody waits for the keepalive, or for a repeat of TCP's.
        is_in_time = is_within(vpn, outage.back_s, BACK_WITHIN_S)
        assert is_in_time or is_within(vpn, outage.back_s, MOVED_AT_MOST_S), told
        move_back()
        if is_in_time:
            break
    else:
        raise AssertionError("\n".join([*told, vpn.log()[-4000:]]))
    ticker.end()
    vpn.down()


# Logins without rights ------------------------------------------------------------------------

MADE: Final = """
[tunnels.server]
host = "alice@server"
remote_device = "tun8"
address = "10.83.0.1/30"
"""


def test_a_device_of_the_administrators_is_got_back_from_a_session_that_hangs(lab: Lab) -> None:
    """A login without rights has one device only, and the session that was cut off holds it."""
    script = """
    ip tuntap add dev tun8 mode tun user alice
    sysctl -qw net.ipv6.conf.tun8.disable_ipv6=1
    ip address add 10.83.0.2/30 dev tun8
    ip link set tun8 up
    """
    lab.server.run(["sh", "-ec", script], user="root")
    lab.checkpoint()
    vpn = Vpn(lab, login="alice", transport="w", services=False, rights=False)
    lab.gateway.write("/home/alice/.config/sshvpn/config.toml", MADE)
    lab.server.udp_server(DATAGRAMS, "10.83.0.2")
    vpn.up("server", "--no-lan")
    ticker = Ticker(lab.gateway, "10.83.0.2")
    told = []
    for _ in range(TRIES):
        outage = measure(vpn, "packets dropped for 14 s, a login without rights", ticker, lab.cut,
                         waited(14, lab.restore))  # fmt: skip
        settled(vpn)
        assert outage.noticed_s is not None
        assert outage.noticed_s <= NOTICED_WITHIN_S
        told.append(str(outage))
        if is_within(vpn, outage.back_s, BACK_WITHIN_S):
            break
    else:
        raise AssertionError("\n".join([*told, vpn.log()[-4000:]]))
    ticker.end()
    vpn.down()

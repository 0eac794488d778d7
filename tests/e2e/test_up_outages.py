"""`sshvpn up` through outages, each with its time measured: when it was noticed, when it was over.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
 ticker      supervisor     cut  sshd       UDP :7007, TCP :7 echo
 stream      ssh, helper         agent
             wan1 ══════════════ a second way, in one of the tests
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pytest

from tests.e2e.flows import captured
from tests.e2e.office import Office
from tests.e2e.outage import (
    BACK_WITHIN_S,
    NOTICED_WITHIN_S,
    TRIES,
    Outage,
    Ticker,
    dropping,
    fall_asleep,
    is_within,
    measure,
)
from tests.e2e.vpn import DATAGRAMS, SHARED, Vpn, counted, masters
from tests.lab import Lab, LabMachine, wait_until

ECHO: Final = 7
INNER: Final = "10.20.0.10"
ASKED: Final = os.environ.get("SSHVPN_TEST_TRANSPORT")
"""The same tests hold for any way to carry packets: for each here, or for this one alone."""
LOGINS: Final = [("root", ASKED or "w"), ("alice", ASKED or "stream")]
WAYS: Final = [(True, ASKED or "stream"), (False, ASKED or "w")]
IS_LONG: Final = os.environ.get("SSHVPN_TEST_FAULTS") == "long"
pytestmark = [pytest.mark.lab, pytest.mark.timed, pytest.mark.timeout(3600 if IS_LONG else 240)]
AWAY_S: Final = (30.0, 300.0) if IS_LONG else (12.0,)
"""How long the link is away where that is noticed; by `make faults` as long as it says."""
USUAL_RTO_MS: Final = 240
"""How late TCP repeats itself first where nothing is busy: 0.2 s, and what acknowledgements that
are put off add to it (tcp_delack_min: 40 ms)."""
ASLEEP_S: Final = 30.0 if IS_LONG else 12.0
REMOTE: Final = ("10.20.0.0/24", "fd20::/64", "100.64.0.0/10")
LEAKS: Final = tuple(
    f'oifname "wan0" {targets}'
    for targets in ("ip daddr { 10.20.0.0/24, 100.64.0.0/10 }", "ip6 daddr fc00::/7")
)


@pytest.fixture(scope="module", params=LOGINS, ids=" ".join)
def standing(request: pytest.FixtureRequest) -> Iterator[Vpn]:
    """Return a tunnel that is up, by a login as root or with sudo, with echo services behind."""
    with Lab() as lab:
        login, transport = request.param
        vpn = Vpn(lab, login=login, transport=transport)
        lab.inner.tcp_server(ECHO, "::")
        lab.inner.udp_server(DATAGRAMS, "::")
        vpn.up(*SHARED)
        yield vpn
        vpn.down()
        lab.check()


@pytest.fixture
def ticker(standing: Vpn) -> Iterator[Ticker]:
    """Return datagrams on their way from the LAN to the machine behind the server."""
    ticker = Ticker(standing.lab.lan, INNER)
    yield ticker
    ticker.end()


def ssh_pid(vpn: Vpn) -> int:
    """Return the process of the one ssh that carries the tunnel."""
    (pid,) = masters(vpn.lab.gateway)
    return pid


def settled(vpn: Vpn) -> None:
    """Return when the tunnel runs, with no retry of a session before on its mind."""
    wait_until(lambda: vpn.record()["state"] == "running", 30, every=0.1)


def outlived(
    vpn: Vpn,
    what: str,
    ticker: Ticker,
    begin: Callable[[], None],
    end: Callable[[], None] = lambda: None,
    *,
    noticed_within_s: float = NOTICED_WITHIN_S,
) -> Outage:
    """Assert that the outage from BEGIN to END costs no stream and no packet elsewhere.

    It is noticed, and over, as soon as is promised; a machine that is busy gets TRIES.
    """
    stream = Office(vpn.lab).talk(INNER, ECHO, machine=vpn.lab.lan)
    assert stream.is_answered("before")
    told = []
    for _ in range(TRIES):
        with (
            counted(vpn.lab.gateway, "postrouting", *LEAKS) as leaked,
            captured(vpn.lab.gateway, str(vpn.record()["device"]), *REMOTE) as elsewhere,
        ):
            outage = measure(vpn, f"{what}, {vpn.login}", ticker, begin, end)
        assert (leaked, elsewhere) == ([0, 0], [])
        assert stream.is_answered("after")
        settled(vpn)
        told.append(str(outage))
        noticed = outage.noticed_s or 0.0
        if noticed <= noticed_within_s and is_within(vpn, outage.back_s, BACK_WITHIN_S):
            return outage
    raise AssertionError("\n".join([*told, vpn.log()[-4000:]]))


# The link -------------------------------------------------------------------------------------


def waited(seconds: float, then: Callable[[], None]) -> Callable[[], None]:
    """Return a function that lets SECONDS pass, which are what is tested, and calls THEN."""

    def end() -> None:
        time.sleep(seconds)
        then()

    return end


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "unplugged"])
def test_two_seconds_without_a_link_are_over_in_time(
    standing: Vpn, ticker: Ticker, silent: bool
) -> None:
    cut = partial(standing.lab.cut, silent=silent)
    how = "packets dropped" if silent else "link unplugged"
    outage = outlived(standing, f"{how} for 2 s", ticker, cut, waited(2, standing.lab.restore))
    # Not by the count of reconnects: a machine that is busy is asked for one, to be timed.
    if silent:
        assert outage.noticed_s is None
    # That a link is back the kernel tells. Then it is asked, and who is quicker wins: a new
    # connection, or the server's own repeat, which may be 1.9 s away, and nobody here can know.


def test_two_seconds_without_a_link_cost_an_idle_tunnel_no_connection(standing: Vpn) -> None:
    """The first that is not acknowledged is its own probe, at whatever time of the cut."""
    settled(standing)
    before = standing.record()["reconnects"]
    for idle_s in (0.0, 1.0, 2.0):
        wait_until(partial(is_at_rest, standing), 60, what="TCP has not come to rest")
        time.sleep(idle_s)
        standing.lab.cut()
        time.sleep(2)
        standing.lab.restore()
        standing.wait_reachable(standing.everything())
        assert standing.record()["reconnects"] == before, standing.log()[-2000:]


def is_at_rest(vpn: Vpn) -> bool:
    """Whether all is acknowledged at either end, and would be repeated as soon as is usual.

    After a busy moment TCP waits for longer than its least, 0.2 s, until it has seen more answers:
    a new connection may be quicker then, and is made.
    """
    vpn.wait_reachable(vpn.everything())
    ends = (vpn.lab.gateway, vpn.lab.server)
    wait_until(lambda: not any("unacked:" in connections(end) for end in ends))
    told = "".join(connections(end) for end in ends)
    return all(int(ms) <= USUAL_RTO_MS for ms in re.findall(r"\brto:(\d+)", told))


def connections(machine: LabMachine) -> str:
    """Return what the kernel of MACHINE says of its connections of ssh (ss(8))."""
    words = ["ss", "-HOtin", "state", "established", "( sport = 22 or dport = 22 )"]
    return machine.run(words, user="root").stdout


@pytest.mark.parametrize("away_s", [3.2, 5.0])
def test_a_cut_that_tcp_itself_would_be_slow_to_get_over(
    standing: Vpn, ticker: Ticker, away_s: float
) -> None:
    """It repeats itself 3.0 s after the beginning, and then after 6.2 s: at both ends."""
    what = f"packets dropped for {away_s} s"
    outlived(standing, what, ticker, standing.lab.cut, waited(away_s, standing.lab.restore))


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "unplugged"])
@pytest.mark.parametrize("away_s", AWAY_S)
def test_a_link_that_is_away_is_noticed_and_its_return_too(
    standing: Vpn, ticker: Ticker, silent: bool, away_s: float
) -> None:
    cut = partial(standing.lab.cut, silent=silent)
    how = f"{'packets dropped' if silent else 'link unplugged'} for {away_s:.0f} s"
    outage = outlived(standing, how, ticker, cut, waited(away_s, standing.lab.restore))
    assert outage.noticed_s is not None


def test_packets_that_are_dropped_in_one_direction_only_are_noticed(
    standing: Vpn, ticker: Ticker
) -> None:
    """Ours arrive, and nothing comes back: TCP itself would go on for a quarter of an hour."""
    server = standing.lab.server
    begin = partial(server.nft, dropping("fault", 'oifname "wan0" tcp sport 22'))
    end = waited(14, partial(server.nft, "delete table inet fault"))
    outage = outlived(standing, "one direction dropped for 14 s", ticker, begin, end)
    assert outage.noticed_s is not None


# ssh ------------------------------------------------------------------------------------------


def test_an_ssh_that_is_killed_is_started_anew(standing: Vpn, ticker: Ticker) -> None:
    kill = partial(_kill_ssh, standing, signal.SIGKILL)
    outlived(standing, "ssh killed", ticker, kill)


def test_an_ssh_that_is_frozen_is_noticed_and_replaced(standing: Vpn, ticker: Ticker) -> None:
    frozen = ssh_pid(standing)
    freeze = partial(_kill_ssh, standing, signal.SIGSTOP)
    # It is the end of the fault when it was noticed: from then on a new one can be made.
    noticed = partial(wait_until, lambda: standing.record()["state"] != "running", 15, every=0.1)
    outlived(standing, "ssh frozen", ticker, freeze, noticed)
    assert ssh_pid(standing) != frozen
    assert frozen not in standing.lab.gateway.processes()


def _kill_ssh(vpn: Vpn, sig: signal.Signals) -> None:
    vpn.lab.gateway.kill(ssh_pid(vpn), sig)


# The server -----------------------------------------------------------------------------------


def test_sshd_and_its_children_may_be_killed(standing: Vpn, ticker: Ticker) -> None:
    sshd = standing.lab.server.sshd
    outlived(standing, "sshd and its children killed, away 5 s", ticker, sshd.crash,
             waited(5, sshd.start))  # fmt: skip


def test_a_frozen_sshd_is_noticed(standing: Vpn, ticker: Ticker) -> None:
    server = standing.lab.server

    def sessions() -> list[int]:
        return [
            pid
            for pid, line in server.processes().items()
            if "sshd: " in line and "listener" not in line
        ]

    def freeze() -> None:
        for pid in sessions():
            server.kill(pid, signal.SIGSTOP)

    noticed = partial(wait_until, lambda: standing.record()["state"] != "running", 15, every=0.1)
    outlived(standing, "the server's sshd frozen", ticker, freeze, noticed)
    for pid in sessions():
        server.kill(pid, signal.SIGCONT)
    wait_until(lambda: len(server.sshd.sessions()) == 1, 20)


def test_a_server_that_was_rebooted_is_set_up_anew(standing: Vpn, ticker: Ticker) -> None:
    server = standing.lab.server
    outlived(standing, "the server rebooted, away 12 s", ticker, partial(lose_all, server),
             waited(12, server.sshd.start))  # fmt: skip
    assert standing.unreachable(standing.everything()) == []


def lose_all(server: LabMachine) -> None:
    """Take from SERVER what it has in memory: it says no word, and forgets devices and rules."""
    server.nft(dropping("off", 'oifname "wan0"'))
    server.sshd.crash()
    words = ("/bin/sh -c", "sshvpn")
    for pid, line in server.processes().items():
        if any(word in line for word in words):
            server.kill(pid)
    script = """
    for device in /proc/sys/net/ipv4/conf/sshvpn*; do
      [ -e "$device" ] && ip link delete "${device##*/}"
    done
    for of in inner0 wan0; do echo 0 >/proc/sys/net/ipv4/conf/$of/forwarding; done
    echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
    rm -rf /run/sshvpn* /tmp/sshvpn* /dev/shm/sshvpn*
    nft flush ruleset
    """
    server.run(["sh", "-c", script], user="root")


# This machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("asleep_s", [4.0, ASLEEP_S])
def test_a_machine_that_slept_is_back_at_once(
    standing: Vpn, ticker: Ticker, asleep_s: float
) -> None:
    """All its processes stand still, and the server hears nothing of it."""
    wakes: list[Callable[[], None]] = []

    def sleep() -> None:
        wakes.append(fall_asleep(standing.lab))

    def wake() -> None:
        wakes.pop()()

    within_s = asleep_s + NOTICED_WITHIN_S
    what = f"the machine asleep for {asleep_s:.0f} s"
    end = waited(asleep_s, wake)
    outlived(standing, what, ticker, sleep, end, noticed_within_s=within_s)


def test_an_address_that_is_changed_is_followed(standing: Vpn, ticker: Ticker) -> None:
    lab = standing.lab
    numbers = iter((11, 12, 13))
    at = [10]

    def change() -> None:
        number = next(numbers)
        lab.gateway.ip("address", "delete", f"203.0.113.{at[0]}/24", "dev", "wan0")
        lab.gateway.ip("-6", "address", "delete", f"2001:db8:113::{at[0]}/64", "dev", "wan0")
        at[0] = number
        lab.gateway.ip("address", "add", f"203.0.113.{number}/24", "dev", "wan0")
        lab.gateway.ip("-6", "address", "add", f"2001:db8:113::{number}/64", "dev", "wan0", "nodad")
        for family, router in (("-4", "203.0.113.1"), ("-6", "2001:db8:113::1")):
            lab.gateway.ip(family, "route", "replace", "default", "via", router, "dev", "wan0")

    try:
        outlived(standing, "this machine's address changed", ticker, change)
    finally:
        numbers = iter((10,))
        if at[0] != 10:
            before = standing.record()["reconnects"]
            change()
            wait_until(lambda: standing.record()["reconnects"] > before, 30, every=0.1)
    settled(standing)

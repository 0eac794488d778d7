"""`sshvpn forward` through outages, each with its time measured.

gateway                                     server
curl ──> localhost:9001, 9002 ══ssh══ [ cut ] ══ sshd ──> localhost:8888
          openssh, sshtunnel
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pytest

from tests.e2e.office import Office
from tests.e2e.outage import (
    BACK_WITHIN_S,
    MOST_S,
    NOTICED_WITHIN_S,
    TRIES,
    USUAL_S,
    dropping,
    fall_asleep,
    silent_resolver,
    tell,
    wait_became,
)
from tests.lab import Lab, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.timed]

PORTS: Final = {"openssh": 9001, "sshtunnel": 9002}
ASLEEP_S: Final = 12.0


@pytest.fixture(scope="module")
def standing() -> Iterator[Office]:
    """Return an office with a forward by each engine, called like it."""
    with Lab() as lab:
        office = Office(lab)
        office.web()
        for engine, port in PORTS.items():
            office.forward("server", f"{port}:8888", "--engine", engine, "--name", engine)
        yield office
        office.sshvpn("down", "--all")
        lab.server.sshd.kill_sessions()  # which may not have heard yet that nobody is there
        lab.check()


def outlived(
    office: Office, what: str, begin: Callable[[], None], end: Callable[[], None], *names: str,
    noticed_within_s: float = NOTICED_WITHIN_S,
) -> None:  # fmt: skip
    """Assert that NAMES notice what BEGIN does, and are back soon after END."""
    told = []
    for _ in range(TRIES):
        began = time.time()
        begin()
        for name in names:
            wait_became(partial(office.logs, name), "backoff", began, noticed_within_s + 10)
        end()
        ended = time.time()
        is_well = True
        for name in names:
            log = partial(office.logs, name)
            lost = wait_became(log, "backoff", began)
            noticed = lost - began
            back = wait_became(log, "running", lost)
            told.append(f"forward by {name}, {what}: noticed after {noticed:.1f} s, running "
                        f"{back - ended:.2f} s after the way was back")  # fmt: skip
            tell(told[-1])
            is_well &= noticed <= noticed_within_s and (
                back - ended <= BACK_WITHIN_S
                or back - ended <= BACK_WITHIN_S + _allowance_s(office, name)
            )
            assert "notebook" in office.fetch(f"http://localhost:{PORTS[name]}/")
        if is_well:
            return
    raise AssertionError("\n".join(told))


def _allowance_s(office: Office, name: str) -> float:
    """As for a tunnel; see outage.is_within."""
    started = time.time()
    (pid,) = [record["pid"] for record in office.status() if record["name"] == name]
    office.gateway.kill(pid, signal.SIGHUP)
    back = wait_became(partial(office.logs, name), "running", started)
    return min(max(0.0, back - started - USUAL_S), MOST_S)


def test_a_silent_cut(standing: Office) -> None:
    lab = standing.lab
    outlived(standing, "packets dropped", lab.cut, lab.restore, *PORTS)


def test_a_server_that_goes_and_comes(standing: Office) -> None:
    sshd = standing.server.sshd
    outlived(standing, "sshd killed", sshd.crash, sshd.start, *PORTS)


def test_a_server_that_was_rebooted(standing: Office) -> None:
    """It says no word as it goes, and knows of no connection when it is back."""
    server = standing.server

    def go() -> None:
        server.nft(dropping("off", 'oifname "wan0"'))
        server.sshd.crash()

    def come() -> None:
        server.nft("delete table inet off")
        server.sshd.start()

    outlived(standing, "the server rebooted", go, come, *PORTS)


def test_a_machine_that_slept(standing: Office) -> None:
    """Meanwhile the server has given the connections up, and could tell nobody."""
    lab = standing.lab

    def sleep() -> None:
        wake = fall_asleep(lab)
        lab.server.sshd.kill_sessions()
        time.sleep(ASLEEP_S)  # what is tested
        wake()

    noticed_within_s = ASLEEP_S + NOTICED_WITHIN_S
    what = f"the machine asleep for {ASLEEP_S:.0f} s"
    outlived(standing, what, sleep, lambda: None, *PORTS, noticed_within_s=noticed_within_s)


def test_a_link_that_is_unplugged(standing: Office) -> None:
    """No byte arrives, as in a silent cut; that there is a link again the kernel tells."""
    lab = standing.lab
    unplug = partial(lab.cut, silent=False)
    outlived(standing, "link unplugged", unplug, lab.restore, *PORTS)


def test_an_ssh_that_is_killed(standing: Office) -> None:
    def kill() -> None:
        standing.gateway.kill(standing.ssh_pid(), signal.SIGKILL)

    outlived(standing, "ssh killed", kill, lambda: None, "openssh")


def test_an_ssh_that_is_frozen(standing: Office) -> None:
    """Its listeners would go on taking connections, and nothing would answer."""

    def freeze() -> None:
        standing.gateway.kill(standing.ssh_pid(), signal.SIGSTOP)

    outlived(standing, "ssh frozen", freeze, lambda: None, "openssh")


def test_another_address_of_this_machine(standing: Office) -> None:
    gateway = standing.gateway
    numbers = [11, 10] * TRIES
    at = [10]

    def change() -> None:
        number = numbers.pop(0)
        gateway.ip("address", "delete", f"203.0.113.{at[0]}/24", "dev", "wan0")
        gateway.ip("-6", "address", "delete", f"2001:db8:113::{at[0]}/64", "dev", "wan0")
        at[0] = number
        gateway.ip("address", "add", f"203.0.113.{number}/24", "dev", "wan0")
        gateway.ip("-6", "address", "add", f"2001:db8:113::{number}/64", "dev", "wan0", "nodad")
        for family, router in (("-4", "203.0.113.1"), ("-6", "2001:db8:113::1")):
            gateway.ip(family, "route", "replace", "default", "via", router, "dev", "wan0")

    try:
        outlived(standing, "this machine's address changed", change, lambda: None, *PORTS)
    finally:
        if at[0] != 10:
            before = {name: standing.logs(name).count("INFO running") for name in PORTS}
            change()
            wait_until(lambda: all(standing.logs(name).count("INFO running") > before[name]
                                   for name in PORTS), 30)  # fmt: skip


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "unplugged"])
def test_a_default_route_that_moves_to_another_adapter(lab: Lab, silent: bool) -> None:
    lab.add_uplink()
    office = Office(lab)
    office.web()
    for engine, port in PORTS.items():
        words = (f"{port}:8888", "--engine", engine, "--name", engine)
        office.forward("198.51.100.20", *words)

    def move() -> None:
        lab.cut(silent=silent)
        lab.gateway.ip("route", "replace", "default", "via", "203.0.114.1", "dev", "wan1")

    what = f"default route moved, the old way {'silent' if silent else 'unplugged'}"
    outlived(office, what, move, lambda: None, *PORTS)
    lab.restore()
    lab.gateway.ip("route", "replace", "default", "via", "203.0.113.1", "dev", "wan0")
    office.sshvpn("down", "--all")
    lab.server.sshd.kill_sessions()  # those of the old way have not heard that nobody is there


def test_a_resolver_that_says_nothing_at_the_start_is_waited_for(lab: Lab) -> None:
    office = Office(lab)
    office.web()
    words = ("forward", "-b", "server", "9001:8888", "--timeout", "60")
    with silent_resolver(lab):
        office.refused(6, *words[:-1], "3")
        child = office.start(lab.sshvpn_argv(*words))
        office.wait_state("backoff", code="unresolved", timeout=60)
    office.wait_state("running", timeout=30)
    assert child.wait(20) == 0
    assert "notebook" in office.fetch("http://localhost:9001/")
    office.sshvpn("down")


def test_a_resolver_that_falls_silent_does_not_keep_a_forward_away(lab: Lab) -> None:
    office = Office(lab)
    office.web()
    office.forward("server", "9001:8888")
    with silent_resolver(lab):
        started = time.time()
        lab.server.sshd.kill_sessions()
        lost = wait_became(office.logs, "backoff", started, 10)
        back = wait_became(office.logs, "running", lost, 30)
        tell(f"sessions killed, no resolver: running after {back - started:.1f} s")
        assert 0 < back - started < 10
        assert "notebook" in office.fetch("http://localhost:9001/")
        office.sshvpn("down")


def test_a_port_at_the_server_is_had_again_once_sshd_has_noticed(lab: Lab) -> None:
    """The old session holds it until then: nobody can end that from here."""
    office = Office(lab)
    lab.server.sshd.restart(ClientAliveInterval="3", ClientAliveCountMax="2")
    office.gateway.http_server(8888, title="at the gateway")
    office.forward("server", "-R", "9999:8888")
    url = "http://localhost:9999/"
    assert office.answers(url, machine=office.server)
    lab.cut()
    office.wait_state("backoff", timeout=20)
    lab.restore()
    wait_until(lambda: office.answers(url, machine=office.server), 40)
    assert "at the gateway" in office.fetch(url, machine=office.server)
    assert office.only()["state"] == "running"
    office.sshvpn("down")

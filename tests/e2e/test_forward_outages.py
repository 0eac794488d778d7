"""`sshvpn forward` through outages, each with its time measured.

gateway                                     server
curl ──> localhost:9001, 9002 ══ssh══ [ cut ] ══ sshd ──> localhost:8888
          openssh, sshtunnel
"""

from __future__ import annotations

import datetime as dt
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.e2e.office import Office
from tests.e2e.outage import BACK_WITHIN_S, NOTICED_WITHIN_S, TRIES, USUAL_S, tell
from tests.lab import Lab, wait_until

pytestmark = pytest.mark.lab

PORTS: Final = {"openssh": 9001, "sshtunnel": 9002}


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


def since(office: Office, name: str, state: str, after: float) -> float | None:
    """Return when (seconds since the epoch) NAME became STATE first after AFTER, as it logs."""
    for line in office.logs(name).splitlines():
        match = re.match(rf"(\S+) \d+ INFO {state}\b", line)
        if match:
            at = dt.datetime.fromisoformat(match[1].replace("Z", "+00:00")).timestamp()
            if at >= after:
                return at
    return None


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
            wait_until(lambda: since(office, name, "backoff", began), noticed_within_s + 10)  # noqa: B023
        end()
        ended = time.time()
        is_well = True
        for name in names:
            lost = since(office, name, "backoff", began) or 0.0
            noticed = lost - began
            back = wait_until(lambda: since(office, name, "running", lost), 60, every=0.05)  # noqa: B023
            assert back is not None
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
    back = wait_until(lambda: since(office, name, "running", started), 60, every=0.05)
    assert back is not None
    return max(0.0, back - started - USUAL_S)


def test_a_silent_cut(standing: Office) -> None:
    lab = standing.lab
    outlived(standing, "packets dropped", lab.cut, lab.restore, *PORTS)


def test_a_server_that_goes_and_comes(standing: Office) -> None:
    sshd = standing.server.sshd
    outlived(standing, "sshd killed", sshd.crash, sshd.start, *PORTS)


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

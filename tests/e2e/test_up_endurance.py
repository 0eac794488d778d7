"""`sshvpn up` for long: a slow, full link is not taken for dead, and reconnects leave nothing.

lan ── gateway ══[ 1 Mbit/s ]══ server ── inner
        fd, processes,                    fd, processes,
        devices, rules, files             devices, rules, files
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest

from tests.e2e.outage import tell
from tests.e2e.vpn import SHARED, Vpn
from tests.lab import Lab, LabMachine, Wan, wait_until
from tests.lab.dump import difference
from tests.lab.machine import CHECKOUT
from tests.lab.snapshot import dumps_of

TRANSPORT: Final = os.environ.get("SSHVPN_TEST_TRANSPORT", "stream")
IS_LONG: Final = os.environ.get("SSHVPN_TEST_FAULTS") == "long"
pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600 if IS_LONG else 240)]
RECONNECTS: Final = 500 if IS_LONG else 20
"""Five hundred by `make faults`."""
WARM_UP: Final = 5
UPLOAD_S: Final = 60.0
SLOW: Final = Wan(rate_mbit=1, delay_ms=20)
"""With a queue as home routers have it, in which a packet waits for up to twelve seconds."""

_UPLOAD: Final = """
import socket, sys, time
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sent, end = 0, time.monotonic() + seconds
with socket.create_connection((host, port), 20) as sock:
    sock.settimeout(30)
    while time.monotonic() < end:
        sent += sock.send(bytes(65536))
print(sent)
"""


# A slow link ----------------------------------------------------------------------------------


def test_an_upload_that_fills_a_slow_link_is_not_taken_for_dead(
    wan_lab: Callable[[Wan], Lab],
) -> None:
    lab = wan_lab(SLOW)
    vpn = Vpn(lab, transport=TRANSPORT, services=False)
    lab.inner.tcp_server(7000, "::", kind="sink")
    vpn.up(*SHARED)
    before = vpn.record()
    started = time.monotonic()
    words = ["10.20.0.10", "7000", str(UPLOAD_S)]
    sent = int(lab.lan.python(_UPLOAD, *words, timeout=UPLOAD_S + 60))
    took = time.monotonic() - started
    after = vpn.record()
    tell(
        f"{took:.0f} s of upload at 1 Mbit/s: {sent / 1e6:.1f} MB, {after['reconnects']} reconnects"
    )
    assert sent > 1e6 * SLOW.rate_mbit / 8 * UPLOAD_S / 2 if SLOW.rate_mbit else sent
    assert (after["state"], after["reconnects"]) == ("running", 0)
    assert after["pid"] == before["pid"]
    vpn.down()


# Many reconnects ------------------------------------------------------------------------------


def test_reconnects_leave_nothing_that_piles_up(lab: Lab) -> None:
    vpn = Vpn(lab, transport=TRANSPORT)
    vpn.up(*SHARED)
    pid = int(vpn.record()["pid"])

    def reconnect(number: int) -> None:
        # Half of them end at the server, the others here.
        if number % 2:
            lab.server.sshd.kill_sessions()
        else:
            lab.gateway.kill(pid, signal.SIGHUP)
        wait_until(lambda: vpn.log().count(" INFO running\n") > number, 60, every=0.02)
        vpn.lab.gateway.run(["sh", "-c", ":"])

    started = time.monotonic()
    for number in range(1, WARM_UP + 1):
        reconnect(number)
    before = settled(vpn)
    for number in range(WARM_UP + 1, RECONNECTS + 1):
        # The log begins anew after a megabyte: what counts is what `status` says then.
        if number % 50 == 0:
            assert vpn.record()["reconnects"] == number - 1
        reconnect(number)
    after = settled(vpn)
    tell(f"{RECONNECTS} reconnects in {time.monotonic() - started:.0f} s: nothing piles up")
    assert vpn.record()["reconnects"] == RECONNECTS
    for what, was in before.items():
        if isinstance(was, str):
            assert difference(was, str(after[what]), what) == ""
        else:
            assert after[what] == was, what
    assert vpn.unreachable(vpn.everything()) == []
    vpn.down()


def settled(vpn: Vpn) -> dict[str, object]:
    """Return what both machines have of the tunnel, once what was on its way out has gone."""
    seen: list[dict[str, object]] = [{}]

    def is_steady() -> bool:
        seen.append(_counted(vpn))
        return seen[-1] == seen[-2]

    wait_until(is_steady, 30, every=1.0)
    return seen[-1]


def _counted(vpn: Vpn) -> dict[str, object]:
    lab = vpn.lab
    found: dict[str, object] = {}
    for name, text in dumps_of(lab.machines).items():
        # The server's device is another one each time: its number, its own link-local address.
        plain = re.sub(r"^\d+: ", "N: ", text, flags=re.MULTILINE)
        plain = re.sub(r"(stable_secret:|fe80::)[0-9a-f:]+", r"\1X", plain)
        found[f"{name}: devices, addresses, routes, rules, settings"] = "\n".join(
            sorted(plain.splitlines())
        )
    for machine in (lab.gateway, lab.server):
        processes = machine.processes()
        found[f"{machine.name}: processes"] = Counter(map(_kind, processes.values()))
        found[f"{machine.name}: descriptors"] = sum(
            _descriptors(machine, pid) for pid, line in processes.items() if "ssh" in line
        )
        found[f"{machine.name}: files"] = _files(machine)
    return found


def _kind(line: str) -> str:
    """Return a command line without what is another one each time: numbers, nonces."""
    return " ".join(word for word in line.split() if not any(c.isdigit() for c in word))


def _descriptors(machine: LabMachine, pid: int) -> int:
    try:
        return len(list((machine.host_path("/proc") / str(pid) / "fd").iterdir()))
    except OSError:
        return 0


def _files(machine: LabMachine) -> list[str]:
    places = ["/home", "/root", "/run", "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108
    # A checkout below /tmp is shown in every machine, and changes while the tests run.
    words = ["-path", str(CHECKOUT), "-prune", "-o", "-not", "-name", "*.pyc", "-print"]
    found = machine.run(["find", *places, *words], user="root", check=False)
    return sorted(found.stdout.splitlines())

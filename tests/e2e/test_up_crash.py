"""`sshvpn up` on a machine in trouble: a supervisor that is killed, full disks, no resolver.

gateway: supervisor ── helper (root)          resolver: takes questions and says nothing
           │ killed with -9                   /home/alice/.local/state, /run/user/1000: full
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.outage import silent_resolver, tell
from tests.e2e.vpn import INNER_HOSTS, SHARED, Vpn, either_transport
from tests.lab import Lab, LabMachine, wait_until

pytestmark = pytest.mark.lab

STATE: Final = "/home/alice/.local/state"
RUNTIME: Final = "/run/user/1000"


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes tunnels."""
    return Vpn(lab)


# Killed ---------------------------------------------------------------------------------------


def kill_supervisor(vpn: Vpn) -> None:
    """Kill it, and return when its helper and its ssh have gone with it."""
    gateway = vpn.lab.gateway
    killed = vpn.record()["pid"]
    started = time.monotonic()
    gateway.kill(killed, signal.SIGKILL)

    def is_gone() -> bool:
        words = ("sshvpn.background", "sshvpn.privileged", "ssh -w", "ssh -T -S")
        running = gateway.processes().values()
        return not any(word in line for line in running for word in words)

    wait_until(is_gone, 10, what=f"it lives on: {gateway.processes()}")
    wait_until(lambda: "sshvpn" not in gateway.ip("link"), 10, what="the device is left")
    tell(f"supervisor killed: nothing of it here after {time.monotonic() - started:.1f} s")


@pytest.mark.parametrize("then", ["up", "down", "clean"])
def test_after_a_supervisor_that_was_killed_nothing_is_left_and_all_works(
    vpn: Vpn, then: str
) -> None:
    lab = vpn.lab
    vpn.up(*SHARED)
    kill_supervisor(vpn)
    assert "sshvpn" not in lab.gateway.run(["nft", "list", "ruleset"], user="root").stdout
    assert lab.gateway.ip("route", "show", "table", "all", "type", "unreachable") == ""
    assert lab.sshvpn("status").stdout.strip() == "nothing is up"
    if then == "up":
        started = time.monotonic()
        vpn.up(*SHARED)
        tell(f"supervisor killed: up again in {time.monotonic() - started:.1f} s")
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()
        return
    if then == "down":
        result = lab.sshvpn("down", "server", check=False)
        assert (result.returncode, len(result.stderr.splitlines())) == (3, 2), result
    lab.sshvpn("clean")
    assert not lab.gateway.exists(f"{RUNTIME}/sshvpn")


@either_transport
def test_a_supervisor_that_is_killed_while_the_server_is_away_leaves_nothing_here(
    lab: Lab, transport: str | None
) -> None:
    vpn = Vpn(lab, transport=transport)
    vpn.up(*SHARED)
    lab.cut(silent=False)
    lab.gateway.kill(vpn.record()["pid"], signal.SIGHUP)
    wait_until(lambda: vpn.record()["state"] in ("backoff", "starting"), 10)
    kill_supervisor(vpn)
    lab.restore()
    vpn.up(*SHARED)
    assert vpn.unreachable(vpn.everything()) == []
    vpn.down()
    lab.sshvpn("clean")


# Full -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def tiny(machine: LabMachine, path: str) -> Iterator[None]:
    """Put a file system of 64 KiB at PATH of alice's, and fill it."""
    machine.run(["mkdir", "-p", path])
    size = "size=64k,mode=700,uid=1000,gid=1000"
    machine.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", path], user="root")
    try:
        yield
    finally:
        machine.run(["umount", "-l", path], user="root")
        machine.run(["rmdir", path], check=False)


def fill(machine: LabMachine, path: str) -> None:
    """Leave no byte and no directory entry at PATH."""
    machine.run(["sh", "-c", f"cat /dev/zero >{path}/full; :"], check=False)


def test_a_disk_that_fills_up_while_it_runs_changes_nothing(vpn: Vpn) -> None:
    lab = vpn.lab
    with tiny(lab.gateway, STATE):
        vpn.up(*SHARED)
        fill(lab.gateway, STATE)
        for number in (1, 2):
            started = time.monotonic()
            lab.server.sshd.kill_sessions()
            wait_until(lambda: vpn.record()["reconnects"] == number, 20, every=0.1)  # noqa: B023
            wait_until(lambda: vpn.record()["state"] == "running", 20, every=0.1)
            took = time.monotonic() - started
            tell(f"sessions killed while the disk is full: running again after {took:.1f} s")
            assert vpn.unreachable(vpn.everything()) == []
        vpn.down()
        assert lab.sshvpn("status").stdout.strip() == "nothing is up"


def test_a_run_time_directory_that_fills_up_is_outlived(vpn: Vpn) -> None:
    lab = vpn.lab
    place = f"{RUNTIME}/sshvpn"
    with tiny(lab.gateway, place):
        vpn.up(*SHARED)
        fill(lab.gateway, place)
        lab.server.sshd.kill_sessions()
        wait_until(lambda: vpn.record()["reconnects"] == 1, 30, every=0.1)
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()
        lab.gateway.run(["rm", "-f", f"{place}/full"])


def test_a_start_on_a_full_disk_works_or_says_what_is_full(vpn: Vpn) -> None:
    lab = vpn.lab
    with tiny(lab.gateway, STATE):
        fill(lab.gateway, STATE)
        result = lab.sshvpn("up", *SHARED, check=False)
        assert result.returncode == 0, result
        assert "Traceback" not in result.stderr
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()


# The resolver ---------------------------------------------------------------------------------


def test_a_resolver_that_says_nothing_at_the_start_is_told_in_time(vpn: Vpn) -> None:
    with silent_resolver(vpn.lab):
        started = time.monotonic()
        result = vpn.lab.sshvpn("up", "server", "--no-lan", "--timeout", "3", check=False)
        took = time.monotonic() - started
    assert result.returncode == 6, result
    assert len(result.stderr.splitlines()) <= 2
    assert took < 8


def _last_error(vpn: Vpn) -> str | None:
    tunnels = json.loads(vpn.lab.sshvpn("status", "--json").stdout)["tunnels"]
    errors = [tunnel["last_error"]["code"] for tunnel in tunnels if tunnel["last_error"]]
    return errors[0] if errors else None


def test_a_resolver_that_answers_later_is_waited_for(vpn: Vpn) -> None:
    with silent_resolver(vpn.lab):
        child = vpn.lab.gateway.popen(
            vpn.lab.sshvpn_argv("up", "server", "--lan", "--route", "10.20.0.0/24", "--foreground")
        )
        wait_until(lambda: _last_error(vpn) == "unresolved", 60, every=0.1)
    started = time.monotonic()
    wait_until(lambda: vpn.record()["state"] == "running", 30, every=0.1)
    took = time.monotonic() - started
    tell(f"no resolver at the start: running {took:.1f} s after it answers")
    assert took < 15
    assert vpn.unreachable({f"http://{INNER_HOSTS[0]}:8000/": "inner"}) == []
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0


@pytest.mark.parametrize("transport", ["stream", "w"])
def test_a_resolver_that_falls_silent_does_not_keep_a_tunnel_away(lab: Lab, transport: str) -> None:
    vpn = Vpn(lab, transport=transport)
    vpn.up(*SHARED)
    with silent_resolver(lab):
        started = time.monotonic()
        lab.server.sshd.kill_sessions()
        wait_until(lambda: vpn.record()["reconnects"] == 1, 60, every=0.1)
        wait_until(lambda: vpn.record()["state"] == "running", 60, every=0.1)
        took = time.monotonic() - started
        tell(f"sessions killed, {transport}, no resolver: running after {took:.1f} s")
        assert took < 10
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()

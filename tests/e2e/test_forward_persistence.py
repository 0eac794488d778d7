"""A forward outlives its connection: whatever ends it, and whoever.

gateway                                      server
curl ──> localhost:9999 ══ssh══ [ link ] ══ sshd ──> localhost:8888
  supervisor ── ssh                 cut       killed, restarted, another host key
  killed, HUP, TERM   killed, frozen
"""

from __future__ import annotations

import datetime as dt
import re
import signal
import time
from functools import partial

import pytest

from tests.e2e.office import HOME, Office, tell_end
from tests.e2e.sessions import RUNTIME
from tests.lab import LabMachine, wait_until
from tests.lab.machine import CHECKOUT

URL = "http://localhost:9999/"
LISTEN = ["127.0.0.1:9999", "[::1]:9999"]
ENGINES = {"openssh": 9001, "sshtunnel": 9002}


@pytest.fixture
def office(office: Office) -> Office:
    """Return the shared laboratory with a page to forward; sshd runs again at a test's end."""
    office.web()
    return office


def forward(office: Office, engine: str, *args: str) -> int:
    """Forward 9999 to the page in the background, and return the supervisor's process."""
    office.forward("server", "9999:8888", "--engine", engine, *args)
    assert "notebook" in office.fetch(URL)
    return int(office.only()["pid"])


def forward_by_both(office: Office) -> dict[str, int]:
    """Start one forward by each engine, called like it; return their supervisors' processes."""
    for engine, port in ENGINES.items():
        office.forward("server", f"{port}:8888", "--engine", engine, "--name", engine)
    return {record["name"]: record["pid"] for record in office.status()}


def is_carried_by_both(office: Office) -> bool:
    """Whether both of `forward_by_both` lead to the page."""
    return all("notebook" in office.fetch(f"http://localhost:{port}/") for port in ENGINES.values())


def starts(office: Office, name: str) -> int:
    """Return how often the forward NAME has come up so far."""
    return office.logs(name).count(" INFO running\n")


def at(text: str) -> float:
    """Return a point in time of ``status --json`` in seconds since the epoch."""
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# The server -----------------------------------------------------------------------------------


def test_a_server_that_goes_is_waited_for_and_found_again_on_the_same_port(
    office: Office, engine: str
) -> None:
    pid = forward(office, engine)
    began = office.only()
    office.server.sshd.crash()
    away = office.wait_state("backoff", code="unreachable")
    assert away["reconnects"] == 0
    assert away["pid"] == pid
    assert away["retry_at"] > away["since"] > began["since"]
    assert office.listening() == set(), "what leads nowhere is refused at once"
    office.server.sshd.start()
    back = office.wait_state("running", reconnects=1)
    assert back["listen"] == LISTEN
    assert back["since"] > away["since"]
    assert back["retry_at"] is None
    assert back["last_error"] is None
    assert "notebook" in office.fetch(URL)
    told = [line.split(" INFO ")[1] for line in office.logs().splitlines() if " INFO " in line]
    words = [line.split(":")[0] for line in told]
    assert [word for word in words if word in ("starting", "running", "backoff")][:4] == [
        "starting", "running", "backoff", "starting",
    ]  # fmt: skip
    office.sshvpn("down")


def test_any_free_port_stays_what_it_was(office: Office, engine: str) -> None:
    office.forward("server", "0:8888", "--engine", engine)
    before = office.only()["listen"]
    office.server.sshd.kill_sessions()
    assert office.wait_state("running", reconnects=1)["listen"] == before
    office.sshvpn("down")


def test_a_restart_of_sshd_leaves_what_runs_alone(office: Office, engine: str) -> None:
    forward(office, engine)
    office.server.sshd.restart()
    assert "notebook" in office.fetch(URL)
    assert office.only()["reconnects"] == 0
    office.server.sshd.kill_sessions()
    office.wait_state("running", reconnects=1)
    assert "notebook" in office.fetch(URL)
    office.sshvpn("down")


def test_another_host_key_ends_it_until_a_person_looks(own_office: Office, engine: str) -> None:
    office = own_office
    office.web()
    forward(office, engine)
    office.server.sshd.change_host_keys()
    office.server.sshd.kill_sessions()
    failed = office.wait_state("failed", code="host_key_changed")
    assert failed["retry_at"] is None
    assert failed["listen"] == []
    assert office.listening() == set()
    assert "failed" in office.sshvpn("status", "server").stdout
    office.sshvpn("down", "server")
    assert office.status() == []


def test_a_login_that_is_taken_away_ends_it(own_office: Office, engine: str) -> None:
    office = own_office
    office.web()
    forward(office, engine)
    office.server.run(["rm", f"{HOME}/.ssh/authorized_keys"])
    office.server.sshd.kill_sessions()
    office.wait_state("failed", code="auth_refused")
    assert office.sshvpn("status", "server").returncode == 0
    office.sshvpn("down")


def test_a_server_that_is_down_at_the_start_is_waited_for(office: Office, engine: str) -> None:
    office.server.sshd.crash()
    argv = office.lab.sshvpn_argv("forward", "-b", "server", "9999:8888", "--engine", engine)
    child = office.start(argv)
    office.wait_state("backoff", code="unreachable")
    office.server.sshd.start()
    code, out, err = tell_end(child)
    assert (code, out, err) == (0, f"{URL} -> server localhost:8888\n", "")
    assert "notebook" in office.fetch(URL)
    assert office.only()["reconnects"] == 0
    office.sshvpn("down")


def test_a_first_start_that_takes_too_long_is_undone(office: Office, engine: str) -> None:
    office.server.sshd.crash()
    told = office.refused(
        6, "forward", "-b", "server", "9999:8888", "--engine", engine, "--timeout", "1.5"
    )
    assert "refused" in told
    assert office.status() == []
    assert not office.gateway.exists(RUNTIME)
    office.server.sshd.start()


# The link -------------------------------------------------------------------------------------


def test_a_link_that_is_silent_or_down_is_noticed_and_outlived(office: Office) -> None:
    pids = forward_by_both(office)
    for number, silent in enumerate((True, False), start=1):
        office.lab.cut(silent=silent)
        for name in ENGINES:
            office.wait_state("backoff", name=name)
            assert office.listening() == set() or name == "openssh"
        office.lab.restore()
        for name in ENGINES:
            back = office.wait_state("running", name=name, reconnects=number, timeout=60)
            assert back["pid"] == pids[name]
        assert is_carried_by_both(office)
    office.sshvpn("down", "--all")
    office.server.sshd.kill_sessions()  # which have not heard yet that nobody is there


def test_a_short_cut_costs_nothing(office: Office, engine: str) -> None:
    office.server.tcp_server(7000)
    office.forward("server", "9999:7000", "--engine", engine)
    stream = office.talk("localhost", 9999)
    assert stream.is_answered("before")
    for silent in (True, False):
        office.lab.cut(silent=silent)
        office.lab.restore()
        assert stream.is_answered(f"{silent}")
    assert office.only()["reconnects"] == 0
    office.sshvpn("down")


# The processes --------------------------------------------------------------------------------


def test_an_ssh_that_is_killed_is_started_anew(office: Office) -> None:
    forward(office, "openssh")
    before = office.ssh_pid()
    office.gateway.kill(before)
    office.wait_state("running", reconnects=1)
    assert office.ssh_pid() != before
    assert "notebook" in office.fetch(URL)
    office.sshvpn("down")


def test_an_ssh_that_is_frozen_holds_up_neither_a_reconnect_nor_the_end(office: Office) -> None:
    pid = forward(office, "openssh")
    frozen = office.ssh_pid()
    office.gateway.kill(frozen, signal.SIGSTOP)
    office.gateway.kill(pid, signal.SIGHUP)
    office.wait_state("running", reconnects=1)
    assert office.ssh_pid() != frozen
    assert "notebook" in office.fetch(URL)
    office.gateway.kill(office.ssh_pid(), signal.SIGSTOP)
    office.sshvpn("down")


def test_a_supervisor_that_is_killed_takes_all_with_it(office: Office, engine: str) -> None:
    pid = forward(office, engine)
    office.gateway.kill(pid)
    wait_until(lambda: not office.pids("ssh -N -T"))
    wait_until(lambda: not office.listening())
    assert office.sshvpn("status").stdout.strip() == "nothing is up"
    again = forward(office, engine)
    assert again != pid
    assert office.only()["reconnects"] == 0
    office.sshvpn("down")
    assert not office.gateway.exists(RUNTIME)


def test_hang_up_reconnects_now_and_out_of_a_long_wait_too(office: Office, engine: str) -> None:
    pid = forward(office, engine)
    office.gateway.kill(pid, signal.SIGHUP)
    office.wait_state("running", reconnects=1)
    office.server.sshd.crash()
    retry_at = wait_until(lambda: _far_retry(office), 30) or 0.0
    office.server.sshd.start()
    office.gateway.kill(pid, signal.SIGHUP)
    back = office.wait_state("running", reconnects=2)
    assert at(back["since"]) < retry_at
    office.sshvpn("down")


def _far_retry(office: Office) -> float | None:
    """Return when the only forward tries again, if that is seconds away."""
    record = office.only()
    retry_at = at(record["retry_at"]) if record["retry_at"] else 0.0
    return retry_at if retry_at - time.time() > 3.0 else None


def test_terminate_ends_it_and_leaves_nothing(office: Office, engine: str) -> None:
    pid = forward(office, engine)
    office.gateway.kill(pid, signal.SIGTERM)
    wait_until(lambda: not office.pids("sshvpn.background"))
    assert office.status() == []
    assert office.listening() == set()
    assert not office.gateway.exists(RUNTIME)
    assert office.logs().rstrip().endswith("INFO ended")


def test_a_port_that_was_taken_meanwhile_is_waited_for(office: Office, engine: str) -> None:
    forward(office, engine)
    office.server.sshd.crash()
    office.wait_state("backoff", code="unreachable")
    squatter = office.gateway.tcp_server(9999)
    office.server.sshd.start()
    waits = office.wait_state("backoff", code="taken")
    assert "9999" in waits["last_error"]["message"]
    assert office.listening() == {"127.0.0.1:9999"}
    squatter.stop()
    assert office.wait_state("running", reconnects=1)["listen"] == LISTEN
    assert "notebook" in office.fetch(URL)
    office.sshvpn("down")


# Nothing piles up -----------------------------------------------------------------------------


def test_twenty_reconnects_leave_nothing_that_piles_up(office: Office) -> None:
    pids = forward_by_both(office)

    def reconnect(number: int) -> None:
        office.server.sshd.kill_sessions()
        for pid in pids.values():
            office.gateway.kill(pid, signal.SIGHUP)
        wait_until(lambda: all(starts(office, name) > number for name in pids), 20)

    for number in (1, 2, 3):  # what is made once, when it is first wanted, is there then
        reconnect(number)
    # The session that asks for the server's end of the connection has come and gone.
    wait_until(lambda: all(one["congestion_control"]["notes"] for one in office.status()), 20)
    descriptors = [_descriptors(office.gateway, pid) for pid in pids.values()]
    threads = [_threads(office.gateway, pid) for pid in pids.values()]
    files = _files(office.gateway)
    running = _running(office.gateway)
    for number in range(4, 24):
        reconnect(number)
    assert is_carried_by_both(office)
    for pid, before in zip(pids.values(), descriptors, strict=True):
        wait_until(partial(_has_at_most, office.gateway, pid, before))
    for pid, before in zip(pids.values(), threads, strict=True):
        # Those that blocking calls run in come one by one, up to a few, and stay.
        assert _threads(office.gateway, pid) < before + 10
    wait_until(lambda: _running(office.gateway) == running)
    assert _files(office.gateway) == files
    assert {record["reconnects"] for record in office.status()} == {23}
    office.sshvpn("down", "--all")


def _running(machine: LabMachine) -> list[str]:
    """Return what runs; the control socket of each connection has the next number."""
    return sorted(re.sub(r"/mux\d+ ", "/mux ", line) for line in machine.processes().values())


def _has_at_most(machine: LabMachine, pid: int, descriptors: int) -> bool:
    return _descriptors(machine, pid) <= descriptors


def _descriptors(machine: LabMachine, pid: int) -> int:
    return len(list((machine.host_path("/proc") / str(pid) / "fd").iterdir()))


def _threads(machine: LabMachine, pid: int) -> int:
    return len(list((machine.host_path("/proc") / str(pid) / "task").iterdir()))


def _files(machine: LabMachine) -> list[str]:
    """Return all that is in alice's directories."""
    places = [HOME, "/run/user/1000", "/tmp"]  # noqa: S108
    # A checkout below /tmp is shown in every machine, and changes while the tests run.
    words = ["-path", str(CHECKOUT), "-prune", "-o", "-print"]
    found = machine.run(["find", *places, *words], check=False).stdout.splitlines()
    return sorted(re.sub(r"/mux\d+$", "/mux", path) for path in found)

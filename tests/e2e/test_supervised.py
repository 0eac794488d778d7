"""Under supervisors that are not systemd: a shell's loop, and whoever speaks sd_notify."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.office import HOME, Office
from tests.e2e.vpn import Vpn
from tests.lab import Child, Lab, wait_until

NOTIFY = f"{HOME}/notify"
LOOP = """
trap 'kill $child; wait $child; exit' TERM
while :; do
  {command} &
  child=$!
  wait $child
  echo "ended with $?"
done
"""


@pytest.fixture
def manager(office: Office) -> Iterator[socket.socket]:
    """Return a socket at which a service manager hears, in alice's home."""
    path = office.gateway.host_path(NOTIFY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        path.chmod(0o777)
        heard.settimeout(20)
        yield heard
    path.unlink()


def supervised(office: Office, *args: str) -> Child:
    """Start `sshvpn ARGS` in a loop of a shell, as a supervisor runs it."""
    command = " ".join(office.lab.sshvpn_argv(*args))
    return office.start(["sh", "-c", LOOP.format(command=command)])


def hear(manager: socket.socket, wanted: str) -> dict[str, str]:
    """Return the first message with WANTED in it."""
    while True:
        lines = manager.recv(4096).decode().splitlines()
        said = dict(line.split("=", 1) for line in lines)
        if wanted in said:
            return said


def test_a_loop_of_a_shell_keeps_a_forward_up(office: Office) -> None:
    office.web()
    loop = supervised(office, "forward", "server", "9999:8888")
    first = office.wait_state("running")
    office.gateway.run(["kill", "-KILL", str(first["pid"])])
    wait_until(lambda: office.status() and office.only()["pid"] != first["pid"], 20, every=0.1)
    office.wait_state("running")
    loop.send_signal(signal.SIGTERM)
    out, _ = loop.communicate(timeout=20)
    assert "ended with 137" in out
    office.wait_gone()


def test_a_loop_of_a_shell_keeps_a_tunnel_up(lab: Lab) -> None:
    vpn = Vpn(lab)
    office = Office(lab)
    loop = supervised(office, "up", "--foreground", "server", "--no-lan")

    def record() -> dict[str, object]:
        wait_until(lambda: office.pids("up --foreground"), what="not started")
        wait_until(lambda: lab.sshvpn("status").stdout.count("running") == 1, 20, every=0.2)
        return vpn.record()

    first = record()
    lab.gateway.run(["kill", "-KILL", str(first["pid"])])
    wait_until(lambda: record()["pid"] != first["pid"], 20, every=0.1)
    loop.send_signal(signal.SIGTERM)
    loop.communicate(timeout=20)
    office.wait_gone()


def test_a_manager_is_told_when_it_is_ready_how_it_stands_and_that_it_lives(
    office: Office, manager: socket.socket
) -> None:
    office.web()
    child = office.foreground(
        "server", "9999:8888", env={"NOTIFY_SOCKET": NOTIFY, "WATCHDOG_USEC": "600000"}
    )
    ready = hear(manager, "READY")
    assert ready["STATUS"].startswith("running: 127.0.0.1:9999")
    for _ in range(3):
        hear(manager, "WATCHDOG")
    child.send_signal(signal.SIGHUP)
    assert int(hear(manager, "RELOADING")["MONOTONIC_USEC"]) > 0
    assert hear(manager, "READY")["STATUS"].startswith("running")
    office.server.sshd.crash()
    waiting: dict[str, str] = {}
    while "next try" not in waiting.get("STATUS", ""):
        waiting = hear(manager, "STATUS")
    assert "READY" not in waiting
    office.server.sshd.start()
    hear(manager, "STATUS")
    child.send_signal(signal.SIGTERM)
    hear(manager, "STOPPING")
    assert child.wait(20) == 0


def test_what_it_starts_does_not_hear_of_the_manager(
    office: Office, manager: socket.socket
) -> None:
    office.web()
    child = office.foreground("server", "9999:8888", env={"NOTIFY_SOCKET": NOTIFY})
    hear(manager, "READY")
    environment = office.gateway.run(["cat", f"/proc/{office.ssh_pid()}/environ"]).stdout
    assert "PATH=" in environment
    assert "NOTIFY_SOCKET" not in environment
    child.send_signal(signal.SIGTERM)
    child.wait(20)


@pytest.mark.usefixtures("office")
def test_without_systemd_it_says_what_works_instead(office: Office) -> None:
    for name in ("server", "alice@server"):
        told = office.refused(1, "enable", name)
        assert "services need systemd" in told
        assert "sshvpn up --foreground" in told
    assert "is not enabled" in office.refused(3, "disable", "server")


def test_in_the_journal_the_log_is_not_said_twice(office: Office) -> None:
    """A stderr that JOURNAL_STREAM names gets the log, with priorities, and no file does."""
    office.web()
    journal = office.gateway.host_path(f"{HOME}/journal")
    journal.touch()
    os.chown(journal, 1000, 1000)
    found = journal.stat()
    with journal.open("w") as stderr:
        child = office.gateway.popen(
            office.lab.sshvpn_argv("forward", "server", "9999:8888"),
            env={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            stderr=stderr,
            stdout=subprocess.PIPE,
        )
        office.wait_state("running")
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=20)
    assert "<6>running\n" in journal.read_text()
    assert out == ""
    assert office.logs() == ""
    journal.unlink()


def late_adapter(lab: Lab) -> Iterator[None]:
    """Plug in an adapter `late0`, with an address, once what waits for it has been heard."""
    yield
    lab.gateway.ip("link", "add", "late0", "type", "veth", "peer", "name", "late1")
    for name in ("late0", "late1"):
        lab.gateway.ip("link", "set", name, "up")
    lab.gateway.ip("address", "add", "192.168.7.1/24", "dev", "late0")
    yield
    lab.gateway.ip("link", "delete", "late0")


def test_a_forward_waits_for_an_adapter_that_a_boot_brings_late(
    office: Office, manager: socket.socket
) -> None:
    office.web()
    words = ("server", "9999:8888", "--bind", "late0")
    assert "no adapter of this machine" in office.refused(2, "forward", *words)
    plug = late_adapter(office.lab)
    next(plug)
    child = office.foreground(*words, env={"NOTIFY_SOCKET": NOTIFY})
    while "late0 has no address" not in hear(manager, "STATUS")["STATUS"]:
        pass
    assert office.only()["last_error"]["code"] == "no_adapter"
    next(plug)
    assert "192.168.7.1:9999" in hear(manager, "READY")["STATUS"]
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    next(plug, None)


def test_a_tunnel_waits_for_an_adapter_that_a_boot_brings_late(lab: Lab) -> None:
    vpn = Vpn(lab)
    office = Office(lab)
    words = ("server", "--lan", "--lan-interface", "late0", "--lan-address", "192.168.7.9")
    refused = lab.sshvpn("up", "--foreground", *words, check=False)
    assert refused.returncode == 2
    plug = late_adapter(lab)
    next(plug)
    # Of a manager that hears nothing, what is told is not kept.
    child = office.start(
        [*lab.sshvpn_argv("up", "--foreground", *words)], env={"NOTIFY_SOCKET": "/nosuch"}
    )
    wait_until(lambda: "no_adapter" in lab.sshvpn("status", "--json").stdout, 20, every=0.2)
    next(plug)
    wait_until(lambda: vpn.record()["state"] == "running", 20, every=0.2)
    assert "192.168.7.9 dev late0" in lab.gateway.ip("neighbour", "show", "proxy")
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    next(plug, None)

"""The laboratory leaves no trace: what is left in it is found, and of itself nothing is left."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from tests.lab import (
    Lab,
    Wan,
    wait_until,
)

ROOT = pathlib.Path(__file__).parents[2]


def test_what_is_left_behind_is_found(lab: Lab) -> None:
    gateway = lab.gateway
    planted = {
        "route": (["ip", "route", "add", "blackhole", "192.0.2.0/24"], "192.0.2.0/24"),
        "rule": (["ip", "rule", "add", "from", "192.0.2.1", "table", "7"], "lookup 7"),
        "table": (["nft", "add", "table", "inet", "planted"], "table inet planted"),
        "sysctl": (["sysctl", "-qw", "net.ipv4.conf.lan0.forwarding=1"], "lan0/forwarding:1"),
        "neighbour": (
            ["ip", "neigh", "add", "proxy", "192.168.77.99", "dev", "lan0"],
            "192.168.77.99",
        ),
        "iptables": (["iptables", "-A", "FORWARD", "-j", "ACCEPT"], "-A FORWARD -j ACCEPT"),
        "file": (["touch", "/run/user/1000/sshvpn-0"], "/run/user/1000/sshvpn-0"),
        "process": (["sh", "-c", "sleep 77 >/dev/null 2>&1 &"], "sleep 77"),
    }
    for argv, _ in planted.values():
        before = lab.differences()
        gateway.run(argv, user="root")
        assert lab.differences() != before
    # Files and processes hide the rest: they are told first.
    problems = lab.differences()
    assert planted["file"][1] in problems
    assert planted["process"][1] in problems
    gateway.run(["sh", "-c", "rm /run/user/1000/sshvpn-0; pkill sleep"], user="root")
    wait_until(lambda: "sleep" not in lab.differences())
    problems = lab.differences()
    for name, (_, trace) in planted.items():
        assert name in ("file", "process") or trace in problems, name
    lab.checkpoint()
    assert lab.differences() == ""


def test_what_the_api_changed_is_undone_by_check(lab: Lab) -> None:
    lab.add_address("lan0", "192.168.77.2/24")
    lab.add_address("lan0", "fd77::2/64")
    lab.del_address("lan0", "192.168.77.1/24")
    lab.shape(Wan(delay_ms=1))
    lab.cut()
    lab.gateway.http_server(8080)
    lab.server.start_sshd(2222)
    lab.gateway.pty(["bash"])
    lab.check()


def test_laboratories_do_not_see_each_other_and_the_host_sees_none(
    make_lab: Callable[..., Lab],
) -> None:
    links = pathlib.Path("/sys/class/net")
    before = sorted(path.name for path in links.iterdir())
    accounts = pathlib.Path("/etc/passwd").read_bytes()
    one, other = make_lab(), make_lab()
    one.server.http_server(8080, "0.0.0.0")
    fetch = ["curl", "-sf", "http://server:8080/"]
    assert one.gateway.run(fetch).returncode == 0
    assert other.gateway.run(fetch, check=False).returncode != 0
    one.gateway.run(["useradd", "carol"], user="root")
    assert not other.gateway.exists("/home/carol")
    assert pathlib.Path("/etc/passwd").read_bytes() == accounts
    assert sorted(path.name for path in links.iterdir()) == before
    mounts = pathlib.Path("/proc/self/mounts").read_text()
    assert "lowerdir=/,upperdir=/sys" not in mounts


@pytest.mark.lab
def test_a_killed_test_run_leaves_no_process_and_no_namespace(tmp_path: pathlib.Path) -> None:
    code = textwrap.dedent("""
        import time
        from tests.lab import Lab, Wan
        lab = Lab(wan=Wan(delay_ms=1))
        left = lab.gateway.popen(["sleep", "99"])
        pids = [machine.pid for machine in lab.machines.values()]
        print(*pids, left.pid, lab.server.sshd.pid, flush=True)
        time.sleep(99)
    """)
    script = tmp_path / "run.py"
    script.write_text(code)
    child = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with child:
        assert child.stdout is not None
        pids = child.stdout.readline().split()
        namespaces = {str(pathlib.Path(f"/proc/{pid}/ns/net").readlink()) for pid in pids[:-2]}
        assert len(namespaces) == 5
        child.kill()
    wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids))
    # One that has lost its last process goes a moment later.
    wait_until(lambda: not namespaces & _network_namespaces(), what="a namespace is left")


def _network_namespaces() -> set[str]:
    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):
            found.add(str(path.readlink()))
    return found

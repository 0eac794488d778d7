"""`sshvpn routes`: what it prints is typed, or given to dnsmasq, and makes the routes.

::

    lan eth0 ── lan0 .1 gateway          192.168.77.0/24, fd77::/64
        eth9 ── lan9 .1 gateway          192.168.90.0/24, with dnsmasq; its router is .254

A tunnel stands in for itself: a session of alice's that has a tunnel's record and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab import Child, Lab, wait_until
from tests.lab.machine import ROOT_PATH
from tests.lab.process import read_line

SESSION = """
import asyncio, json, sys
from sshvpn.control import SessionDir
from sshvpn.control_server import ControlServer
from sshvpn.system import paths

async def main():
    snapshot = json.loads(sys.argv[1])
    with SessionDir(paths.runtime_dir(), snapshot["kind"], "1") as directory:
        await ControlServer(lambda: snapshot, {}).listen(directory.path / "control")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
LAN0 = [
    {"interface": "lan0", "network": "192.168.77.0/24", "address": "192.168.77.1"},
    {"interface": "lan0", "network": "fd77::/64", "address": "fd77::1"},
]
LAN9 = [{"interface": "lan9", "network": "192.168.90.0/24", "address": "192.168.90.1"}]
TUNNEL: Mapping[str, Any] = {
    "name": "office",
    "routes": ["10.20.0.0/16", "fd20::/48"],
    "remote_addresses": ["100.64.0.2/30", "fd5a::2/126"],
    "lan": LAN0,
}


@contextmanager
def session(lab: Lab, kind: str = "tunnel", **record: Any) -> Iterator[None]:
    """Let alice have one session on the gateway, whose record is TUNNEL's with RECORD."""
    snapshot = {"kind": kind, "name": "office", "records": [{**TUNNEL, **record}]}
    argv = [sys.executable, "-c", SESSION, json.dumps(snapshot)]
    child = lab.gateway.popen(argv, stdin=subprocess.PIPE)
    try:
        assert read_line(child, 20) == "ready\n"
        yield
        child.communicate(timeout=20)
    finally:
        child.end()


def routes_of(lab: Lab, family: str, interface: str) -> set[tuple[str, str]]:
    """Return destination and gateway of all routes of lan by INTERFACE that have a gateway."""
    found = json.loads(lab.lan.ip("-json", family, "route", "show", "dev", interface))
    return {(route["dst"], route["gateway"]) for route in found if "gateway" in route}


def test_the_lines_for_linux_make_the_routes(lab: Lab) -> None:
    before = routes_of(lab, "-4", "eth0"), routes_of(lab, "-6", "eth0")
    with session(lab):
        told = lab.sshvpn("routes", "office").stdout
        assert told == lab.sshvpn("routes", "office", "--format", "linux").stdout
    lab.lan.run(["sh", "-e"], user="root", input=told)
    four = routes_of(lab, "-4", "eth0") - before[0]
    six = routes_of(lab, "-6", "eth0") - before[1]
    assert four == {("10.20.0.0/16", "192.168.77.1"), ("100.64.0.2", "192.168.77.1")}
    assert six == {("fd20::/48", "fd77::1"), ("fd5a::2", "fd77::1")}
    lab.lan.run(["sh", "-e"], user="root", input=told.replace("route add", "route delete"))


@pytest.mark.parametrize("system", ["linux", "macos", "windows", "dnsmasq", "openwrt"])
def test_every_format_names_every_network(lab: Lab, system: str) -> None:
    with session(lab):
        told = lab.sshvpn("routes", "office", "--format", system).stdout
    for word in ("10.20.0.0", "100.64.0.2", "fd20::/48", "fd5a::2", "192.168.77.1"):
        assert word in told


# What is refused ------------------------------------------------------------------------------


def refused(lab: Lab, code: int, *words: str) -> str:
    done = lab.sshvpn("routes", *words, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 2
    return done.stderr


def test_what_has_no_routes_for_others_says_why(lab: Lab) -> None:
    assert "nothing called office is up" in refused(lab, 3, "office")
    with session(lab, "forward"):
        assert "office is a forward, and has no routes" in refused(lab, 2, "office")
    with session(lab, lan=[]):
        assert "office is not shared with a LAN" in refused(lab, 1, "office")
        assert "share it: sshvpn up office --lan" in refused(lab, 1, "office")
        assert "nothing called other is up" in refused(lab, 3, "other")
    with session(lab, lan=[], routes=[], remote_addresses=None):
        assert "office is not up yet" in refused(lab, 1, "office")
    refused(lab, 2, "office", "--format", "amiga")


def test_its_name_is_completed(lab: Lab) -> None:
    words = {
        "_SSHVPN_COMPLETE": "bash_complete",
        "COMP_WORDS": "sshvpn routes of",
        "COMP_CWORD": "2",
    }
    with session(lab):
        assert lab.sshvpn(env=words).stdout.split(",")[-1].strip() == "office"


# DHCP -----------------------------------------------------------------------------------------


def need(*programs: str) -> None:
    missing = [one for one in programs if shutil.which(one, path=ROOT_PATH) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed, and CI must run this: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def dhcp_lan(lab: Lab) -> Iterator[Lab]:
    """Join lan's eth9 and the gateway's lan9; the gateway knows the router of that network."""
    subprocess.run(
        ["ip", "link", "add", "lan9", "netns", str(lab.gateway.pid), "type", "veth",
         "peer", "name", "eth9", "netns", str(lab.lan.pid)],
        check=True,
    )  # fmt: skip
    lab.gateway.run(
        ["sh", "-ec", "ip address add 192.168.90.1/24 dev lan9; ip link set lan9 up;"
         " ip route add default via 192.168.90.254 dev lan9 metric 500"],
        user="root",
    )  # fmt: skip
    lab.lan.run(["sh", "-ec", "ip link set eth9 up; ip route delete default dev eth0"], user="root")
    yield lab
    lab.gateway.ip("link", "delete", "lan9")
    lab.lan.ip("route", "add", "default", "via", "192.168.77.1")


@contextmanager
def dnsmasq(lab: Lab, lines: str) -> Iterator[None]:
    """Run dnsmasq on the gateway's lan9 with LINES in its configuration."""
    own = "port=0\ninterface=lan9\nbind-interfaces\nleasefile-ro\nuser=root\n"
    own += "dhcp-range=192.168.90.100,192.168.90.150,1h\n"
    lab.gateway.write("/etc/dnsmasq-lab.conf", own + lines, "root")
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/etc/dnsmasq-lab.conf", "--pid-file"]
    child: Child = lab.gateway.popen(argv, user="root")
    try:
        sockets = ["ss", "-Hlun", "sport = :67"]
        wait_until(lambda: child.poll() is not None or lab.gateway.run(sockets).stdout)
        assert child.poll() is None, child.communicate()[1]
        yield
        child.send_signal(signal.SIGTERM)
        child.wait(10)
    finally:
        child.end()


def test_a_client_of_dnsmasq_has_the_routes_and_keeps_its_default_route(dhcp_lan: Lab) -> None:
    need("dnsmasq", "dhclient")
    lab = dhcp_lan
    with session(lab, lan=LAN9):
        told = lab.sshvpn("routes", "office", "--format", "dnsmasq").stdout
    client = ["dhclient", "-pf", "/run/dhclient.eth9.pid",
              "-lf", "/var/lib/dhcp/dhclient.eth9.leases"]  # fmt: skip
    with dnsmasq(lab, told):
        lab.lan.run([*client, "-1", "eth9"], user="root")
        found = routes_of(lab, "-4", "eth9")
        lab.lan.run([*client, "-r", "eth9"], user="root")
    assert found == {
        ("default", "192.168.90.254"),
        ("10.20.0.0/16", "192.168.90.1"),
        ("100.64.0.2", "192.168.90.1"),
    }


def test_old_windows_is_told_the_same(dhcp_lan: Lab) -> None:
    need("dnsmasq", "busybox")
    lab = dhcp_lan
    lab.lan.write("/root/told", '#!/bin/sh\n[ "$1" != bound ] || env >/root/env\n', "root", 0o700)
    with session(lab, lan=LAN9):
        told = lab.sshvpn("routes", "office", "--format", "dnsmasq").stdout
    with dnsmasq(lab, told):
        asked = ["-O", "staticroutes", "-O", "msstaticroutes", "-s", "/root/told"]
        lab.lan.run(["busybox", "udhcpc", "-i", "eth9", "-n", "-q", "-f", *asked], user="root")
    told_client = dict(line.split("=", 1) for line in lab.lan.read("/root/env").splitlines())
    assert told_client["msstaticroutes"] == told_client["staticroutes"]
    assert told_client["staticroutes"] == (
        "0.0.0.0/0 192.168.90.254 10.20.0.0/16 192.168.90.1 100.64.0.2/32 192.168.90.1"
    )


def test_dnsmasq_takes_as_many_routes_as_are_printed_and_no_router_that_was_forgotten(
    lab: Lab,
) -> None:
    need("dnsmasq")

    def accepted() -> bool:
        lab.gateway.write("/etc/dnsmasq-lab.conf", told, "root", 0o644)
        argv = ["dnsmasq", "--test", "--conf-file=/etc/dnsmasq-lab.conf"]
        return lab.gateway.run(argv, check=False, user="root").returncode == 0

    many = [f"10.{number}.0.0/16" for number in range(34)]
    with session(lab, routes=many, lan=LAN0[:1]):
        told = lab.sshvpn("routes", "office", "--format", "dnsmasq").stdout
    assert told.count("dhcp-option") == 2
    assert not accepted()
    told = told.replace("ROUTER,", "192.168.77.254,")
    assert accepted()

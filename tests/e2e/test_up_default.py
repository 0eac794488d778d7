"""`sshvpn up --route default`: everything goes through the tunnel, but ssh itself.

    lan ── lan0 gateway wan0 ─────── internet ──┬── server, at 198.51.100.20
                   ╚══ssh══════════════════════ │ ═══╝
                                                └── jump, at 198.51.100.30
    resolver, at the gateway ── dns ── one at the world, which knows the server's name
    "world" is 198.51.100.1 and 2001:db8:198::1, at the internet itself

The server and the jump host are where only the gateway's default route leads, so that ssh would
loop if it took the tunnel's.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.test_routes import need
from tests.e2e.test_up_faults import ssh_pids
from tests.e2e.vpn import Vpn, answers_ping, counted
from tests.lab import WORLD, WORLD6, Lab, LabMachine, wait_until
from tests.lab.contents import ALICE

pytestmark = pytest.mark.lab

FAR: Final = {"server": "198.51.100.20", "jump": "198.51.100.30"}
DEFAULT: Final = ("server", "--lan", "--route", "default")
LEAK6: Final = f'oifname "wan0" ip6 daddr {WORLD6}'
LOCAL: Final = "127.0.0.1"
NAME: Final = "gpu.example.com"
GROUP: Final = f"/sys/fs/cgroup/sshvpn-lab-{os.getpid()}"
"""The hierarchy is the host's own, whatever the namespaces, so the name must be of these tests."""


@pytest.fixture
def group(lab: Lab) -> Iterator[str]:
    """Return a cgroup of version 2, which the gateway finds where systemd would have it."""
    gateway = lab.gateway
    gateway.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"], user="root")
    gateway.run(["mkdir", GROUP], user="root")
    yield GROUP
    kill = f"test ! -d {GROUP} || echo 1 >{GROUP}/cgroup.kill"
    gateway.run(["sh", "-c", kill], user="root")
    remove = ["find", GROUP, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]
    wait_until(lambda: gateway.run(remove, user="root", check=False).returncode == 0, 5)


def far_away(lab: Lab) -> Vpn:
    """Return an office whose server, and jump host if there is one, are beyond a default route."""
    vpn = Vpn(lab)
    path = f"{ALICE.home}/.ssh/config"
    # It forwards, and tells nobody of shorter ways.
    settings = ["ip_forward=1", *(f"conf.{name}.send_redirects=0" for name in ("all", "wan"))]
    lab.internet.run(["sysctl", "-qw", *(f"net.ipv4.{one}" for one in settings)], user="root")
    for name in sorted(FAR.keys() & lab.machines.keys()):
        machine, address = lab.machines[name], FAR[name]
        machine.ip("address", "add", address, "dev", "lo")
        lab.internet.ip("route", "add", address, "via", machine.address)
        user = "root" if name == "server" else "alice"
        more = f"Host {name}\n  User {user}\n  HostName {address}\n  HostKeyAlias {name}\n"
        lab.gateway.write(path, more + lab.gateway.read(path))
    lab.checkpoint()
    return vpn


def up_in(group: str, lab: Lab, *args: str) -> str:
    """Run `sshvpn up ARGS` as alice's login shell would, were it in GROUP; return what it said."""
    environment = {**lab.gateway.env("alice"), "HOME": ALICE.home}
    words = [f"{name}={value}" for name, value in environment.items()]
    script = f'echo $$ >{group}/cgroup.procs && exec runuser -u alice -- env "$@"'
    argv = ["sh", "-c", script, "sh", *words, *lab.sshvpn_argv("up", *args)]
    return lab.gateway.run(argv, user="root", cwd=ALICE.home).stdout


def below(group: str, machine: LabMachine) -> list[str]:
    """Return the cgroups in GROUP."""
    found = machine.run(["find", group, "-mindepth", "1", "-type", "d"], user="root").stdout
    return found.split()


def assert_all_goes_through(vpn: Vpn, *machines: LabMachine) -> None:
    """Assert that what MACHINES send to the world comes out of the tunnel, and nothing else."""
    lab = vpn.lab
    leaks = [f'oifname "wan0" ip daddr {WORLD}', LEAK6]
    tun = vpn.far_device()
    crossing = [f'iifname "{tun}" ip daddr {WORLD}', f'iifname "{tun}" ip6 daddr {WORLD6}']
    with (
        counted(lab.gateway, "postrouting", *leaks) as leaked,
        counted(lab.server, "prerouting", *crossing) as crossed,
    ):
        for machine in machines:
            assert answers_ping(machine, WORLD), machine
            assert answers_ping(machine, WORLD6), machine
    assert leaked == [0, 0]
    assert crossed == [2 * len(machines)] * 2


def redial(vpn: Vpn) -> None:
    """End ssh, and wait for the next one: it must find its way while the routes stand."""
    (ssh,) = ssh_pids(vpn)
    vpn.lab.gateway.kill(ssh)
    wait_until(lambda: (vpn.record()["reconnects"], vpn.record()["state"]) == (1, "running"), 20)


@pytest.mark.parametrize(
    ("way", "transport"),
    [("", "auto"), ("", "w"), ("-J", "auto"), ("ProxyJump", "auto"), ("ProxyJump", "w")],
    ids=["direct", "direct-w", "-J", "ProxyJump", "ProxyJump-w"],
)
def test_everything_goes_through_the_tunnel_but_ssh(
    lab: Lab, group: str, way: str, transport: str
) -> None:
    if way:
        assert lab.jump.name in FAR, "it is built first"
    vpn = far_away(lab)
    if way == "ProxyJump":
        path = f"{ALICE.home}/.ssh/config"
        lab.gateway.write(path, f"Host server\n  {way} jump\n{lab.gateway.read(path)}")
    gateway = lab.gateway
    up_in(group, lab, *DEFAULT, "--transport", transport, *(["-J", "jump"] if way == "-J" else []))
    if way:
        assert lab.jump.sshd.sessions()
    assert_all_goes_through(vpn, lab.lan, gateway)
    assert len(below(group, gateway)) == 1
    redial(vpn)
    assert_all_goes_through(vpn, lab.lan, gateway)
    vpn.down()
    assert below(group, gateway) == []


@contextlib.contextmanager
def resolver(machine: LabMachine, address: str, *words: str) -> Iterator[None]:
    """Run dnsmasq on MACHINE, where it answers at ADDRESS; it keeps no answers."""
    common = ["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root"]
    common += ["--no-resolv", "--no-hosts", "--cache-size=0", "--bind-interfaces"]
    argv = ["dnsmasq", *common, f"--listen-address={address}", *words]
    child = machine.popen(argv, user="root")
    try:
        bound = ["ss", "-Hlun", f"src {address}:53"]
        wait_until(lambda: child.poll() is not None or machine.run(bound).stdout)
        assert child.poll() is None, child.communicate()[1]
        yield
    finally:
        child.end()


@pytest.mark.parametrize("transport", ["auto", "w"])
def test_a_server_whose_name_only_the_tunnel_resolves_is_found_again(
    lab: Lab, group: str, transport: str
) -> None:
    need("dnsmasq")
    vpn = far_away(lab)
    path = f"{ALICE.home}/.ssh/config"
    lab.gateway.write(path, f"Host {NAME}\n  User root\n{lab.gateway.read(path)}")
    lab.know(lab.server.sshd, names=[NAME])
    lab.checkpoint()
    known = f"--host-record={NAME},{FAR['server']}"
    asks = ["getent", "hosts", NAME]
    with resolver(lab.internet, WORLD, known), resolver(lab.gateway, LOCAL, f"--server={WORLD}"):
        up_in(group, lab, NAME, *DEFAULT[1:], "--transport", transport)
        redial(vpn)
        assert_all_goes_through(vpn, lab.lan, lab.gateway)
        assert lab.gateway.run(asks, user="root").stdout.split() == [FAR["server"], NAME]
        # Whoever answers at the last address must have the key of that name.
        lab.server.sshd.change_host_keys()
        lab.server.sshd.kill_sessions()
        wait_until(lambda: refused_by_key(vpn), 20)
        assert lab.gateway.run(asks, user="root", check=False).stdout == ""
        lab.know(lab.server.sshd, names=[NAME])
        wait_until(lambda: vpn.record()["state"] == "running", 30)
        vpn.down()


def refused_by_key(vpn: Vpn) -> bool:
    """Whether VPN waits for its name to resolve, since the last address has another host key."""
    record = vpn.record()
    error = record["last_error"] or {"message": "", "code": ""}
    return (record["state"], error["code"]) == ("backoff", "unresolved") and (
        "host key" in error["message"]
    )


@pytest.mark.parametrize("transport", ["auto", "w"])
@pytest.mark.parametrize("why", ["no way at the server", "none for new devices here"])
def test_ipv6_does_not_leak_where_the_tunnel_has_none(
    lab: Lab, group: str, why: str, transport: str
) -> None:
    vpn = far_away(lab)
    if why == "no way at the server":
        lab.server.ip("-6", "route", "delete", "default")
    else:
        argv = ["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"]
        lab.gateway.run(argv, user="root")
    lab.checkpoint()
    assert answers_ping(lab.gateway, WORLD6)
    up_in(group, lab, *DEFAULT, "--transport", transport)
    with counted(lab.gateway, "postrouting", LEAK6) as leaked:
        for machine in (lab.lan, lab.gateway):
            assert answers_ping(machine, WORLD)
            told = machine.run(["ping", "-n", "-c1", "-W2", WORLD6], check=False)
            assert re.search("unreachable|No route", told.stdout + told.stderr), machine
    assert leaked == [0]
    vpn.down()
    assert answers_ping(lab.gateway, WORLD6)


def test_a_dry_run_prints_the_cgroup_that_is_then_made(lab: Lab, group: str) -> None:
    vpn = far_away(lab)
    printed = up_in(group, lab, "--dry-run", *DEFAULT)
    assert below(group, lab.gateway) == []
    line = next(line for line in printed.splitlines() if line.startswith("mkdir "))
    made = line.split()[1]
    assert made.startswith(f"{group}/sshvpn_")
    assert f"echo $$ >{made}/cgroup.procs" in line
    rule = f'"{made.removeprefix("/sys/fs/cgroup/")}"'
    assert rule in printed
    up_in(group, lab, *DEFAULT)
    assert below(group, lab.gateway) == [made]
    assert rule in lab.gateway.run(["nft", "list", "ruleset"], user="root").stdout
    vpn.down()


def test_without_a_cgroup_the_lan_goes_through_and_the_user_does_not(lab: Lab) -> None:
    vpn = far_away(lab)
    vpn.up(*DEFAULT)
    assert_all_goes_through(vpn, lab.lan)
    with counted(lab.gateway, "postrouting", f'oifname "wan0" ip daddr {WORLD}') as direct:
        assert answers_ping(lab.gateway, WORLD)
    assert direct == [2]
    redial(vpn)
    assert_all_goes_through(vpn, lab.lan)
    vpn.down()

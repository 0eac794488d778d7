"""Whatever fails while a tunnel comes up, both machines are then exactly as they were.

lan ── gateway ══ssh══ server ── inner
        nft            nft, ip, /proc/sys: a program that fails at its Nth call is bound over
        /proc/sys                          the real one, in that machine alone
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from tests.contract.carrier_site import BOBS_TUN
from tests.e2e.test_up_default import DEFAULT, far_away
from tests.e2e.test_up_logins import office
from tests.e2e.vpn import SHARED, Vpn
from tests.lab import Lab, LabMachine, firewalls, wait_until

EVERYTHING = (*SHARED, "--lan-address", "192.168.77.200")
"""What makes the most changes."""
SAID_WITHIN = 2

_WRAPPER = """#!/bin/sh
# Counts its calls that change something, and fails at the one that is named.
case "${{0##*/}} $*" in
*" -c "*) ;; # a question
{changes})
  echo "$*" >>/run/broken/{name}.calls
  if [ "$(grep -c "" /run/broken/{name}.calls)" = "$(cat /run/broken/{name}.at)" ]; then
    echo "injected: {name} $*" >&2
    exit 1
  fi
  ;;
esac
exec "/run/broken/{name}.real/${{0##*/}}" "$@"
"""
CHANGES = {
    "nft": '*" -f -"*',
    "ip": '*" "[a-z]*" "[ads][de][dtl]*',
    "iptables": '*" -I "*|*" -D "*|*-restore" "*',
}
"""What tells a call that changes something: nft loads, ip adds, sets and deletes."""


class Broken:
    """PROGRAM of MACHINE, which fails at one of its calls; made by :func:`broken`."""

    def __init__(self, machine: LabMachine, program: str) -> None:
        self._machine = machine
        self._program = program

    def fail_at(self, number: int) -> None:
        """Let it fail once, at the NUMBERth call from now; 0: never."""
        self._machine.write(f"/run/broken/{self._program}.calls", "", "root", 0o666)
        self._machine.write(f"/run/broken/{self._program}.at", f"{number}", "root", 0o644)

    def calls(self) -> int:
        """Return how many calls there were since."""
        return len(self._machine.read(f"/run/broken/{self._program}.calls").splitlines())


@contextlib.contextmanager
def broken(machine: LabMachine, program: str) -> Iterator[Broken]:
    """Bind a program that can fail over PROGRAM in MACHINE, until the end."""
    text = _WRAPPER.format(name=program, changes=CHANGES[program])
    machine.write(f"/run/broken/{program}.sh", text, "root", 0o755)
    machine.host_path("/run/broken").chmod(0o755)
    made = Broken(machine, program)
    made.fail_at(0)
    real = machine.run(["sh", "-c", f"readlink -f $(command -v {program})"], user="root")
    path = real.stdout.strip()
    # A program of many names is told by the one that it was called by.
    script = f"""
    mkdir -m 755 -p /run/broken/{program}.real
    cd /run/broken/{program}.real
    cp {path} .it
    for name in /usr/sbin/* /usr/bin/*; do
      [ "$(readlink -f "$name")" != {path} ] || ln -sf .it "${{name##*/}}"
    done
    mount --bind /run/broken/{program}.sh {path}
    """
    machine.run(["sh", "-ec", script], user="root")
    try:
        yield made
    finally:
        machine.run(["umount", path], user="root")


@contextlib.contextmanager
def read_only_settings(machine: LabMachine) -> Iterator[None]:
    """Make /proc/sys of MACHINE read-only, as in many containers."""
    script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
    machine.run(["sh", "-ec", script], user="root")
    try:
        yield
    finally:
        machine.run(["umount", "/proc/sys"], user="root")


def fails(vpn: Vpn, *args: str, code: int | None = None) -> str:
    """Assert that `up` fails and says why as it should, leaving nothing; return what it said."""
    with vpn.lab.unchanged():
        result = vpn.lab.sshvpn("up", *(args or EVERYTHING), check=False)
        assert_told(result)
        assert result.returncode != 0, "nothing failed"
        assert code in (None, result.returncode), result
    return result.stderr


def assert_told(result: subprocess.CompletedProcess[str]) -> None:
    """Assert that a failure is told in an error of one or two lines, with the next step."""
    errors = [line for line in result.stderr.splitlines() if not line.startswith("  ")]
    assert result.returncode in (0, 1, 2, 4, 5, 6, 7), result
    assert len(errors) <= SAID_WITHIN, result.stderr
    assert "Traceback" not in result.stderr
    assert "unexpected" not in result.stderr


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes alice's tunnels as root."""
    return Vpn(lab)


FAR_DEVICES = ("tun", "sshvpnr")


# Each call ------------------------------------------------------------------------------------


# Of most ways every second call, to save time: they begin differently, and end as one.
ALL, FIRST, SECOND = slice(None), slice(0, None, 2), slice(1, None, 2)
every_way = pytest.mark.parametrize(
    ("login", "transport", "steps"),
    [("root", None, ALL), ("alice", None, FIRST), ("root", "w", FIRST), ("alice", "w", SECOND)],
    ids=["root auto", "sudo auto", "root w", "sudo w"],
)


@every_way
@pytest.mark.parametrize("side", ["gateway", "server"])
def test_a_filter_that_fails_at_any_of_its_loads_leaves_nothing(
    lab: Lab, side: str, login: str, transport: str | None, steps: slice
) -> None:
    vpn = Vpn(lab, login=login, transport=transport)
    assert each_call(vpn, lab.machines[side], "nft", steps) >= 1


@every_way
def test_a_server_whose_ip_fails_at_any_change_leaves_nothing(
    lab: Lab, login: str, transport: str | None, steps: slice
) -> None:
    vpn = Vpn(lab, login=login, transport=transport)
    # Of every second one, one is of those that the agent can do without.
    assert each_call(vpn, lab.server, "ip", steps) >= (3 if steps == ALL else 2)


@pytest.mark.parametrize(
    ("login", "transport", "steps"),
    [("tun", None, FIRST), ("tun", "w", SECOND), ("key", "w", FIRST)],
    ids=["a tun of one's own auto", "a tun of one's own w", "a limited key w"],
)
def test_a_login_without_rights_leaves_nothing_either(
    lab: Lab, login: str, transport: str | None, steps: slice
) -> None:
    """It changes nothing at the server: at loads of the gateway's, or where it has no tun."""
    vpn = office(lab, login, transport)
    words = ("office", "--lan")
    assert each_call(vpn, lab.gateway, "nft", steps, words) >= 1
    # Its administrator has given it to somebody else since.
    lab.server.ip("tuntap", "delete", "dev", BOBS_TUN, "mode", "tun")
    lab.server.ip("tuntap", "add", "dev", BOBS_TUN, "mode", "tun", "user", "alice")
    assert BOBS_TUN in fails(vpn, *words, code=5)
    lab.server.ip("tuntap", "delete", "dev", BOBS_TUN, "mode", "tun")
    lab.checkpoint()


@pytest.mark.parametrize("side", ["gateway", "server"])
def test_docker_s_chains_and_a_default_route_leave_nothing_either(lab: Lab, side: str) -> None:
    """At any change to a chain of another's, and at any load of our own table."""
    vpn = far_away(lab)
    machine = lab.machines[side]
    firewalls.docker(machine)
    for program in ("iptables", "nft"):
        assert each_call(vpn, machine, program, ALL, DEFAULT) >= 1


def each_call(
    vpn: Vpn,
    machine: LabMachine,
    program: str,
    steps: slice,
    words: Sequence[str] = EVERYTHING,
) -> int:
    """Let each call fail that `up WORDS` makes, one an `up`; return how many of these failed.

    STEPS: of the calls only these, or the only one that there is.
    """
    failed = 0
    with broken(machine, program) as fault:
        with vpn.lab.unchanged():
            vpn.up(*words)
            count = fault.calls()
            vpn.down()
        assert count > 0
        numbers = list(range(1, count + 1))
        for number in numbers[steps] or numbers:
            with vpn.lab.unchanged():
                fault.fail_at(number)
                result = vpn.try_up(*words)
                assert_told(result)
                failed += result.returncode != 0
                if result.returncode == 0:
                    vpn.down()
                assert vpn.lab.sshvpn("status").stdout.strip() == "nothing is up"
    return failed


# Each thing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["gateway", "server"])
def test_settings_that_cannot_be_written(vpn: Vpn, side: str) -> None:
    with read_only_settings(vpn.lab.machines[side]):
        said = fails(vpn)
    assert re.search(r"read-?only|cannot|/proc/sys|setting", said, re.IGNORECASE), said


def test_an_address_that_somebody_takes_meanwhile_is_refused(vpn: Vpn) -> None:
    machine = vpn.lab.gateway
    machine.ip("link", "add", "other", "type", "bridge")
    machine.ip("link", "set", "other", "addrgenmode", "none")
    machine.ip("address", "add", "10.99.0.1/24", "dev", "other")
    said = fails(vpn, *EVERYTHING, "--address", "10.99.0.1/30", code=7)
    assert "10.99.0.1" in said
    machine.ip("link", "delete", "other")


def test_a_port_that_is_taken(vpn: Vpn) -> None:
    with vpn.lab.unchanged():
        service = vpn.lab.gateway.http_server(8888, "192.168.77.1")
        result = vpn.lab.sshvpn("up", *EVERYTHING, check=False)
        assert result.returncode == 7, result
        assert "8888" in result.stderr
        service.stop()


def test_an_address_of_the_lan_that_is_in_use(vpn: Vpn) -> None:
    said = fails(vpn, *SHARED, "--lan-address", "192.168.77.10", code=7)
    assert "192.168.77.10" in said


def test_a_device_of_our_name_that_somebody_else_has_made_is_left_alone(vpn: Vpn) -> None:
    machine = vpn.lab.gateway
    machine.ip("link", "add", "sshvpn0", "type", "bridge")
    with vpn.lab.unchanged():
        vpn.up("server", "--no-lan")
        assert vpn.record()["device"] != "sshvpn0"
        vpn.down()
    machine.ip("link", "delete", "sshvpn0")


def test_a_route_that_stands_in_the_way(vpn: Vpn) -> None:
    machine = vpn.lab.gateway
    machine.ip("route", "add", "10.20.0.0/24", "via", "203.0.113.1", "metric", "50")
    with vpn.lab.unchanged():
        result = vpn.lab.sshvpn("up", *EVERYTHING, check=False)
        assert_told(result)
        assert result.returncode == 7, result
        assert "10.20.0.0/24" in result.stderr
    machine.ip("route", "delete", "10.20.0.0/24", "metric", "50")


def test_an_adapter_that_is_not_there(vpn: Vpn) -> None:
    said = fails(vpn, *SHARED, "--lan-interface", "nosuch0", code=2)
    assert "--lan-interface nosuch0: no adapter of this machine" in said


def test_a_gateway_without_tun(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    gateway.run(["mv", "/dev/net/tun", "/dev/net/tun.away"], user="root")
    assert "modprobe tun" in fails(vpn, code=1)
    gateway.run(["mv", "/dev/net/tun.away", "/dev/net/tun"], user="root")


def test_a_gateway_whose_new_devices_have_no_ipv6(vpn: Vpn) -> None:
    path = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
    vpn.lab.gateway.run(["sh", "-c", f"echo 1 >{path}"], user="root")
    with vpn.lab.unchanged():
        result = vpn.lab.sshvpn("up", "server", "--no-lan", check=False)
        assert_told(result)
        if result.returncode == 0:
            vpn.down()
    vpn.lab.gateway.run(["sh", "-c", f"echo 0 >{path}"], user="root")


# The server -----------------------------------------------------------------------------------


CLOSED = """table inet closed {
    chain in {
        type filter hook input priority -500;
        iifname "tun*" drop
        iifname "sshvpnr*" drop
    }
}
"""


def test_a_server_that_drops_what_comes_out_of_the_tunnel(vpn: Vpn) -> None:
    server = vpn.lab.server
    server.nft(CLOSED)
    said = fails(vpn, "server", "--no-lan", "--timeout", "11", code=6)
    assert "nothing comes back" in said
    server.run(["nft", "delete", "table", "inet", "closed"], user="root")


def test_a_server_whose_session_ends_at_once(vpn: Vpn) -> None:
    vpn.lab.server.sshd.restart(ForceCommand="/bin/false")
    fails(vpn, code=5)
    vpn.lab.server.sshd.restart(ForceCommand="none")


# In the middle --------------------------------------------------------------------------------


def start(vpn: Vpn, *args: str) -> subprocess.Popen[str]:
    """Start `up`, slowly: the server's ip takes its time."""
    return vpn.lab.gateway.popen(vpn.lab.sshvpn_argv("up", *EVERYTHING, *args))


def device(machine: LabMachine, *names: str) -> bool:
    """Whether MACHINE has a device whose name begins with one of NAMES."""
    found = machine.ip("-o", "link")
    return any(f": {name}" in found for name in names)


def test_a_link_that_is_cut_while_it_comes_up(vpn: Vpn) -> None:
    with vpn.lab.unchanged():
        child = start(vpn, "--timeout", "5")
        wait_until(lambda: device(vpn.lab.server, *FAR_DEVICES), 10)
        vpn.lab.cut()
        out, err = child.communicate(timeout=30)
        assert child.returncode in (0, 6), (out, err)
        if child.returncode == 0:  # it was faster
            vpn.down()
        vpn.lab.restore()
        # They have not heard yet that nobody is there. Their agents live, and see to it.
        for session in vpn.lab.server.sshd.sessions():
            os.kill(session, signal.SIGKILL)


def test_a_session_that_is_killed_while_it_comes_up_is_tried_again(vpn: Vpn) -> None:
    with vpn.lab.unchanged():
        child = start(vpn)
        wait_until(lambda: device(vpn.lab.server, *FAR_DEVICES), 10)
        vpn.lab.server.sshd.kill_sessions()
        out, err = child.communicate(timeout=40)
        assert child.returncode == 0, (out, err)
        vpn.down()


def test_a_helper_that_is_killed_while_it_comes_up_is_replaced(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    with vpn.lab.unchanged():
        child = start(vpn)
        wait_until(lambda: device(gateway, "sshvpn"), 10)
        for pid, line in gateway.processes().items():
            if "privileged/main.py" in line and "sudo" not in line:
                gateway.kill(pid)
        out, err = child.communicate(timeout=30)
        assert child.returncode == 0, (out, err)
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()


@pytest.mark.parametrize("step", ["sshvpn", "tun"])
def test_a_supervisor_that_is_killed_while_it_comes_up(vpn: Vpn, step: str) -> None:
    gateway = vpn.lab.gateway
    with vpn.lab.unchanged():
        child = start(vpn)
        is_here = step == "sshvpn"
        machine, names = (gateway, (step,)) if is_here else (vpn.lab.server, FAR_DEVICES)
        wait_until(lambda: device(machine, *names), 10)
        for pid, line in gateway.processes().items():
            if "sshvpn.background" in line:
                gateway.kill(pid)
        _, err = child.communicate(timeout=30)
        assert child.returncode != 0, err
        vpn.lab.sshvpn("clean")

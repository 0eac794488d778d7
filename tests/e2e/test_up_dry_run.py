"""`sshvpn up --dry-run`: typed by hand into a twin, its commands make what `up` makes.

lab    sshvpn up …                 twin    the printed lines; ssh -w, or what holds both devices
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.contract.prober_site import firewall
from tests.e2e.office import Office
from tests.e2e.test_up_logins import office
from tests.e2e.vpn import Vpn
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.dump import difference
from tests.lab.process import read_line

pytestmark = pytest.mark.lab

SHARED = (
    "server", "--lan", "--publish", "9999:8888", "--route", "10.20.0.0/24", "--route", "fd20::/64",
    "--lan-address", "192.168.77.50",
)  # fmt: skip
PLAIN = ("server", "--no-lan", "--route", "10.20.0.0/24", "--mtu", "1400")
DEFAULT = ("server", "--lan", "--route", "default", "-x", "10.20.9.0/24")
KEPT_SOURCES = ("server", "--lan", "--no-nat", "--route", "10.20.0.0/16", "-x", "10.20.9.0/24")


class Typed:
    """The printed lines, in their two parts."""

    def __init__(self, text: str) -> None:
        """Take the output of `up --dry-run`."""
        _, here, there = re.split(r"^# .*, as root:$", text, flags=re.MULTILINE)
        # The device there is sshd's own, as the line before says: here ssh runs as well.
        there = re.sub(r"(?<=takes it away with it\n)ip tuntap add .*\n", "", there)
        self.here, self.there = here.strip(), there.strip()


def change(machine: LabMachine, before: str) -> list[str]:
    """Return what MACHINE has more, or less, than in BEFORE; without numbers that are chance."""
    text = difference(before, machine.dump(), machine.name)
    # Of the kernel's own making: the device's link-local address is random.
    text = re.sub(r"fe80::[0-9a-f:]+", "fe80::X", text)
    text = re.sub(r"(stable_secret:).*", r"\1X", text)
    return [line for line in text.splitlines() if not line.startswith(("@@", "---", "+++"))]


_HOLD = """
import fcntl, signal, struct, sys
with open("/dev/net/tun", "r+b", buffering=0) as tun:
    # TUNSETIFF; IFF_TUN, IFF_NO_PI, IFF_VNET_HDR
    fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", sys.argv[1].encode(), 0x5001))
    print("held", flush=True)
    signal.pause()
"""


def hold(machine: LabMachine, device: str) -> None:
    """Hold DEVICE as the transport "stream" does, which moves its packets by itself."""
    child = machine.popen([sys.executable, "-c", _HOLD, device], user="root")
    machine._undo.callback(child.end)
    assert read_line(child, 10) == "held\n"


def carry(lab: Lab, login: str, unit: str) -> None:
    """Start `ssh -w` on LAB's gateway by hand, as the manual has it, and wait for its carrier."""
    child = lab.gateway.popen(
        ["ssh", "-N", "-o", "ControlPath=none", "-o", "Tunnel=point-to-point", "-w", f"5300:{unit}",
         login]
    )  # fmt: skip
    lab.gateway._undo.callback(child.end)
    wait_until(lambda: "LOWER_UP" in lab.gateway.ip("link", "show", "dev", "sshvpn0"))


def files(machine: LabMachine) -> list[str]:
    """Return what alice has at MACHINE, and what root has of tunnels, with sizes."""
    places = ["/home/alice", "/run/sshvpn-state", "/run/udev", "/run/user/1000"]
    found = machine.run(["find", *places, "-type", "f", "-printf", "%p %s\\n"], check=False)
    return sorted(line for line in found.stdout.splitlines() if not line.endswith(".lock 0"))


def type_in(machine: LabMachine, lines: str) -> None:
    machine.run(["sh", "-e", "-c", lines], user="root")


@pytest.fixture(scope="module")
def resting() -> Iterator[Vpn]:
    """Return an office in which nothing is up, and something listens at the gateway's port 9090."""
    with Lab() as lab:
        vpn = Vpn(lab)
        lab.gateway.tcp_server(9090, "::")
        yield vpn
        lab.check()


@pytest.fixture
def twin_lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.mark.parametrize(
    ("words", "transport"),
    [
        *((words, "w") for words in (SHARED, PLAIN, KEPT_SOURCES, DEFAULT)),
        *((words, "stream") for words in (SHARED, DEFAULT)),
    ],
    ids=["shared", "plain", "no-nat", "default route", "shared stream", "default route stream"],
)
def test_the_printed_commands_typed_by_hand_make_the_same(
    make_lab: Callable[..., Lab], twin_lab: Lab, words: tuple[str, ...], transport: str
) -> None:
    # What is typed by hand nobody takes back: the twin is thrown away.
    made, twin = (Vpn(lab, transport=transport) for lab in (make_lab(), twin_lab))
    assert_typed_makes_the_same(made, twin, (*words, "--transport", transport), transport=transport)


@pytest.mark.parametrize("transport", [None, "w"], ids=["auto", "w"])
def test_of_a_key_for_the_tunnel_alone_it_tells_what_is_made_here(
    make_lab: Callable[..., Lab], twin_lab: Lab, transport: str | None
) -> None:
    made, twin = (office(lab, "key", transport) for lab in (make_lab(), twin_lab))
    words = ("office", "--lan", *(() if transport is None else ("--transport", transport)))
    there = assert_typed_makes_the_same(made, twin, words, login="bob@server", unit="8")
    assert there == "# nothing: this login may change nothing there"


def assert_typed_makes_the_same(
    made: Vpn,
    twin: Vpn,
    words: Sequence[str],
    *,
    transport: str = "w",
    login: str = "root@server",
    unit: str = "any",
) -> str:
    """Assert that what is printed for TWIN makes there what `up WORDS` makes in MADE.

    TRANSPORT is the one that is taken. Return what is typed at the server.
    """
    befores = [
        {name: machine.dump() for name, machine in lab.machines.items()}
        for lab in (made.lab, twin.lab)
    ]
    remembered = files(twin.lab.gateway)
    printed = twin.lab.sshvpn("up", "--dry-run", *words).stdout
    assert files(twin.lab.gateway) == remembered
    for name in ("gateway", "server"):
        assert change(twin.lab.machines[name], befores[1][name]) == [], "a dry run changes nothing"

    made.lab.sshvpn("up", *words)
    typed = Typed(printed)
    type_in(twin.lab.gateway, typed.here)
    if transport == "w":
        carry(twin.lab, login, unit)
    type_in(twin.lab.server, typed.there)
    if transport == "stream":
        hold(twin.lab.server, twin.far_device())
        hold(twin.lab.gateway, "sshvpn0")

    for name in ("gateway", "server"):
        by_up = change(made.lab.machines[name], befores[0][name])
        by_hand = change(twin.lab.machines[name], befores[1][name])
        assert by_up != []
        assert by_hand == by_up
    made.down()
    return typed.there


def test_it_tells_why_it_cannot_be(make_lab: Callable[..., Lab]) -> None:
    vpn = Vpn(make_lab())
    done = vpn.lab.sshvpn("up", "--dry-run", "server", "--route", "192.168.0.0/16", check=False)
    assert done.returncode == 2
    assert "overlaps 192.168.77.0/24" in done.stderr
    assert done.stdout == ""


def test_of_the_stream_transport_it_tells_what_its_agent_makes(
    make_lab: Callable[..., Lab],
) -> None:
    vpn = Vpn(make_lab(), login="alice")
    printed = vpn.lab.sshvpn("up", "--dry-run", "server", "--no-lan").stdout
    uid = vpn.lab.server.uid("alice")
    assert f"ip tuntap add dev sshvpnr5600 mode tun user {uid}\n" in printed
    assert "altname tun5600" not in printed
    assert "meta length" not in printed
    many = vpn.lab.sshvpn("up", "--dry-run", "server", "--no-lan", "--streams", "2").stdout
    assert f"ip tuntap add dev sshvpnr5600 mode tun user {uid} multi_queue\n" in many
    here = many.partition("\n# server")[0]
    assert re.search(r"ip tuntap add dev sshvpn0 mode tun user \d+ multi_queue\n", here)
    vpn.up("server", "--no-lan", "-v")
    vpn.down()


def test_it_waits_no_longer_than_up_does(resting: Vpn) -> None:
    words = ("server", "--no-lan", "--timeout", "2")
    with firewall(resting.lab.server, "input", "tcp dport 22 drop"):
        by_up = Office(resting.lab).refused(6, "up", *words)
        by_dry_run = Office(resting.lab).refused(6, "up", "--dry-run", *words)
    assert by_dry_run == by_up


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, ("--lan-interface", "lan9")),
        (2, ("--mtu", "70000")),
        (7, ("--lan", "--portal", "9090")),
        (7, ("--lan", "--publish", "9090:8888")),
        (7, ("--no-lan", "--publish", "9090:8888")),  # ssh listens
        (4, ("--no-lan", "--publish", "90:8888")),
        (2, ("--lan", "--lan-address", "192.168.77.255")),
        (7, ("--lan", "--lan-address", "192.168.77.10")),
    ],
    ids=str,
)
def test_what_would_stop_up_stops_it_too(resting: Vpn, code: int, words: tuple[str, ...]) -> None:
    lab = resting.lab
    with lab.unchanged():
        by_up = Office(lab).refused(code, "up", "server", *words)
        by_dry_run = Office(lab).refused(code, "up", "--dry-run", "server", *words)
    assert by_dry_run == by_up

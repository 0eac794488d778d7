"""`sshvpn up --dry-run`: typed by hand into a twin, its commands make what `up` makes.

lab    sshvpn up …                          twin    the printed lines, and ssh -w by hand
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.vpn import Vpn
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.dump import difference

pytestmark = pytest.mark.lab

SHARED = (
    "server", "--lan", "--publish", "9999:8888", "--route", "10.20.0.0/24", "--route", "fd20::/64",
    "--lan-address", "192.168.77.50",
)  # fmt: skip
PLAIN = ("server", "--no-lan", "--route", "10.20.0.0/24", "--mtu", "1400")
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


def carry(lab: Lab) -> None:
    """Start `ssh -w` on LAB's gateway by hand, as the manual has it, and wait for its carrier."""
    child = lab.gateway.popen(
        ["ssh", "-N", "-o", "ControlPath=none", "-o", "Tunnel=point-to-point", "-w", "5300:any",
         "root@server"]
    )  # fmt: skip
    lab.gateway._undo.callback(child.end)
    wait_until(lambda: "LOWER_UP" in lab.gateway.ip("link", "show", "dev", "sshvpn0"))


def type_in(machine: LabMachine, lines: str) -> None:
    machine.run(["sh", "-e", "-c", lines], user="root")


@pytest.fixture
def twin_lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.mark.parametrize("words", [SHARED, PLAIN, KEPT_SOURCES], ids=["shared", "plain", "no-nat"])
def test_the_printed_commands_typed_by_hand_make_the_same(
    make_lab: Callable[..., Lab], twin_lab: Lab, words: tuple[str, ...]
) -> None:
    # What is typed by hand nobody takes back: the twin is thrown away.
    # The twin's packets are carried by `ssh -w`.
    made, twin = (Vpn(lab, transport="w") for lab in (make_lab(), twin_lab))
    befores = [
        {name: machine.dump() for name, machine in lab.machines.items()}
        for lab in (made.lab, twin.lab)
    ]
    printed = twin.lab.sshvpn("up", "--dry-run", *words, "--transport", "w").stdout
    for name in ("gateway", "server"):
        assert change(twin.lab.machines[name], befores[1][name]) == [], "a dry run changes nothing"

    made.up(*words)
    typed = Typed(printed)
    type_in(twin.lab.gateway, typed.here)
    carry(twin.lab)
    type_in(twin.lab.server, typed.there)

    for name in ("gateway", "server"):
        by_up = change(made.lab.machines[name], befores[0][name])
        by_hand = change(twin.lab.machines[name], befores[1][name])
        assert by_up != []
        assert by_hand == by_up
    made.down()


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

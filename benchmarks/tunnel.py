"""The VPN: how long ``up`` and ``down`` take, and one TCP stream through it against ``ssh -w``.

lan ──1500── gateway ══ our tunnel, or ssh -w ══ server (load.py serve)

The peer is made by hand as ssh(1) shows it: MTU 1500, OpenSSH's own cipher.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.office import Office, sshvpn_words
from benchmarks.table import Row, paired
from tests.lab import Child, LabMachine, wait_until
from tests.lab.machine import ALICE

TIMES_ROUNDS = 9
MORE_THAN_SSH_MS = 500
DOWN_MS = 500
TIMES_FASTER = 7.0
PEER_UNIT = 9
PEER_NET = "10.83.0"
PEER_LAN_ROUTE = "192.168.77.0/24"

DIRECTIONS = {"push": "to the server", "pull": "from the server"}


def prepare(office: Office) -> None:
    """Let alice log in as root at the server, which permits tunnels, and use sudo here."""
    lab = office.lab
    lab.server.sshd.restart(PermitTunnel="yes")
    lab.server.authorize("root")
    lab.gateway.allow_sudo()
    lab.gateway.write(f"{ALICE.home}/.ssh/config", "Host server\n  User root\n")


def measure_times(office: Office) -> list[Row]:
    """Time ``up`` and ``down``, for this machine alone and with the LAN, and a plain login."""
    prepare(office)
    sshvpn = sshvpn_words()
    taken = office.times(
        TIMES_ROUNDS,
        {
            "up": [*sshvpn, "up", "server", "--no-lan"],
            "down": [*sshvpn, "down"],
            "ssh": ["ssh", "server", "true"],
            "up --lan": [*sshvpn, "up", "server", "--lan"],
            "down --lan": [*sshvpn, "down"],
        },
    )
    rows = []
    for up in ("up", "up --lan"):
        more = paired(taken[up], taken["ssh"])
        over_ms = _median_ms(taken[up]) - _median_ms(taken["ssh"])
        rows.append(
            Row(
                f"{up} returns; ssh HOST true",
                f"{_median_ms(taken[up]):.0f} ms",
                f"{_median_ms(taken['ssh']):.0f} ms",
                str(more),
                f"<= ssh + {MORE_THAN_SSH_MS} ms",
                over_ms <= MORE_THAN_SSH_MS,
            )
        )
    for down in ("down", "down --lan"):
        took = _median_ms(taken[down])
        rows.append(
            Row(f"{down} returns", f"{took:.0f} ms", bound=f"<= {DOWN_MS} ms", ok=took <= DOWN_MS)
        )
    return rows


def _median_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def measure_speed(office: Office, *, rounds: int, size: int) -> list[Row]:
    """Measure our tunnel and ``ssh -w`` in turn, from the gateway and from the LAN machine.

    Only one of them stands at a time: neither changes what the other's packets meet.
    """
    prepare(office)
    rates: dict[tuple[str, str, str], list[float]] = {}
    for number in range(rounds):
        ways = (("ours", _ours, size), ("peer", _by_hand, size // 8))
        for way, made, much in ways if number % 2 else reversed(ways):
            with made(office) as address:
                for machine in (office.lab.gateway, office.lab.lan):
                    for verb in DIRECTIONS:
                        # The LAN's packets are small, and the peer's: they move less, as long.
                        moved = much if machine is office.lab.gateway else size // 8
                        rate = office.transfer_to(machine, address, verb, moved)
                        rates.setdefault((machine.name, verb, way), []).append(rate)
    return [_row(rates, name, verb) for name in ("gateway", "lan") for verb in DIRECTIONS]


def _row(rates: dict[tuple[str, str, str], list[float]], machine: str, verb: str) -> Row:
    ours, peer = rates[machine, verb, "ours"], rates[machine, verb, "peer"]
    ratio = paired(ours, peer)
    who = "the gateway" if machine == "gateway" else "a LAN machine"
    # The bound is the for the gateway to the server: a LAN's packets are of 1500 bytes.
    is_bound = machine == "gateway" and verb == "push"
    return Row(
        f"tunnel, {who} {DIRECTIONS[verb]}; ssh -w",
        f"{statistics.median(ours) / 1e6:.0f} MB/s",
        f"{statistics.median(peer) / 1e6:.0f} MB/s",
        str(ratio),
        f">= {TIMES_FASTER:.0f}" if is_bound else "-",
        ratio.median >= TIMES_FASTER if is_bound else None,
    )


@contextmanager
def _ours(office: Office) -> Iterator[str]:
    """Bring our tunnel up, for the LAN too; yields the server's address in it."""
    office.lab.sshvpn("up", "server", "--lan")
    (record,) = json.loads(office.lab.sshvpn("status", "--json").stdout)["tunnels"]
    yield record["remote_address"].partition("/")[0]
    office.lab.sshvpn("down")


@contextmanager
def _by_hand(office: Office) -> Iterator[str]:
    """Make a tunnel as ssh(1) shows it, which the LAN machine can use; yields as the other."""
    lab, device = office.lab, f"tun{PEER_UNIT}"
    user = ALICE.name
    lab.gateway.ip("tuntap", "add", "dev", device, "mode", "tun", "user", user)
    child = lab.gateway.popen(
        ["ssh", "-N", "-o", "ControlPath=none", "-o", "Tunnel=point-to-point",
         "-w", f"{PEER_UNIT}:{PEER_UNIT}", "server"]
    )  # fmt: skip
    try:
        _configure(lab.server, device, f"{PEER_NET}.2", f"{PEER_NET}.1", child)
        _configure(lab.gateway, device, f"{PEER_NET}.1", f"{PEER_NET}.2", child)
        for adapter in ("lan0", device):
            _write(lab.gateway, adapter, 1)
        lab.server.ip("route", "add", PEER_LAN_ROUTE, "dev", device)
        yield f"{PEER_NET}.2"
    finally:
        child.end()
        _write(lab.gateway, "lan0", 0)
        lab.gateway.ip("link", "delete", device)
        wait_until(lambda: f": {device}:" not in lab.server.ip("-o", "link"), 10)


def _write(gateway: LabMachine, adapter: str, value: int) -> None:
    path = f"/proc/sys/net/ipv4/conf/{adapter}/forwarding"
    gateway.run(["sh", "-c", f"echo {value} >{path}"], user="root")


def _configure(machine: LabMachine, device: str, own: str, other: str, child: Child) -> None:
    def is_there() -> bool:
        if child.poll() is not None:
            raise RuntimeError(f"ssh -w ended: {child.communicate()[1]}")
        return f": {device}:" in machine.ip("-o", "link")

    wait_until(is_there, 10, what=f"{machine.name} has no {device}")
    machine.ip("address", "add", own, "peer", other, "dev", device)
    machine.ip("link", "set", device, "up")

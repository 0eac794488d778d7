"""The VPN: how long ``up`` and ``down`` take, and one TCP stream through it against ``ssh -w``.

lan ──1500── gateway ══ our tunnel, or ssh -w ══ server (load.py serve)

The peer is made by hand as ssh(1) shows it: MTU 1500, OpenSSH's own cipher.
"""

from __future__ import annotations

import statistics
from functools import partial

from benchmarks.office import Office, sshvpn_words
from benchmarks.table import Row, paired
from benchmarks.ways import Way, ours, prepare, ssh_w

TIMES_ROUNDS = 9
MORE_THAN_SSH_MS = 500
DOWN_MS = 500
TIMES_FASTER = 7.0

TRANSPORTS = ("w", "stream")
DIRECTIONS = {"push": "to the server", "pull": "from the server"}


UPS = {
    "up": ("server", "--no-lan"),
    "up --lan": ("server", "--lan"),
    "up --lan --lan-address": ("server", "--lan", "--lan-address", "192.168.77.50"),
    "up --transport w": ("server", "--no-lan", "--transport", "w"),
    "up, a login with sudo": ("alice@server", "--no-lan"),
    "up --transport w, a login with sudo": ("alice@server", "--no-lan", "--transport", "w"),
}
"""What is timed; the login is root's where it is not said. Each is taken down again."""


def measure_times(office: Office) -> list[Row]:
    """Time ``up`` and ``down``, for this machine alone and with the LAN, and a plain login."""
    prepare(office)
    office.lab.server.allow_sudo("alice")
    sshvpn = sshvpn_words()
    commands = {"ssh": ["ssh", "server", "true"]}
    for up, words in UPS.items():
        commands[up] = [*sshvpn, "up", *words]
        commands[_down(up)] = [*sshvpn, "down"]
    taken = office.times(TIMES_ROUNDS, commands)
    rows = []
    for up in UPS:
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
    for down in map(_down, UPS):
        took = _median_ms(taken[down])
        rows.append(
            Row(f"{down} returns", f"{took:.0f} ms", bound=f"<= {DOWN_MS} ms", ok=took <= DOWN_MS)
        )
    return rows


def _down(up: str) -> str:
    return up.replace("up", "down", 1)


def _median_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def measure_speed(office: Office, *, rounds: int, size: int) -> list[Row]:
    """Measure our tunnels and ``ssh -w`` in turn, from the gateway and from the LAN machine.

    Only one of them stands at a time: neither changes what the others' packets meet.
    """
    prepare(office)
    rates: dict[tuple[str, str, str], list[float]] = {}
    for number in range(rounds):
        ways: list[tuple[str, Way, int]] = [
            (name, partial(ours, transport=name), size) for name in TRANSPORTS
        ]
        ways.append(("peer", ssh_w, size // 8))
        for way, made, much in ways if number % 2 else reversed(ways):
            with made(office) as address:
                for machine in (office.lab.gateway, office.lab.lan):
                    for verb in DIRECTIONS:
                        # The LAN's packets are small, and the peer's: they move less, as long.
                        is_small = machine is not office.lab.gateway and way != "stream"
                        moved = size // 8 if is_small else much
                        rate = office.transfer_to(machine, address, verb, moved)
                        rates.setdefault((machine.name, verb, way), []).append(rate)
    return [
        _row(rates, transport, name, verb)
        for transport in TRANSPORTS
        for name in ("gateway", "lan")
        for verb in DIRECTIONS
    ]


def _row(
    rates: dict[tuple[str, str, str], list[float]], transport: str, machine: str, verb: str
) -> Row:
    mine, peer = rates[machine, verb, transport], rates[machine, verb, "peer"]
    ratio = paired(mine, peer)
    who = "the gateway" if machine == "gateway" else "a LAN machine"
    # The bound is the for the gateway to the server: a LAN's packets are of 1500 bytes.
    is_bound = machine == "gateway" and verb == "push"
    return Row(
        f"{transport}, {who} {DIRECTIONS[verb]}; ssh -w",
        f"{statistics.median(mine) / 1e6:.0f} MB/s",
        f"{statistics.median(peer) / 1e6:.0f} MB/s",
        str(ratio),
        f">= {TIMES_FASTER:.0f}" if is_bound else "-",
        ratio.median >= TIMES_FASTER if is_bound else None,
    )

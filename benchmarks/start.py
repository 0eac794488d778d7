"""How long commands take from start to end."""

from __future__ import annotations

import statistics
import sys

from benchmarks.office import LOAD_PORT, Office, sshvpn_words
from benchmarks.table import Row, paired

ROUNDS = 25
LOGIN_ROUNDS = 9
HELP_RATIO = 1.5
STATUS_MS = 150


def measure(office: Office) -> list[Row]:
    """Time ``--help``, and ``status`` with nothing up (so this goes first) and with one up."""
    script = sshvpn_words()
    status = [*script, "status"]
    taken = office.times(
        ROUNDS,
        {
            "help": [*script, "--help"],
            "click": [sys.executable, "-c", "import click"],
            "nothing up": status,
        },
    )
    office.forward("start", f"0:{LOAD_PORT}")
    taken |= office.times(ROUNDS, {"one up": status})
    office.down("start")
    ratio = paired(taken["help"], taken["click"])
    return [
        Row(
            "sshvpn --help; python -c 'import click'",
            _ms(taken["help"]),
            _ms(taken["click"]),
            str(ratio),
            f"<= {HELP_RATIO}",
            ratio.median <= HELP_RATIO,
        ),
        *(_status(what, taken[what]) for what in ("nothing up", "one up")),
    ]


def _status(what: str, seconds: list[float]) -> Row:
    return Row(
        f"sshvpn status, {what}",
        _ms(seconds),
        bound=f"<= {STATUS_MS} ms",
        ok=statistics.median(seconds) * 1000 <= STATUS_MS,
    )


def measure_login(office: Office) -> list[Row]:
    """Time ``forward -b``, which returns when the forward listens, and a plain login."""
    script = sshvpn_words()
    rows = []
    for engine in ("openssh", "sshtunnel"):
        forward = [*script, "forward", "-b", "--engine", engine, "--name", "login", "server"]
        taken = office.times(
            LOGIN_ROUNDS,
            {
                "forward": [*forward, f"0:{LOAD_PORT}"],
                "down": [*script, "down", "login"],
                "ssh": ["ssh", "server", "true"],
            },
        )
        ratio = paired(taken["forward"], taken["ssh"])
        ours, peer = _ms(taken["forward"]), _ms(taken["ssh"])
        rows.append(Row(f"{engine}, forward -b returns; ssh HOST true", ours, peer, str(ratio)))
        rows.append(Row(f"{engine}, down returns", _ms(taken["down"])))
    return rows


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms"

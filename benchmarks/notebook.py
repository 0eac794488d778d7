"""How long ``sshvpn notebook`` takes until the page can be opened.

lan     gateway ══ ssh ══ server
  localhost:9999/api      JupyterLab

From nothing against JupyterLab alone, asked on the server itself; on a running one against three
plain logins, one after the other.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from benchmarks.office import HERE, Office, sshvpn_words
from benchmarks.table import Row, paired
from tests.lab import LabMachine
from tests.lab.machine import USER_PATH

MORE_THAN_JUPYTER_S = 1.5
LOGINS = 3
JUPYTER = str(Path(sys.executable).with_name("jupyter-lab"))
HERE_URL = "http://127.0.0.1:9999/api"
THERE_URL = "http://127.0.0.1:8888/api"


def measure(office: Office, *, rounds: int) -> list[Row]:
    """Time both in turn with their peers; the first round only fills the caches."""
    gateway, server = office.lab.gateway, office.lab.server
    server.write("/home/alice/.profile", f"PATH={Path(JUPYTER).parent}:$PATH; export PATH\n")
    opened = [*sshvpn_words(), "notebook", "-b", "--no-browser", "server"]
    taken: dict[str, list[float]] = {key: [] for key in ("new", "jupyter", "found", "logins")}
    for number in range(rounds + 1):
        seconds = {"new": page(gateway, HERE_URL, opened)}
        office.lab.sshvpn("down")
        seconds["found"] = page(gateway, HERE_URL, opened)
        seconds["logins"] = sum(
            page(gateway, "-", ["ssh", "server", "true"]) for _ in range(LOGINS)
        )
        office.lab.sshvpn("notebook", "stop", "server")
        alone = [JUPYTER, "--no-browser", "--ip=127.0.0.1"]
        seconds["jupyter"] = page(server, THERE_URL, alone, ends=True)
        for key, value in seconds.items():
            taken[key] += [value] if number else []
    new, jupyter = (statistics.median(taken[key]) for key in ("new", "jupyter"))
    found = paired(taken["found"], taken["logins"])
    return [
        Row(
            "notebook, from nothing: the page answers; JupyterLab alone",
            f"{new:.2f} s",
            f"{jupyter:.2f} s",
            str(paired(taken["new"], taken["jupyter"])),
            f"<= its start + {MORE_THAN_JUPYTER_S} s",
            new - jupyter <= MORE_THAN_JUPYTER_S,
        ),
        Row(
            f"notebook, one that runs: the page answers; {LOGINS} times ssh HOST true",
            f"{statistics.median(taken['found']) * 1000:.0f} ms",
            f"{statistics.median(taken['logins']) * 1000:.0f} ms",
            str(found),
            "<= 1",
            found.median <= 1,
        ),
    ]


def page(machine: LabMachine, url: str, words: list[str], *, ends: bool = False) -> float:
    """Return what page.py says of WORDS on MACHINE; ENDS: end them then."""
    environment = {"PATH": USER_PATH, **({"END": "yes"} if ends else {})}
    argv = [sys.executable, "-I", "-S", f"{HERE}/page.py", url, *words]
    return float(machine.run(argv, env=environment, timeout=120).stdout)

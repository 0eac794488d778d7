"""``python -m benchmarks``: measure, and print the table. Exit 1 where a bound is missed."""

from __future__ import annotations

import argparse
import compileall
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import sshvpn
from benchmarks import crowd, far, idle, kinds, network, notebook, size, speed, start, tunnel
from benchmarks.office import Office
from benchmarks.table import Row, render

NETWORK_ROUNDS, FAR_ROUNDS, NOTEBOOK_ROUNDS = 4, 3, 5
"""At most: their samples are longer than those of the others."""


def main() -> int:
    """Measure what the command line names, all by default."""
    options = _parser().parse_args()
    if os.getuid():
        print("the laboratory needs root: sudo make bench", file=sys.stderr)
        return 2
    # As an installed package is; its users may not be able to write there.
    compileall.compile_dir(str(Path(sshvpn.__file__).parent), quiet=1)
    measures: dict[str, Callable[[Office], list[Row]]] = {
        "start": start.measure,
        "login": start.measure_login,
        "idle": idle.measure,
        "speed": partial(speed.measure, rounds=options.rounds, size=options.mib << 20),
        "crowd": crowd.measure,
        "notebook": partial(notebook.measure, rounds=min(options.rounds, NOTEBOOK_ROUNDS)),
        "size": size.measure,
        "up": tunnel.measure_times,
        "tunnel": partial(tunnel.measure_speed, rounds=options.rounds, size=options.mib << 20),
        "network": partial(
            network.measure, rounds=min(options.rounds, NETWORK_ROUNDS), size=options.mib << 20
        ),
        "narrow": partial(far.measure_narrow, rounds=min(options.rounds, FAR_ROUNDS)),
        "lossy": partial(far.measure_lossy, rounds=min(options.rounds, FAR_ROUNDS)),
        "families": partial(kinds.measure_families, rounds=min(options.rounds, NETWORK_ROUNDS)),
        "streams": partial(kinds.measure_streams, rounds=min(options.rounds, FAR_ROUNDS)),
    }
    rows: list[Row] = []
    with Office() as office:
        for name, measure in measures.items():
            if name in options.measures or not options.measures:
                print(f"* {name} …", file=sys.stderr, flush=True)
                rows += measure(office)
    print(render(rows))
    return int(any(row.ok is False for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    choices = ("start", "login", "idle", "size", "speed", "crowd", "notebook", "up", "tunnel",
               "network", "narrow", "lossy", "families", "streams")  # fmt: skip
    parser.add_argument("measures", nargs="*", choices=[*choices, []], metavar="MEASURE",
                        help=f"only these: {', '.join(choices)}")  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=9, help="of each that has rounds (default: %(default)s)"
    )
    parser.add_argument("--mib", type=int, default=1024, help="a transfer (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Times commands, one after the other, round by round. Runs by itself inside a machine.

Reads ``{"rounds": N, "commands": {NAME: [WORD...]}}`` from its standard input and prints
``{NAME: [SECONDS...]}``. A command that fails ends it. Starting it from inside the machine keeps
the cost of getting into the machine out of the numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time


def main() -> None:
    """Time them; the first round only fills the caches."""
    order = json.load(sys.stdin)
    taken: dict[str, list[float]] = {name: [] for name in order["commands"]}
    for number in range(order["rounds"] + 1):
        for name, words in order["commands"].items():
            start = time.perf_counter()
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            if number:
                taken[name].append(time.perf_counter() - start)
    json.dump(taken, sys.stdout)


if __name__ == "__main__":
    main()

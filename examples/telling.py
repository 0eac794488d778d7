"""How the demonstration speaks: what it tells, what alice types, what is printed."""

from __future__ import annotations

import os
import shlex
import sys
import textwrap
from typing import Final, NoReturn

from tests.lab import LabMachine
from tests.lab.machine import USER_PATH

COLOURS: Final = ("\033[1m", "\033[32m", "\033[2m", "\033[0m")
BOLD, GREEN, DIM, PLAIN = COLOURS if sys.stdout.isatty() else ("", "", "", "")
# alice has the `sshvpn` of this checkout on her PATH, as after `pipx install .`.
PATH: Final = {"PATH": f"{os.path.dirname(sys.executable)}:{USER_PATH}"}  # noqa: PTH120


def say(text: str) -> None:
    """Tell the reader TEXT, wrapped to the screen."""
    filled = textwrap.fill(" ".join(text.split()), 88, break_on_hyphens=False)
    print(f"\n{filled}", flush=True)


def show_command(machine: LabMachine, argv: list[str]) -> None:
    """Show ARGV as alice types it on MACHINE."""
    print(f"\n  {DIM}alice@{machine.name}:~${PLAIN} {BOLD}{shlex.join(argv)}{PLAIN}", flush=True)


def show_output(text: str) -> None:
    """Show what a command printed."""
    for line in text.splitlines():
        print(f"  {line}", flush=True)


def run(machine: LabMachine, *argv: str) -> str:
    """Type a command on MACHINE as alice and show what it prints; raises if it fails."""
    show_command(machine, list(argv))
    result = machine.run(list(argv), env=PATH, timeout=60)
    show_output(result.stdout + result.stderr)
    return result.stdout


def read(machine: LabMachine, *argv: str) -> str:
    """Return what a command prints on MACHINE, for alice; raises if it fails."""
    return machine.run(list(argv), env=PATH, timeout=60).stdout


def expect(*, truth: bool, otherwise: str) -> None:
    """End the demonstration if TRUTH does not hold: it must not show what is not so."""
    if not truth:
        fail(otherwise)


def fail(why: str) -> NoReturn:
    """End the demonstration."""
    print(f"\nThe demonstration failed: {why}", file=sys.stderr)
    sys.exit(1)

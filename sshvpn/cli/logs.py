"""``sshvpn logs``: what happened."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sshvpn import control, wiring
from sshvpn.cli.completers import complete_name
from sshvpn.cli.words import candidates
from sshvpn.errors import NotRunningError, UsageError

_POLL_S = 0.25


@click.command(short_help="Show what happened.")
@click.argument("name", required=False, shell_complete=complete_name)
@click.option("-f", "--follow", is_flag=True, help="Go on, until it ends or Ctrl-C.")
def logs(name: str | None, *, follow: bool) -> None:
    """Show the log of NAME, or of the only one that is up."""
    found = {
        path: snapshot
        for path, snapshot in control.snapshots(wiring.runtimes()).items()
        if name in (None, snapshot["name"])
    }
    files = {
        wiring.log_file(snapshot["kind"], snapshot["name"]): path
        for path, snapshot in found.items()
    }
    if name is None and len(files) > 1:
        raise UsageError(
            f"{len(files)} things are up: {candidates(found.values())}",
            "say which: sshvpn logs NAME",
        )
    if not files:
        what = f"nothing called {name} is up" if name else "nothing is up"
        raise NotRunningError(what, f"older logs are kept in {wiring.log_dir()}")
    for file, directory in files.items():
        _print(file, directory, follow=follow)


def _print(path: Path, directory: Path, *, follow: bool) -> None:
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            text = file.read()
            if text:
                click.echo(text, nl=False)
                continue
            if not follow or not control.is_alive(directory):
                return
            time.sleep(_POLL_S)

"""``sshvpn down``: take down what is up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sshvpn import control, wiring
from sshvpn.cli.completers import complete_name
from sshvpn.errors import NotRunningError, SshvpnError, UsageError


@click.command(short_help="Take down what is up.")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_name)
@click.option("--all", "everything", is_flag=True, help="All that is up.")
@click.option("--tunnel", "kind", flag_value="tunnel", help="Tunnels only.")
@click.option("--forward", "kind", flag_value="forward", help="Forwards only.")
@click.pass_context
def down(
    context: click.Context, names: tuple[str, ...], *, everything: bool, kind: str | None
) -> None:
    """Take down what is up, and wait until it is gone.

    Without NAME it is the only one; where there are more, say which.
    """
    if names and everything:
        raise UsageError("NAME and --all exclude each other", "say one of them")
    control.sweep(wiring.runtimes())
    found = {
        path: snapshot
        for path, snapshot in control.snapshots(wiring.runtimes()).items()
        if kind in (None, snapshot["kind"])
    }
    if names:
        context.exit(_take_down_names(names, found))
    if everything:
        context.exit(max((_take_down(path, s["name"]) for path, s in found.items()), default=0))
    if not found:
        raise NotRunningError("nothing is up", "sshvpn forward HOST SPEC -b starts something")
    if len(found) > 1:
        candidates = ", ".join(sorted({snapshot["name"] for snapshot in found.values()}))
        raise UsageError(
            f"{len(found)} things are up: {candidates}", "say which, or --all: sshvpn down NAME"
        )
    for path, snapshot in found.items():
        context.exit(_take_down(path, snapshot["name"]))


def _take_down_names(names: tuple[str, ...], found: dict[Path, dict[str, Any]]) -> int:
    codes = []
    for name in dict.fromkeys(names):
        paths = [path for path, snapshot in found.items() if snapshot["name"] == name]
        codes += [_take_down(path, name) for path in paths]
        if not paths:
            error = NotRunningError(f"nothing called {name} is up")
            click.echo(f"sshvpn: {error}\n  see: sshvpn status", err=True)
            codes.append(error.exit_code)
    return next((code for code in codes if code), 0)


def _take_down(path: Path, name: str) -> int:
    try:
        control.take_down(path)
    except SshvpnError as error:
        click.echo(f"sshvpn: {name}: {error}\n  {error.hint}", err=True)
        return error.exit_code
    click.echo(f"{name} is down")
    return 0

"""``sshvpn down``: take down what is up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sshvpn import control
from sshvpn.cli.clean import sweep_kernel, unit_of
from sshvpn.cli.completers import complete_name
from sshvpn.cli.main import tell
from sshvpn.cli.words import candidates
from sshvpn.errors import NotRunningError, SshvpnError, UsageError
from sshvpn.wiring import places, privilege


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

    Without NAME it is the only one; where there are more, say which. Both machines are then as
    they were before.
    """
    if names and everything:
        raise UsageError("NAME and --all exclude each other", "say one of them")
    control.sweep(places.runtimes())
    found = {
        path: snapshot
        for path, snapshot in control.snapshots(places.runtimes()).items()
        if kind in (None, snapshot["kind"])
    }
    if names:
        context.exit(_take_down_names(names, found, kind or "thing"))
    if everything:
        context.exit(_first([_take_down(path, s) for path, s in found.items()]))
    if not found:
        raise NotRunningError(
            f"no {kind} is up" if kind else "nothing is up", f"{_STARTS[kind]} starts one"
        )
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} {kind or 'thing'}s are up: {candidates(found.values())}",
            "say which, or --all: sshvpn down NAME",
        )
    for path, snapshot in found.items():
        context.exit(_take_down(path, snapshot))


_STARTS = {
    None: "sshvpn up HOST, or sshvpn forward -b HOST SPEC,",
    "tunnel": "sshvpn up HOST",
    "forward": "sshvpn forward -b HOST SPEC",
}


def _take_down_names(names: tuple[str, ...], found: dict[Path, dict[str, Any]], kind: str) -> int:
    """Take down all that is called so: the tunnel and the forwards, where it is both."""
    codes = []
    for name in dict.fromkeys(names):
        named = {path: snapshot for path, snapshot in found.items() if snapshot["name"] == name}
        codes += [_take_down(path, snapshot) for path, snapshot in named.items()]
        if not named:
            what = "nothing" if kind == "thing" else f"no {kind}"
            codes.append(tell(NotRunningError(f"{what} called {name} is up", "see: sshvpn status")))
    return _first(codes)


def _take_down(path: Path, snapshot: dict[str, Any]) -> int:
    name = str(snapshot["name"])
    try:
        control.take_down(path, lambda text: click.echo(f"sshvpn: {name}: {text}", err=True))
    except SshvpnError as error:
        return tell(error, name)
    click.echo(f"{name} is down")
    if unit_of(snapshot) in privilege.left_units():  # its helper was killed
        try:
            return sweep_kernel()
        except SshvpnError as error:
            return tell(error, name)
    return 0


def _first(codes: list[int]) -> int:
    return next((code for code in codes if code), 0)

"""``sshvpn status``: what is up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sshvpn import control
from sshvpn.cli.completers import complete_name
from sshvpn.errors import NotRunningError
from sshvpn.wiring import places

if TYPE_CHECKING:
    from sshvpn.control_watch import Watcher

SCHEMA = 1
_LOOK_EVERY_S = 1.0

_Records = list[dict[str, Any]]


@click.command(short_help="Show what is up, and its URLs.")
@click.argument("name", required=False, shell_complete=complete_name)
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@click.option(
    "--watch",
    is_flag=True,
    help="Go on showing it, until Ctrl-C; with --json a line whenever something changes.",
)
def status(name: str | None, *, as_json: bool, watch: bool) -> None:
    """Show what is up, since when, who can reach it and at which URL.

    NAME shows all that there is to say of one; it is an error (exit 3) when nothing of that name
    is up.
    """
    if watch:
        _watch(name, as_json=as_json)
        return
    found = control.snapshots(places.runtimes())
    _tell_of_the_mute(found)
    tunnels, forwards = _records(found.values(), name)
    if as_json:
        click.echo(json.dumps(_document(tunnels, forwards), indent=2))
    elif not (tunnels or forwards):
        click.echo("nothing is up")
    else:
        traffic = {said["records"][0]["pid"]: said["traffic"] for said in found.values()}
        _print(tunnels, forwards, traffic if name is not None else None)


def _records(snapshots: Iterable[Mapping[str, Any]], name: str | None) -> tuple[_Records, _Records]:
    """Return the records of tunnels and those of forwards, of NAME alone where one is said."""
    tunnels: _Records = []
    forwards: _Records = []
    for snapshot in sorted(snapshots, key=_by_name):
        if name in (None, snapshot["name"]):
            of_kind = tunnels if snapshot["kind"] == "tunnel" else forwards
            of_kind += snapshot["records"]
    if name is not None and not (tunnels or forwards):
        raise NotRunningError(f"nothing called {name} is up", "see: sshvpn status")
    return tunnels, forwards


def _document(tunnels: _Records, forwards: _Records) -> dict[str, Any]:
    return {"schema": SCHEMA, "tunnels": tunnels, "forwards": forwards}


def _by_name(snapshot: Mapping[str, Any]) -> tuple[str, list[str]]:
    return snapshot["name"], snapshot["wanted"]


def _print(
    tunnels: _Records, forwards: _Records, traffic: Mapping[int, Mapping[str, Any]] | None
) -> None:
    """Print all that there is to say where ``traffic`` by process is given, else a table."""
    from datetime import datetime

    from sshvpn.cli.status_view import details, table

    now = datetime.now().astimezone()
    if traffic is not None:
        shown = [details(record, now, traffic[record["pid"]]) for record in (*tunnels, *forwards)]
        click.echo("\n\n".join(shown))
    else:
        click.echo(table(tunnels, forwards, now))


def _tell_of_the_mute(found: Mapping[Path, Mapping[str, Any]]) -> None:
    for directory in control.session_dirs(places.runtimes()):
        if directory not in found and control.is_alive(directory):
            click.echo(f"sshvpn: {directory.name} lives and does not answer", err=True)


def _watch(name: str | None, *, as_json: bool) -> None:
    import time

    from sshvpn.control_watch import Watcher

    _records(control.snapshots(places.runtimes()).values(), name)
    screen = _Lines() if as_json else _Screen()
    watcher = Watcher(places.runtimes())
    try:
        while True:
            watcher.look()
            next_look = time.monotonic() + _LOOK_EVERY_S
            while (left := next_look - time.monotonic()) > 0:
                if watcher.wait(left):
                    screen.show(watcher, name)
            screen.show(watcher, name)  # the clocks of those who wait go on
    finally:
        watcher.close()
        screen.close()


class _Screen:
    """The live view, for people."""

    def __init__(self) -> None:
        from sshvpn.cli.live import LiveView

        self._view = LiveView(hint="Ctrl-C ends the watching")
        self._view.start()

    def show(self, watcher: Watcher, name: str | None) -> None:
        said = sorted(watcher.snapshots(), key=_by_name)
        shown = [one for one in said if name in (None, one["name"])]
        self._view.update(shown, [f"{mute} lives and does not answer" for mute in watcher.mute()])

    def close(self) -> None:
        self._view.stop()


class _Lines:
    """A document a line, for programs, whenever anything is other than before."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, watcher: Watcher, name: str | None) -> None:
        shown = [one for one in watcher.snapshots() if name in (None, one["name"])]
        line = json.dumps(_document(*_records(shown, None)))
        if line != self._last:
            self._last = line
            click.echo(line)

    def close(self) -> None:
        """Nothing is left to be said."""

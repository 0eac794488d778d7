"""``sshvpn status``: what is up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sshvpn import control, wiring
from sshvpn.cli.completers import complete_name
from sshvpn.errors import NotRunningError

SCHEMA = 1


@click.command(short_help="Show what is up, and its URLs.")
@click.argument("name", required=False, shell_complete=complete_name)
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@click.option("--watch", is_flag=True, help="Go on showing it, until Ctrl-C.")
def status(name: str | None, *, as_json: bool, watch: bool) -> None:
    """Show what is up, since when, and at which URL.

    NAME shows one thing; it is an error (exit 3) when nothing of that name is up.
    """
    if watch and not as_json:
        _watch(name)
        return
    found = control.snapshots(wiring.runtimes())
    _tell_of_the_mute(found)
    records = _records(found, name)
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "tunnels": [], "forwards": records}, indent=2))
    elif not records:
        click.echo("nothing is up")
    else:
        click.echo(_table(records))


def _records(found: Mapping[Path, Mapping[str, Any]], name: str | None) -> list[dict[str, Any]]:
    records = [record for snapshot in found.values() for record in snapshot["records"]]
    if name is None:
        return records
    named = [record for record in records if record["name"] == name]
    if not named:
        raise NotRunningError(f"nothing called {name} is up", "see: sshvpn status")
    return named


def _tell_of_the_mute(found: Mapping[Path, Mapping[str, Any]]) -> None:
    for directory in control.session_dirs(wiring.runtimes()):
        if directory not in found and control.is_alive(directory):
            click.echo(f"sshvpn: {directory.name} lives and does not answer", err=True)


def _table(records: list[dict[str, Any]]) -> str:
    head = ("NAME", "STATE", "SINCE", "WHERE", "TO")
    rows = [head, *(_row(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    errors = [
        f"{record['name']}: {record['last_error']['message']}"
        for record in records
        if record["last_error"]
    ]
    return "\n".join([line.rstrip() for line in lines] + list(dict.fromkeys(errors)))


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    from datetime import datetime

    since = datetime.fromisoformat(record["since"].replace("Z", "+00:00")).astimezone()
    where = record["url"] or "-"
    target = record["target"]
    if record["direction"] == "remote":
        where = f"{record['host']} {', '.join(record['listen']) or '-'}"
        target = f"{target} here"
    else:
        target = f"{record['host']} {target}"
    is_today = since.date() == datetime.now().astimezone().date()
    shown = f"{since:%H:%M:%S}" if is_today else f"{since:%Y-%m-%d %H:%M}"
    return (record["name"], record["state"], shown, where, target)


def _watch(name: str | None) -> None:
    import time

    from sshvpn.cli.live import LiveView

    _records(control.snapshots(wiring.runtimes()), name)
    view = LiveView(hint="Ctrl-C ends the watching")
    view.start()
    try:
        while True:
            found = list(control.snapshots(wiring.runtimes()).values())
            shown = [s for s in found if name in (None, s["name"])]
            records = [record for snapshot in shown for record in snapshot["records"]]
            one = shown[0]["traffic"] if len(shown) == 1 else None
            view.update({"forwards": records, "traffic": one, "notices": []})
            time.sleep(1)
    finally:
        view.stop()

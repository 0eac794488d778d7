"""``sshvpn clean``: remove what a crash left behind."""

from __future__ import annotations

import click

from sshvpn import control, wiring


@click.command(short_help="Remove what a crash left behind.")
def clean() -> None:
    """Remove what a session that was killed has left, and nothing else.

    Nothing there: nothing happens. What runs is not touched.
    """
    removed = control.sweep(wiring.runtimes())
    for directory in removed:
        click.echo(f"removed {directory}")
    if not removed:
        click.echo("nothing was left behind")

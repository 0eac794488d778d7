"""``sshvpn clean``: remove what a crash left behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sshvpn import control
from sshvpn.cli.completers import complete_name
from sshvpn.cli.main import tell
from sshvpn.cli.options import kind_options
from sshvpn.errors import SshvpnError, UsageError
from sshvpn.wiring import places, privilege


@click.command(short_help="Remove what a crash left behind.")
@click.argument("name", required=False, shell_complete=complete_name)
@kind_options
@click.pass_context
def clean(context: click.Context, name: str | None, session: str | None) -> None:
    """Remove what sessions that were killed have left on this machine, and nothing else.

    Nothing there: nothing happens, and nobody is asked. For what is left in the kernel sudo asks
    as it does for up; under sudo it is that of all users. What runs is not touched. A server
    undoes its end by itself. NAME: of that tunnel alone, for which sudo asks in any case; with
    --forward of that forward, for which nobody is asked.
    """
    if name is None and session is not None:
        raise UsageError(f"--{session} needs a NAME", "sshvpn clean alone is for all")
    if name is not None:
        if session == "forward":
            _sweep_sessions(f"forward-{control.forward_id(name)}")
        else:
            _clean_tunnel(name)
        return
    removed = _sweep_sessions()
    has_left = bool(_left())
    code = sweep_kernel() if has_left else 0
    if not removed and not has_left:
        click.echo("nothing was left behind")
    context.exit(code)


def _sweep_sessions(only: str | None = None) -> list[Path]:
    removed = control.sweep(places.runtimes(), only)
    for directory in removed:
        click.echo(f"removed {directory}")
    return removed


def sweep_kernel() -> int:
    """Remove what killed helpers have left in the kernel, tell what, and return the exit code.

    Raises PrivilegeError where sudo does not let us.
    """
    before = _left()
    failed = privilege.sweep_kernel()
    left = _left() & before
    for unit in sorted(before - left):
        click.echo(f"removed sshvpn{unit}, and what belongs to it")
    for text in failed:
        click.echo(f"sshvpn: not removed: {text}", err=True)
    if failed:
        return SshvpnError.exit_code
    if left:
        names = ", ".join(f"sshvpn{unit}" for unit in sorted(left))
        return tell(SshvpnError(f"another user's are left: {names}", "sudo sshvpn clean"))
    return 0


def _left() -> set[int]:
    """Return the units that killed helpers left, but for those of tunnels that are up."""
    living = control.snapshots(places.runtimes()).values()
    return privilege.left_units() - {unit for one in living if (unit := unit_of(one)) is not None}


def unit_of(snapshot: Mapping[str, Any]) -> int | None:
    """Return the number of a tunnel's device, None for a forward."""
    device = str(snapshot["records"][0].get("device") or "") if snapshot["records"] else ""
    number = device.removeprefix("sshvpn")
    return int(number) if number.isdecimal() else None


def _clean_tunnel(name: str) -> None:
    privilege.leave_root(1)
    failed = privilege.sweep_tunnel(name)
    _sweep_sessions(f"tunnel-{control.tunnel_id(name)}")
    if failed:
        raise SshvpnError(f"not removed: {'; '.join(failed)}", "as root: sshvpn clean")

"""``sshvpn restart``: a new connection, with the profile as it is now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sshvpn import control
from sshvpn.cli.attach import QUIET, restart as ask_for_restart
from sshvpn.cli.completers import complete_name
from sshvpn.cli.forward_request import ForwardWords, build_profile
from sshvpn.cli.main import tell
from sshvpn.cli.notebook_request import NotebookWords, build_profile as build_notebook
from sshvpn.cli.tunnel_request import TunnelWords, build_profiles
from sshvpn.cli.typed import words_of
from sshvpn.errors import NotRunningError, SshvpnError, UsageError
from sshvpn.model import ForwardProfile, TunnelProfile
from sshvpn.services import KINDS
from sshvpn.wiring import places, services

_VARIABLE = "SSHVPN_CONFIG"


@click.command(short_help="Make a new connection, with the profile as it is now.")
@click.argument("name", shell_complete=complete_name)
@click.option("--tunnel", "kind", flag_value="tunnel", help="The tunnel of that name.")
@click.option("--forward", "kind", flag_value="forward", help="The forwards of that name.")
@click.option("-v", "--verbose", is_flag=True, help="Print each change as it is made.")
@click.pass_context
def restart(context: click.Context, name: str, *, kind: str | None, verbose: bool) -> None:
    """Make a new connection for NAME; return when it works.

    What was edited in its profile is applied as a difference, beneath what was typed when it was
    started; connections through it that are open live on. A profile that does not work is told,
    and the one before goes on.
    """
    found = {
        path: snapshot
        for path, snapshot in control.snapshots(places.runtimes()).items()
        if snapshot["name"] == name and kind in (None, snapshot["kind"])
    }
    if not found:
        raise NotRunningError(f"nothing called {name} is up", "see: sshvpn status")
    hidden = ("debug",) if verbose else QUIET
    codes = [_restart(path, snapshot, hidden) for path, snapshot in found.items()]
    context.exit(next((code for code in codes if code), 0))


def _restart(path: Path, snapshot: dict[str, Any], hidden: tuple[str, ...]) -> int:
    name = str(snapshot["name"])
    try:
        ask_for_restart(path, profile_now(path, snapshot), hidden)
    except SshvpnError as error:
        return tell(error, name)
    except OSError:
        return tell(NotRunningError(f"{name} has ended meanwhile", "see: sshvpn logs"), name)
    click.echo(f"{name} has a new connection")
    return 0


@contextlib.contextmanager
def _configuration_of(snapshot: dict[str, Any]) -> Iterator[None]:
    """Let the session's configuration be read, which is a service's own where it is one."""
    kind, name = KINDS.get(snapshot["kind"]), str(snapshot["name"])
    unit = services.unit_of_process(int(snapshot["records"][0]["pid"]))
    if kind is None or unit != kind.unit_of(name):
        yield
        return
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(services.configuration(kind, name))
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before


def profile_now(path: Path, snapshot: dict[str, Any]) -> ForwardProfile | TunnelProfile | None:
    """Return the profile of the words that it was started with; None where there are none."""
    reply = control.request(path, "typed") or {}
    typed = reply.get("typed")
    if not typed:
        return None
    profile: ForwardProfile | TunnelProfile
    with _configuration_of(snapshot):
        if snapshot["kind"] == "tunnel":
            [profile] = build_profiles(words_of(TunnelWords, typed))
        elif "notebook" in snapshot["records"][0]:
            profile = build_notebook(words_of(NotebookWords, typed))
        else:
            profile = build_profile(words_of(ForwardWords, typed))
    was, is_now = snapshot["records"][0]["host"], profile.host
    if was != is_now == snapshot["name"]:
        raise UsageError(
            f"there is no profile {is_now} any more", f"take it down: sshvpn down {is_now}"
        )
    # Who shared with the networks that were there then has not said it of those that are now.
    profile = replace(profile, lan_trusts=False)
    if places.session_path(profile).name != path.name:
        raise UsageError(
            "it would be another one, with the configuration as it is now",
            f"take it down and up again: sshvpn down {snapshot['name']}",
        )
    return profile

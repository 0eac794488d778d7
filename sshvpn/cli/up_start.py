"""What ``sshvpn up`` does: a tunnel in a process of its own, in this one, or only as commands."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import click

from sshvpn.cli.attach import CHANGE, QUIET, Snapshot, follow_start, join, wait_for, wait_told
from sshvpn.cli.front import flush, make_front
from sshvpn.cli.hosts import START_WITHIN_S, checked_keepalive, checked_timeout
from sshvpn.cli.lan_options import TypedWishes
from sshvpn.cli.main import tell
from sshvpn.cli.reach import reach
from sshvpn.cli.tunnel_request import TunnelWords, build_profiles
from sshvpn.control import AlreadyUpError
from sshvpn.errors import SshvpnError, TakenError
from sshvpn.model import SshOptions, Transport, TunnelProfile
from sshvpn.wiring import lan, places, tunnels

_AS_TYPED = (
    "hosts",
    "name",
    "routes",
    "exclude",
    "lan",
    "lan_interfaces",
    "lan_address",
    "publish",
    "nat",
    "streams",
    "mtu",
    "address",
    "metrics",
)


def run(
    ssh: SshOptions, wishes: TypedWishes, given: Mapping[str, Any], begun: socket.socket | None
) -> int:
    """Build the profiles, run each, and return the exit code.

    ``given`` has the other options by their names; ``begun`` is a process that loads already, for
    the first one. Raises what stopped the only one.
    """
    verbose, transport, is_foreground = given["verbose"], given["transport"], given["foreground"]
    words = TunnelWords(
        **{key: given[key] for key in _AS_TYPED},
        transport=None if transport is None else Transport(transport),
        timeout_s=checked_timeout(given["timeout_s"]),
        keepalive_s=checked_keepalive(given["keepalive_s"]),
        default_timeout_s=None if is_foreground else START_WITHIN_S,
        ssh=ssh,
        wishes=wishes,
    )
    profiles = build_profiles(words)
    if given["dry_run"]:
        click.echo("\n".join(tunnels.dry_run(profiles[0])))
        return 0
    if is_foreground:
        return _run_foreground(profiles[0], verbose=verbose)
    return _run_background(profiles, begun, verbose=verbose)


# In the foreground ---------------------------------------------------------------------------


class _Reach:
    """Says once how all is reachable. Implements front.Extras."""

    def __init__(self) -> None:
        self._is_done = False

    def is_due(self, snapshot: Mapping[str, Any]) -> bool:
        return not self._is_done and snapshot["state"] == "running"

    def once_running(self, snapshot: Mapping[str, Any]) -> int:
        if self.is_due(snapshot):
            self._is_done = True
            _show(snapshot)
        return 0


def _run_foreground(profile: TunnelProfile, *, verbose: bool) -> int:
    hidden = ("debug",) if verbose else ("debug", CHANGE)
    try:
        return tunnels.run_tunnel(
            profile,
            lambda: make_front(profile.name, _Reach(), verbose=verbose, hidden=hidden),
            verbose=verbose,
        )
    except AlreadyUpError as error:
        raise TakenError(
            f"{profile.name} is up already", f"see: sshvpn status; end it: {_down(profile)}"
        ) from error


# In the background ---------------------------------------------------------------------------


def _run_background(
    profiles: Sequence[TunnelProfile], begun: socket.socket | None, *, verbose: bool
) -> int:
    """Start all, then wait for each; return the exit code of the first that failed.

    They are started one after the other: sudo may ask at the terminal.
    """
    first, *others = profiles
    started = [_start(first, begun, verbose=verbose)]
    started += [_start(profile, None, verbose=verbose) for profile in others]
    if len(profiles) == 1:
        _finish(profiles[0], started[0], verbose=verbose)
        return 0
    codes = [
        _finish_or_tell(profile, launched, verbose=verbose)
        for profile, launched in zip(profiles, started, strict=True)
    ]
    return next((code for code in codes if code), 0)


def _start(
    profile: TunnelProfile, begun: socket.socket | None, *, verbose: bool
) -> socket.socket | SshvpnError:
    try:
        return tunnels.start_tunnel(profile, begun, verbose=verbose)
    except SshvpnError as error:
        return error


def _finish_or_tell(
    profile: TunnelProfile, launched: socket.socket | SshvpnError, *, verbose: bool
) -> int:
    try:
        _finish(profile, launched, verbose=verbose)
    except SshvpnError as error:
        return tell(error, profile.name)
    return 0


def _finish(
    profile: TunnelProfile, launched: socket.socket | SshvpnError, *, verbose: bool
) -> None:
    """Return when it runs and all is said. Raises what stopped it."""
    hidden = ("debug",) if verbose else QUIET
    if isinstance(launched, SshvpnError) and not isinstance(launched, AlreadyUpError):
        raise launched
    snapshot = None
    if isinstance(launched, socket.socket):
        snapshot = follow_start(launched, hidden)
    if snapshot is not None:
        click.echo(f"{profile.name} is up")
    else:
        snapshot = _join(profile, hidden)
        click.echo(f"{profile.name} is up already", err=True)
    _show(wait_told(profile, places.session_path(profile), snapshot))


def _join(profile: TunnelProfile, hidden: Sequence[str]) -> Snapshot:
    others = TakenError(f"{profile.name} is up with other wishes", f"first: {_down(profile)}")
    snapshot = join(profile, others, hidden)
    if not profile.lan_trusts:
        return snapshot
    lan.trust_lan(profile)
    # It finds by itself that it may share now.
    directory = places.session_path(profile)
    return wait_for(profile.name, directory, lambda said: bool(said["records"][0]["lan"]))


def _down(profile: TunnelProfile) -> str:
    return f"sshvpn down {profile.name}"


def _show(snapshot: Mapping[str, Any]) -> None:
    for record in snapshot["records"]:
        click.echo("\n".join(reach(record, snapshot["wanted"])))
    flush()

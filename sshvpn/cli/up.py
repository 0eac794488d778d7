"""``sshvpn up``: the VPN to a host, in the background or (for service managers) the foreground."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from sshvpn import __version__
from sshvpn.cli.attach import CHANGE, QUIET, Snapshot, follow_start, join, wait_for, wait_told
from sshvpn.cli.completers import complete_hosts
from sshvpn.cli.front import flush, make_front
from sshvpn.cli.hosts import START_WITHIN_S, checked_keepalive, checked_timeout
from sshvpn.cli.lan_options import PortalCommand, TypedWishes, lan_options
from sshvpn.cli.main import tell
from sshvpn.cli.options import keepalive_option, metrics_option, ssh_options
from sshvpn.cli.reach import reach
from sshvpn.cli.tunnel_request import TunnelWords, build_profiles
from sshvpn.control import AlreadyUpError
from sshvpn.errors import SshvpnError, TakenError, UsageError
from sshvpn.model import SshOptions, Transport, TunnelProfile
from sshvpn.wiring import lan, places, privilege, tunnels

FC = TypeVar("FC", bound=Callable[..., Any])

HELP = """Bring up the VPN to HOST, and keep it up until: sshvpn down.

\b
sshvpn up alice@example.com                  the remote host, from this machine
sshvpn up gpu-box --lan --publish 8888       its notebook, for the whole local network
sshvpn up office -r 10.20.0.0/16             a network behind it
sshvpn up office -r default                  everything goes through it

HOST is what ssh takes, an alias of ssh_config, or a profile's name. Returns when a packet has
really crossed the tunnel. Several HOSTs give several tunnels. Without HOST: $SSHVPN_HOST,
default_host of the configuration, or the one tunnel that is up.
"""


def _not_yet(_context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value not in (None, False):
        option = parameter.opts[0]
        raise UsageError(f"{option} is not in this version ({__version__})", "leave it out")


def _later(*names: str, **attributes: Any) -> Callable[[FC], FC]:
    """Add an option of the contract that this version has not."""
    return click.option(
        *names, **attributes, hidden=True, expose_value=False, callback=_not_yet, default=None
    )


@click.command(cls=PortalCommand, help=HELP, short_help="Bring up the VPN to a host.")
@click.argument("hosts", nargs=-1, metavar="HOST...", shell_complete=complete_hosts)
@click.option(
    "--lan/--no-lan",
    "lan",
    default=None,
    help="Share with the machines of this local network; saying so is the trust in it. "
    "Not said: you are asked once a network.",
)
@click.option(
    "--lan-interface",
    "lan_interfaces",
    metavar="IFACE",
    multiple=True,
    help="Share on this adapter only (repeatable).",
)
@click.option(
    "--lan-address",
    metavar="IP",
    help="A free address of the local network, under which the remote host appears there.",
)
@click.option(
    "--publish",
    metavar="[BIND:][PORT:][HOST:]PORT",
    multiple=True,
    help="A service of the remote host, at this machine's addresses (repeatable); also one that "
    "listens on the remote's localhost only.",
)
@click.option(
    "-r",
    "--route",
    "routes",
    metavar="CIDR",
    multiple=True,
    help="A network behind HOST, like 10.20.0.0/16 or fd20::/48 (repeatable); the word default "
    "sends everything.",
)
@click.option(
    "-x",
    "--exclude",
    metavar="CIDR",
    multiple=True,
    help="But not this one (repeatable).",
)
@click.option(
    "--nat/--no-nat",
    "nat",
    default=None,
    help="Let others appear under the tunnel's addresses, which works everywhere (default); or "
    "keep their own, with return routes on the server.",
)
@click.option(
    "--transport",
    metavar="auto|w|stream",
    type=click.Choice([transport.value for transport in Transport]),
    help="How packets travel; w: OpenSSH's own tunnel; stream: our packet pump over a "
    "session of ssh; auto: stream where the server can (default).",
)
@click.option(
    "--streams",
    metavar="N",
    type=int,
    help="So many connections of ssh, for the transport stream (default: 1).",
)
@click.option(
    "--mtu", metavar="N", type=int, help="The largest packet, in bytes; default: what fits."
)
@click.option(
    "--address",
    metavar="CIDR",
    help="The tunnel's own addresses; default: some that nobody has on either side.",
)
@click.option("--foreground", is_flag=True, help="Stay, and tell what happens: for systemd.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    metavar="SECONDS",
    help="How long the first start may take, prompts not counted; 30 unless said, in the "
    "foreground without bound.",
)
@keepalive_option
@click.option(
    "--dry-run", is_flag=True, help="Print what would be changed on both machines; change nothing."
)
@click.option("--name", metavar="NAME", help="The name in status and down; else the host.")
@lan_options
@metrics_option
@_later("--portal-tokens", is_flag=True)
@_later("--dns", is_flag=True)
@_later("--dns-domain", metavar="NAME")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Print each change to both machines as it is made; the log has what ssh says, too.",
)
@ssh_options
@click.pass_context
def up(context: click.Context, /, ssh: SshOptions, wishes: TypedWishes, **given: Any) -> None:
    """Build the profiles, and run each in a process of its own, or the one here."""
    hosts, verbose = given["hosts"], given["verbose"]
    transport, is_foreground = given["transport"], given["foreground"]
    if is_foreground and len(hosts) > 1:
        raise UsageError("--foreground is for one HOST", "start one for each")
    words = TunnelWords(
        **{key: given[key] for key in _AS_TYPED},
        transport=None if transport is None else Transport(transport),
        timeout_s=checked_timeout(given["timeout_s"]),
        keepalive_s=checked_keepalive(given["keepalive_s"]),
        default_timeout_s=None if is_foreground else START_WITHIN_S,
        ssh=ssh,
        wishes=wishes,
    )
    # Before the configuration is read: under sudo that is the caller's.
    privilege.leave_root(max(len(hosts), 1))
    profiles = build_profiles(words)
    if given["dry_run"]:
        for profile in profiles:
            click.echo("\n".join(tunnels.dry_run(profile)))
    elif is_foreground:
        context.exit(_run_foreground(profiles[0], verbose=verbose))
    else:
        context.exit(_run_background(profiles, verbose=verbose))


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


# In the foreground ---------------------------------------------------------------------------


class _Reach:
    """Says once how all is reachable. Implements front.Extras."""

    def __init__(self) -> None:
        self._is_done = False

    def is_due(self, snapshot: Mapping[str, Any]) -> bool:
        return not self._is_done and snapshot["state"] == "running"

    def once_running(self, snapshot: Mapping[str, Any]) -> None:
        if self.is_due(snapshot):
            self._is_done = True
            _show(snapshot)


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


def _run_background(profiles: Sequence[TunnelProfile], *, verbose: bool) -> int:
    """Start all, then wait for each; return the exit code of the first that failed.

    They are started one after the other: sudo may ask at the terminal.
    """
    started = [_start(profile, verbose=verbose) for profile in profiles]
    if len(profiles) == 1:
        _finish(profiles[0], started[0], verbose=verbose)
        return 0
    codes = [
        _finish_or_tell(profile, launched, verbose=verbose)
        for profile, launched in zip(profiles, started, strict=True)
    ]
    return next((code for code in codes if code), 0)


def _start(profile: TunnelProfile, *, verbose: bool) -> socket.socket | SshvpnError:
    try:
        return tunnels.start_tunnel(profile, verbose=verbose)
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
        click.echo("\n".join(reach(record)))
    flush()

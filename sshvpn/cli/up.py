"""``sshvpn up``: its options, and what is begun before all that it needs is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sshvpn import __version__
from sshvpn.cli import early
from sshvpn.cli.completers import complete_hosts
from sshvpn.cli.lan_options import PortalCommand, TypedWishes, lan_options
from sshvpn.cli.options import keepalive_option, metrics_option, ssh_options
from sshvpn.errors import UsageError
from sshvpn.model import SshOptions, Transport
from sshvpn.wiring import beginning, privilege

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
    """Let what will be needed load beside this, and do what was asked for."""
    hosts, is_foreground = given["hosts"], given["foreground"]
    if is_foreground and len(hosts) > 1:
        raise UsageError("--foreground is for one HOST", "start one for each")
    if given["dry_run"] and len(hosts) > 1:
        # What another one gets depends on the one before: its device, its routes.
        raise UsageError("--dry-run is for one HOST", "look at one after the other")
    # Before the configuration is read: under sudo that is the caller's.
    privilege.leave_root(max(len(hosts), 1))
    begun = None
    if hosts and not (is_foreground or given["dry_run"]):
        name = given["name"] or hosts[0]
        begun = early.take(name) or beginning.begin_tunnel(name)
    with begun or contextlib.nullcontext():
        from sshvpn.cli import up_start

        context.exit(up_start.run(ssh, wishes, given, begun))

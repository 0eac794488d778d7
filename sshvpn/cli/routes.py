"""``sshvpn routes``: what a machine of the LAN, or its router, needs for a tunnel's networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from sshvpn import client_routes, control
from sshvpn.cli import tunnel_view
from sshvpn.cli.completers import complete_name
from sshvpn.client_routes import System
from sshvpn.errors import NotRunningError, SshvpnError, UsageError
from sshvpn.wiring import outside, places

HELP = """Show what a machine of the LAN, or the LAN's router, needs for the networks of NAME.

\b
linux, macos, windows   the commands for one machine
dnsmasq                 lines for the DHCP server: all machines at once
openwrt                 the commands for the router

Only for machines that do not have this one as their router: those need nothing.
"""


@click.command(help=HELP, short_help="Show what a machine of the LAN needs for the networks.")
@click.argument("name", shell_complete=complete_name)
@click.option(
    "--format",
    "system",
    type=click.Choice([system.value for system in System]),
    default=System.LINUX.value,
    help="For whom; linux unless said.",
)
def routes(name: str, *, system: str) -> None:
    """Print the text for one system."""
    record = _tunnel(name)
    if record["remote_addresses"] is None:
        raise SshvpnError(
            f"{name} is not up yet: its addresses are not known",
            "try again when sshvpn status says running",
        )
    if not record["lan"]:
        raise SshvpnError(f"{name} is not shared with a LAN", f"share it: sshvpn up {name} --lan")
    routers = outside.ipv4_routers(lan["interface"] for lan in record["lan"])
    lans = client_routes.lans_of(record["lan"], routers)
    routed = tunnel_view.routed(record)  # an address of the LAN needs nothing there
    destinations = client_routes.destinations_of(routed, record["remote_addresses"])
    click.echo(client_routes.client_routes(destinations, lans, System(system)), nl=False)


def _tunnel(name: str) -> Mapping[str, Any]:
    """Return the record of the tunnel NAME. Raises NotRunningError, UsageError for a forward."""
    found = [
        snapshot
        for snapshot in control.snapshots(places.runtimes()).values()
        if snapshot["name"] == name
    ]
    for snapshot in found:
        if snapshot["kind"] == "tunnel":
            record: Mapping[str, Any] = snapshot["records"][0]
            return record
    if found:
        raise UsageError(
            f"{name} is a forward, and has no routes", f"who can reach it: sshvpn status {name}"
        )
    raise NotRunningError(f"nothing called {name} is up", "see: sshvpn status")

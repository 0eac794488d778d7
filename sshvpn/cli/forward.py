"""``sshvpn forward``: port forwards, in the foreground or the background."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click

from sshvpn.cli.attach import QUIET, Snapshot, follow_start, join, wait_for, wait_told
from sshvpn.cli.completers import complete_host
from sshvpn.cli.forward_request import ForwardWords, build_profile
from sshvpn.cli.front import ForwardExtras, flush, make_front
from sshvpn.cli.hosts import START_WITHIN_S, checked_keepalive, checked_timeout
from sshvpn.cli.lan_options import PortalCommand, TypedWishes, lan_options
from sshvpn.cli.options import keepalive_option, metrics_option, ssh_options, verbose_option
from sshvpn.cli.told import told
from sshvpn.cli.tunnel_view import aligned
from sshvpn.control import AlreadyUpError
from sshvpn.errors import TakenError
from sshvpn.model import EngineName, ForwardProfile, SshOptions
from sshvpn.wiring import forwards, lan, places

HELP = """Forward ports through HOST.

\b
SPEC                      as in ssh -L, and shorter:
  8888                    here 8888, to 8888 at the server
  9999:8888               here 9999, to 8888 at the server
  9999:db.internal:5432   to what the server reaches as db.internal
  192.168.1.5:9999:8888   listen on this address of ours
  0:8888                  any free port, which is printed
  /run/a.sock:/run/b.sock unix sockets, on either side

Without HOST: --host, $SSHVPN_HOST, default_host of the configuration, or the one tunnel that
is up. A HOST may be a profile's name. Listens on loopback unless --bind, --lan or the SPEC
says otherwise.
"""


@click.command(cls=PortalCommand, help=HELP, short_help="Forward ports through a host.")
@click.argument("words", nargs=-1, metavar="[HOST] SPEC...", shell_complete=complete_host)
@click.option("-L", "local", metavar="SPEC", multiple=True, help="A SPEC, as ssh has it.")
@click.option(
    "-R", "remote", metavar="SPEC", multiple=True, help="The server listens, we connect here."
)
@click.option("-D", "dynamic", metavar="[BIND:]PORT", multiple=True, help="A SOCKS proxy here.")
@click.option(
    "--host",
    metavar="HOST",
    shell_complete=complete_host,
    help="The host, where it is not one of the words.",
)
@click.option(
    "--bind",
    "binds",
    metavar="ADDRESS|INTERFACE",
    multiple=True,
    help="Listen there instead of on loopback (repeatable).",
)
@click.option(
    "--lan/--no-lan",
    "lan",
    default=None,
    help="Listen on the adapters of the local network; saying so is the trust in it.",
)
@click.option(
    "--engine",
    type=click.Choice([engine.value for engine in EngineName]),
    help="auto: the system's OpenSSH where there is one, else the sshtunnel library.",
)
@click.option("-b", "--background", is_flag=True, help="Return when it works; sshvpn down ends it.")
@click.option("--open", "browser", is_flag=True, help="Open the browser once it answers.")
@click.option("--qr", is_flag=True, help="Print a QR code of the URL as the LAN sees it.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    metavar="SECONDS",
    help="How long the first start may take, prompts not counted; with -b 30 unless said.",
)
@keepalive_option
@click.option("--name", metavar="NAME", help="The name in status and down; else the host.")
@click.option("-f", "forks", is_flag=True, hidden=True)  # ssh's word for it
@click.option("-n", "-N", "-T", "ignored", is_flag=True, hidden=True, expose_value=False)
@lan_options
@metrics_option
@verbose_option
@ssh_options
@click.pass_context
def forward(context: click.Context, /, ssh: SshOptions, wishes: TypedWishes, **given: Any) -> None:
    """Build the profile, and run it here or in a process of its own."""
    is_background = given["background"] or given["forks"]
    words = ForwardWords(
        words=given["words"],
        local=given["local"],
        remote=given["remote"],
        dynamic=given["dynamic"],
        host=given["host"],
        name=given["name"],
        binds=given["binds"],
        lan=given["lan"],
        engine=None if given["engine"] is None else EngineName(given["engine"]),
        metrics=given["metrics"],
        timeout_s=checked_timeout(given["timeout_s"]),
        keepalive_s=checked_keepalive(given["keepalive_s"]),
        default_timeout_s=START_WITHIN_S if is_background else None,
        ssh=ssh,
        wishes=wishes,
    )
    profile = build_profile(words)
    verbose = given["verbose"]
    extras = ForwardExtras(qr=given["qr"], browser=given["browser"])
    if is_background:
        context.exit(_run_background(profile, extras, verbose=verbose))
    try:
        code = forwards.run_forward(
            profile, lambda: make_front(profile.name, extras, verbose=verbose), verbose=verbose
        )
    except AlreadyUpError as error:
        raise TakenError(
            f"{profile.name} is up already", f"see: sshvpn status; end it: {_down(profile)}"
        ) from error
    context.exit(code)


def _down(profile: ForwardProfile) -> str:
    return f"sshvpn down {profile.name}"


def _run_background(profile: ForwardProfile, extras: ForwardExtras, *, verbose: bool) -> int:
    hidden = () if verbose else QUIET
    snapshot = follow_start(forwards.start_background(profile, verbose=verbose), hidden)
    if snapshot is None:
        snapshot = _join(profile, hidden)
        click.echo(f"{profile.name} is up already", err=True)
    snapshot = wait_told(profile, places.session_path(profile), snapshot)
    _show(profile, snapshot, extras)
    return 0


def _join(profile: ForwardProfile, hidden: Collection[str]) -> Snapshot:
    others = TakenError(
        f"{profile.name} is up with other forwards", f"first: {_down(profile)}, or use --name"
    )
    snapshot = join(profile, others, hidden)
    if not profile.lan_trusts:
        return snapshot
    lan.trust_lan(profile)
    # It finds by itself that it may share again.
    directory = places.session_path(profile)
    return wait_for(profile.name, directory, lambda said: all(r["listen"] for r in said["records"]))


def _show(profile: ForwardProfile, snapshot: Snapshot, extras: ForwardExtras) -> None:
    for record in snapshot["records"]:
        where = record["url"] or ", ".join(record["listen"])
        others = [listen for listen in record["listen"][1:] if "[::1]" not in listen]
        also = f" (also {', '.join(others)})" if others else ""
        if record["direction"] == "remote":
            click.echo(f"{profile.host} {record['listen'][0]} -> {record['target']} here")
        else:
            click.echo(f"{where} -> {profile.host} {record['target']}{also}")
    click.echo("".join(f"{line}\n" for line in aligned(told(snapshot["records"][0]))), nl=False)
    flush()
    extras.once_running(snapshot, wait=True)

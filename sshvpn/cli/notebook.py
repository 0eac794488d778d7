"""``sshvpn notebook``: Jupyter at a server, started or found, forwarded and opened here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from sshvpn import control
from sshvpn.cli.attach import (
    QUIET,
    Snapshot,
    follow_start,
    is_terminal,
    join,
    restart,
    snapshot_of,
    wait_told,
)
from sshvpn.cli.browser import answers
from sshvpn.cli.completers import complete_host
from sshvpn.cli.front import make_front
from sshvpn.cli.group import CommandGroup
from sshvpn.cli.hosts import checked_timeout
from sshvpn.cli.lan_options import PortalCommand, TypedWishes, lan_options, tokens_option
from sshvpn.cli.notebook_request import NotebookWords, build_profile
from sshvpn.cli.notebook_view import NotebookExtras
from sshvpn.cli.options import ssh_options, verbose_option
from sshvpn.cli.told import told
from sshvpn.cli.tunnel_view import aligned
from sshvpn.control import AlreadyUpError, is_alive
from sshvpn.errors import NotRunningError, SshvpnError, TakenError, UsageError
from sshvpn.model import EngineName, ForwardProfile, JupyterWay, NotebookWish, SshOptions
from sshvpn.wiring import forwards, notebooks, places

if TYPE_CHECKING:
    from sshvpn.jupyter import Found
    from sshvpn.remote.notebook_protocol import Server

HELP = """Start Jupyter on HOST, or find the one that runs there, and open it here.

Jupyter listens on HOST's own localhost, asks for its token, and goes on when you log out, lose
the connection or press Ctrl-C: the same command comes back to it, with all its kernels. It is
here at localhost:9999, or the next free port; --lan shows it to the tablets and laptops nearby.

\b
  sshvpn notebook HOST           in your home directory there
  sshvpn notebook HOST --dir D   in D: Jupyter sees only what is below it
  sshvpn notebook list HOST      what runs there
  sshvpn notebook stop HOST      end it, and its kernels

What a login shell there calls jupyter is taken, unless one is named. A HOST may be a profile's
name; a host that is called list: sshvpn notebook -- list.
"""


def host_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add HOST, one or none."""
    return click.argument("host", required=False, metavar="[HOST]", shell_complete=complete_host)(
        command
    )


@click.command(
    "notebook",
    cls=PortalCommand,
    help=HELP,
    short_help="Start or find Jupyter on a host, and open it.",
)
@host_argument
@click.option("--dir", "directory", metavar="DIR", help="The notebook directory at the server.")
@click.option("--command", metavar="COMMAND", help="What starts Jupyter there, with its arguments.")
@click.option("--python", metavar="PYTHON", help="A Python there that has Jupyter.")
@click.option("--venv", metavar="DIR", help="A virtual environment there that has Jupyter.")
@click.option("--conda-env", metavar="NAME", help="A conda environment there that has Jupyter.")
@click.option(
    "--port",
    "local_port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="The port here; else 9999, or the next free one.",
)
@click.option(
    "--lan/--no-lan",
    "lan",
    default=None,
    help="For the devices of the local network, too; saying so is the trust in it.",
)
@click.option(
    "--qr/--no-qr",
    "qr",
    default=None,
    help="Print a QR code of each URL as the LAN sees it; with --lan at a terminal, unless not.",
)
@click.option(
    "--browser/--no-browser", default=True, help="Open it in the browser here (where there is one)."
)
@click.option("-b", "--background", is_flag=True, help="Return when it works; sshvpn down ends it.")
@click.option(
    "--engine",
    type=click.Choice([engine.value for engine in EngineName]),
    help="auto: the system's OpenSSH where there is one, else the sshtunnel library.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    metavar="SECONDS",
    help="How long the first start may take, prompts not counted; 120 unless said.",
)
@click.option("--name", metavar="NAME", help="The name in status and down; else the host.")
@lan_options
@tokens_option
@verbose_option
@ssh_options
@click.pass_context
def open_notebook(
    context: click.Context, /, ssh: SshOptions, wishes: TypedWishes, **given: Any
) -> None:
    """Build the profile, and run it here or in a process of its own."""
    engine = given["engine"]
    built = build_profile(
        NotebookWords(
            host=given["host"],
            directory=given["directory"],
            jupyter={
                JupyterWay.COMMAND: given["command"],
                JupyterWay.PYTHON: given["python"],
                JupyterWay.VENV: given["venv"],
                JupyterWay.CONDA: given["conda_env"],
            },
            port=given["local_port"],
            lan=given["lan"],
            engine=None if engine is None else EngineName(engine),
            name=given["name"],
            timeout_s=checked_timeout(given["timeout_s"]),
            ssh=ssh,
            wishes=wishes,
        )
    )
    profile = _as_it_runs(built)
    if given["qr"] and not profile.lan:
        raise UsageError("--qr is for other devices, and the notebook is not shared", "add --lan")
    qr = profile.lan and is_terminal() if given["qr"] is None else given["qr"]
    extras = NotebookExtras(profile, qr=qr, browser=given["browser"])
    run = _run_background if given["background"] else _run_here
    against = said_against(given["lan"], wishes)
    context.exit(run(profile, extras, against, verbose=given["verbose"]))


notebook = CommandGroup(open_notebook)


def said_against(lan: bool | None, wishes: TypedWishes) -> set[str]:
    """Return what is said not to be, in the words of what is up and wants it."""
    return {*(["lan"] if lan is False else []), *(["no announce"] if wishes.announce else [])}


def _as_it_runs(profile: ForwardProfile) -> ForwardProfile:
    """Return ``profile`` as it is called where it is up: a service has its name for itself."""
    assert profile.notebook is not None  # noqa: S101 (build_profile makes no other)
    named = replace(profile, named=True)
    directory = places.session_path(named)
    if is_alive(places.session_path(profile)) or not is_alive(directory):
        return profile
    snapshot = snapshot_of(profile.name, directory)
    is_it = snapshot["records"][0]["host"] == profile.host
    return named if is_it and profile.notebook.wanted[0] in snapshot["wanted"] else profile


def _run_here(
    profile: ForwardProfile, extras: NotebookExtras, against: set[str], *, verbose: bool
) -> int:
    try:
        code = forwards.run_forward(
            profile, lambda: make_front(profile.name, extras, verbose=verbose), verbose=verbose
        )
    except AlreadyUpError:
        return _show_that_of_others(profile, extras, against, verbose=verbose)
    if extras.is_done:
        from sshvpn.jupyter import stop_line

        assert profile.notebook is not None  # noqa: S101 (build_profile makes no other)
        ends = stop_line(profile.host, profile.ssh, profile.notebook.directory or None)
        click.echo(f"Jupyter goes on at {profile.host}; {ends} ends it")
    return code


def _run_background(
    profile: ForwardProfile, extras: NotebookExtras, against: set[str], *, verbose: bool
) -> int:
    launched = forwards.start_background(profile, verbose=verbose)
    snapshot = follow_start(launched, () if verbose else QUIET)
    if snapshot is None:
        return _show_that_of_others(profile, extras, against, verbose=verbose)
    extras.once_running(snapshot)
    snapshot = wait_told(profile, places.session_path(profile), snapshot)
    click.echo("".join(f"{line}\n" for line in aligned(told(snapshot["records"][0]))), nl=False)
    extras.wait_opened()
    return 0


def _show_that_of_others(
    profile: ForwardProfile, extras: NotebookExtras, against: set[str], *, verbose: bool
) -> int:
    others = TakenError(
        f"{profile.name} is up with other wishes",
        f"first: sshvpn down {profile.name}; Jupyter and its kernels go on meanwhile",
    )
    if against & set(snapshot_of(profile.name, places.session_path(profile))["wanted"]):
        raise others
    snapshot: Snapshot = join(profile, others, () if verbose else QUIET)
    click.echo(f"{profile.name} is up already", err=True)
    why = _why_again(profile, snapshot)
    if why:
        click.echo(why, err=True)
        hidden = () if verbose else QUIET
        snapshot = restart(places.session_path(profile), None, hidden, profile.timeout_s)
    extras.once_running(snapshot)
    extras.wait_opened()
    return 0


def _why_again(profile: ForwardProfile, snapshot: Snapshot) -> str:
    """Return why the session has to make a new connection, "" where its Jupyter is there.

    The server says whether it is: whoever took its port would answer here, too, and get its token.
    """
    reply = control.request(places.session_path(profile), "look")
    if reply is None or not reply["ok"]:
        return f"the connection to {profile.host} does not answer: it is made anew"
    if not reply["has_service"]:
        return f"Jupyter has ended at {profile.host}: it is started again"
    is_there = answers(snapshot["records"][0]["url"])
    return "" if is_there else f"Jupyter at {profile.host} does not answer: it is looked for again"


def _about_servers(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the profile that its HOST and ssh's options make."""

    @host_argument
    @ssh_options
    @functools.wraps(command)
    def with_profile(*args: Any, host: str | None, ssh: SshOptions, **given: Any) -> Any:
        words = NotebookWords(host=host, directory=given.get("directory"), ssh=ssh)
        return command(*args, profile=build_profile(words), **given)

    return with_profile


@notebook.command("list", short_help="Show what runs at a host.")
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@_about_servers
def list_servers(profile: ForwardProfile, *, as_json: bool) -> None:
    """Show the Jupyter servers of your login that run at HOST, whoever started them."""
    servers = notebooks.list_notebooks(_anywhere(profile))
    if as_json:
        import json

        click.echo(json.dumps([_plain(server) for server in servers], indent=2))
    elif not servers:
        click.echo(f"no Jupyter runs at {profile.host}")
    else:
        click.echo("\n".join(_table(servers)))


def _anywhere(profile: ForwardProfile) -> ForwardProfile:
    """Return ``profile`` for what is asked of all directories: its own may be gone."""
    return replace(profile, notebook=NotebookWish())


def _plain(server: Server) -> dict[str, Any]:
    return {
        "directory": server.directory,
        "pid": server.pid,
        "port": server.port or None,
        "socket": server.socket or None,
        "version": server.version,
        "started_by_sshvpn": server.is_ours,
        "log": server.log or None,
    }


def _table(servers: Sequence[Server]) -> list[str]:
    rows = [("DIRECTORY", "PORT", "PID", "JUPYTER", "STARTED BY")]
    for one in servers:
        by = "sshvpn" if one.is_ours else "others"
        where = str(one.port) if not one.socket else one.socket
        rows.append((one.directory, where, str(one.pid), one.version or "-", by))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@notebook.command("stop", short_help="End what runs at a host, with its kernels.")
@click.option("--dir", "directory", metavar="DIR", help="The one of this directory there.")
@click.option("--all", "everything", is_flag=True, help="All that sshvpn has started there.")
@_about_servers
@click.pass_context
def stop_servers(
    context: click.Context, /, profile: ForwardProfile, directory: str | None, *, everything: bool
) -> None:
    """End Jupyter at HOST, and its kernels: what they hold in memory is lost.

    Without --dir it is the only one that sshvpn has started there, or the only one that runs;
    where there are more, say which.
    """
    if everything and directory is not None:
        raise UsageError("--dir and --all exclude each other", "say one of them")

    def choose(found: Found) -> Sequence[Server]:
        if everything:
            return [server for server in found.servers if server.is_ours]
        return _chosen(profile, found)

    where = _anywhere(profile) if everything else profile
    found, ended = notebooks.end_notebooks(where, choose)
    if not ended:
        raise NotRunningError(
            f"no Jupyter that sshvpn has started runs at {profile.host}",
            f"see: sshvpn notebook list {profile.host}",
        )
    known = {server.pid: server for server in found.servers}
    for one in ended:
        if one.is_gone:
            _take_forwards_down(profile.host, known[one.pid], found.home)
            click.echo(f"Jupyter in {known[one.pid].directory} at {profile.host} has ended")
    left = [one for one in ended if not one.is_gone]
    if left:
        pids = " ".join(str(one.pid) for one in left)
        raise SshvpnError(
            f"Jupyter at {profile.host} was told to end, and has not",
            f"end it the hard way: ssh {profile.host} kill -9 {pids}",
        )
    context.exit(0)


def _chosen(profile: ForwardProfile, found: Found) -> Sequence[Server]:
    assert profile.notebook is not None  # noqa: S101 (build_profile makes no other)
    host = profile.host
    if profile.notebook.directory:
        there = [one for one in found.servers if one.directory == found.directory]
        if not there:
            raise NotRunningError(
                f"no Jupyter runs in {found.directory} at {host}",
                f"see: sshvpn notebook list {host}",
            )
        return there
    ours = [one for one in found.servers if one.is_ours] or list(found.servers)
    if len(ours) > 1:
        names = ", ".join(sorted(one.directory for one in ours))
        raise UsageError(
            f"{len(ours)} run at {host}: {names}",
            f"say which, or --all: sshvpn notebook stop {host} --dir DIR",
        )
    if not ours:
        raise NotRunningError(f"no Jupyter runs at {host}", f"sshvpn notebook {host} starts one")
    return ours


def _take_forwards_down(host: str, gone: Server, home: str) -> None:
    """End what leads to a Jupyter that is gone: a new connection would start it again."""
    for directory, snapshot in control.snapshots(places.runtimes()).items():
        if leads_to(snapshot, host, gone, home):
            control.take_down(directory)
            click.echo(f"{snapshot['name']} is down")


def leads_to(snapshot: Snapshot, host: str, server: Server, home: str) -> bool:
    """Whether the session of ``snapshot`` leads, or will lead again, to ``server`` at ``host``.

    ``home`` is the login's directory there. A host may have several names, and the log's is of
    that one Jupyter alone.
    """
    record = snapshot["records"][0]
    about: Mapping[str, Any] = record.get("notebook") or {}
    if record["host"] != host:
        return bool(server.log) and (about.get("log"), about.get("pid")) == (server.log, server.pid)
    if about.get("pid") == server.pid:
        return True
    if about:
        return bool(snapshot["state"] != "running" and about["directory"] == server.directory)
    asked = next((word[9:] for word in snapshot["wanted"] if word.startswith("notebook ")), None)
    if asked == "~":
        return server.origin == "home" or server.directory == home
    return asked is not None and PurePosixPath(home, asked) == PurePosixPath(server.directory)

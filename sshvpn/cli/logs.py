"""``sshvpn logs``: what happened."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import click

from sshvpn import control
from sshvpn.cli.completers import complete_name
from sshvpn.cli.words import candidates
from sshvpn.errors import NotRunningError, UsageError
from sshvpn.wiring import places, services

_LOOK_S = 1.0
"""How often is looked whether a service has ended: a session tells it, systemd has to be asked."""


@click.command(short_help="Show what happened.")
@click.argument("name", required=False, shell_complete=complete_name)
@click.option("-f", "--follow", is_flag=True, help="Go on, until it ends or Ctrl-C.")
def logs(name: str | None, *, follow: bool) -> None:
    """Show the log of NAME, or of the only one that is up.

    That of a service is in the journal, also from before the last boot, and when it is not up.
    """
    found = {
        path: snapshot
        for path, snapshot in control.snapshots(places.runtimes()).items()
        if name in (None, snapshot["name"])
    }
    if name is None and len({(s["kind"], s["name"]) for s in found.values()}) > 1:
        raise UsageError(
            f"{len(found)} things are up: {candidates(found.values())}",
            "say which: sshvpn logs NAME",
        )
    kinds = [kind for kind, other in services.enabled() if other == name]
    if not found and not kinds:
        what = f"nothing called {name} is up" if name else "nothing is up"
        raise NotRunningError(what, f"older logs are kept in {places.log_dir()}")
    kinds = kinds if not found else []
    files: dict[Path, Path] = {}
    units = {(kind.session, kind.unit_of(str(name))) for kind in kinds}
    for directory, snapshot in found.items():
        unit = _unit(snapshot)
        if unit is not None:
            units.add((snapshot["kind"], unit))
        else:
            files[places.log_file(snapshot["kind"], snapshot["name"])] = directory
    with contextlib.ExitStack() as stack:
        opened = {stack.enter_context(Log(file)): path for file, path in files.items()}
        for log in opened:
            log.print_new()
        if not follow:
            for session, unit in sorted(units):
                services.print_journal(session, unit)
            return
        followed = [
            stack.enter_context(contextlib.closing(services.follow_journal(session, unit)))
            for session, unit in sorted(units)
        ]
        _follow(opened)
        while followed := [one for one in followed if not one.is_over()]:
            time.sleep(_LOOK_S)


def _unit(snapshot: Mapping[str, Any]) -> str | None:
    """Return the unit of ours that the session runs in, None where it keeps a file."""
    pid = next((record["pid"] for record in snapshot["records"]), None)
    unit = None if pid is None else services.unit_of_process(int(pid))
    return unit if unit is not None and unit.startswith("sshvpn") else None


class Log:
    """A log that is printed as it grows; it may be begun anew meanwhile, or not be there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def print_new(self) -> None:
        """Print what has come since the last time, to its end."""
        while True:
            if self._file is not None:
                text = self._file.read()
                if text:
                    click.echo(text, nl=False)
                if self._is_the_same(self._file):
                    return
                self._file.close()
            try:
                self._file = self._path.open(encoding="utf-8", errors="replace")
            except OSError:
                self._file = None
                return

    def close(self) -> None:
        """Read no more."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Log:  # noqa: PYI034 (Self is younger than Python 3.10)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_there(self) -> bool:
        """Whether there is a file to read."""
        return self._file is not None

    def _is_the_same(self, file: TextIO) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
        except OSError:
            return True


def _follow(opened: Mapping[Log, Path]) -> None:
    """Go on printing the logs of these sessions, until all have ended.

    A session tells when something happens; what, stands in the file. Where that cannot be
    written (a full disk), what the session tells is printed itself.
    """
    import selectors

    from sshvpn.control_watch import Talk

    with selectors.DefaultSelector() as selector:
        for log, directory in opened.items():
            if talk := Talk.begin(directory):
                selector.register(talk.socket, selectors.EVENT_READ, (log, talk))
        for log in opened:
            log.print_new()  # what came before it was watched
        while selector.get_map():
            for key, _ in selector.select():
                log, talk = key.data
                messages = talk.hear()
                log.print_new()
                for message in messages or ():
                    if message.get("event") == "notice" and not log.is_there:
                        click.echo(message.get("text"))
                if messages is None:
                    selector.unregister(talk.socket)
                    talk.socket.close()

"""``sshvpn logs``: what happened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import click

from sshvpn import control, wiring
from sshvpn.cli.completers import complete_name
from sshvpn.cli.words import candidates
from sshvpn.errors import NotRunningError, UsageError


@click.command(short_help="Show what happened.")
@click.argument("name", required=False, shell_complete=complete_name)
@click.option("-f", "--follow", is_flag=True, help="Go on, until it ends or Ctrl-C.")
def logs(name: str | None, *, follow: bool) -> None:
    """Show the log of NAME, or of the only one that is up."""
    found = {
        path: snapshot
        for path, snapshot in control.snapshots(wiring.runtimes()).items()
        if name in (None, snapshot["name"])
    }
    files = {
        wiring.log_file(snapshot["kind"], snapshot["name"]): path
        for path, snapshot in found.items()
    }
    if name is None and len(files) > 1:
        raise UsageError(
            f"{len(files)} things are up: {candidates(found.values())}",
            "say which: sshvpn logs NAME",
        )
    if not files:
        what = f"nothing called {name} is up" if name else "nothing is up"
        raise NotRunningError(what, f"older logs are kept in {wiring.log_dir()}")
    with contextlib.ExitStack() as stack:
        opened = {stack.enter_context(Log(file)): path for file, path in files.items()}
        for log in opened:
            log.print_new()
        if follow:
            _follow(opened)


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

"""What a person sees of a session that runs in the foreground: plain lines, or a live view."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import click

from sshvpn.boundary import Prompter
from sshvpn.cli.attach import CHANGE, DETAIL, QUIET
from sshvpn.cli.browser import LanUrls, open_when_answered, print_qr
from sshvpn.wiring import outside, terminal


class Extras(Protocol):
    """What is done once, at the first ``running``."""

    def is_due(self, snapshot: Mapping[str, Any]) -> bool:
        """Whether ``snapshot`` is the first that is running."""
        ...

    def once_running(self, snapshot: Mapping[str, Any]) -> int:
        """Do it, if it is due; return how many lines, printed last, a camera has to see whole."""
        ...


class ForwardExtras:
    """Those of a forward: the QR code, the browser. Implements Extras."""

    def __init__(self, *, qr: bool, browser: bool) -> None:
        self._qr = qr
        self._browser = browser
        self._is_done = False

    def is_due(self, snapshot: Mapping[str, Any]) -> bool:
        """Whether ``snapshot`` is the first that is running."""
        return not self._is_done and snapshot["state"] == "running"

    def once_running(self, snapshot: Mapping[str, Any], *, wait: bool = False) -> int:
        """Do it, if ``snapshot`` is the first that is running; ``wait`` for the browser."""
        if not self.is_due(snapshot):
            return 0
        self._is_done = True
        lines = 0
        if self._qr:
            lines = print_qr(LanUrls(outside.make_interfaces()).of(snapshot["records"]))
        if self._browser:
            open_when_answered(_web_urls(snapshot["records"]), wait=wait)
        return lines


def _web_urls(records: Sequence[Mapping[str, Any]]) -> list[str]:
    urls = [record["url"] for record in records if record["url"]]
    return [url for url in urls if url.startswith(("http://", "https://"))]


class PlainFront:
    """One line an event, on stdout. Implements runner.Front.

    Notices of the levels ``hidden`` are not shown; a change stands there as it was made.
    """

    def __init__(self, name: str, extras: Extras, hidden: Collection[str] = ()) -> None:
        self._name = name
        self._extras = extras
        self._hidden = hidden
        self.prompter: Prompter | None = terminal.prompter()

    def update(self, snapshot: Mapping[str, Any]) -> None:
        """Nothing to draw; at the first ``running`` the extras are done."""
        self._extras.once_running(snapshot)

    def notice(self, level: str, text: str) -> None:
        """Print the line."""
        if level in self._hidden:
            return
        mark = "" if level in ("info", "debug", DETAIL) else f"{level}: "
        click.echo(text if level == CHANGE else f"{self._name}: {mark}{text}")
        flush()

    def is_gone(self) -> bool:
        """Whether there was a terminal and it is closed."""
        return self.prompter is not None and terminal.prompter() is None

    def close(self) -> None:
        """Nothing to leave behind."""


class LiveFront:
    """The live view. Implements runner.Front; asks are made above it."""

    def __init__(self, extras: Extras) -> None:
        from sshvpn.cli.live import LiveView

        self._view = LiveView()
        self._extras = extras
        self._notices: list[str] = []
        self._has_run = False
        self._inner = terminal.prompter()
        self.prompter: Prompter | None = self if self._inner else None
        self._view.start()

    def update(self, snapshot: Mapping[str, Any]) -> None:
        """Draw it."""
        if snapshot["state"] == "running":
            self._has_run = True
        elif not self._has_run and snapshot["state"] == "failed":
            return  # the error is the last word
        if snapshot["state"] == "stopping":
            return
        self._view.update([snapshot], self._notices[-3:])
        if not self._extras.is_due(snapshot):
            return
        self._view.pause()
        try:
            self._view.keep_above(self._extras.once_running(snapshot))
        finally:
            self._view.resume()

    def notice(self, level: str, text: str) -> None:
        """Keep a warning to be shown; what is not one is in the state already."""
        if level not in QUIET:
            self._notices.append(text)

    def is_gone(self) -> bool:
        """Whether the terminal is closed."""
        return terminal.prompter() is None

    def close(self) -> None:
        """Leave the last state as plain lines; what was warned of before a start that failed."""
        self._view.stop()
        if not self._has_run:
            for text in self._notices:
                click.echo(f"sshvpn: {text}", err=True)

    # boundary.Prompter ------------------------------------------------------------------

    def is_there(self) -> bool:
        """Somebody sits here."""
        return True

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        """Ask, with the view out of the way."""
        if self._inner is None:
            return None
        self._view.pause()
        try:
            return await self._inner.ask(prompt, echo=echo)
        finally:
            self._view.resume()

    async def tell(self, text: str) -> None:
        """Show a line above the view."""
        if self._inner is None:
            return
        self._view.pause()
        try:
            await self._inner.tell(text)
        finally:
            self._view.resume()


def flush() -> None:
    """Write out what was printed; nothing where there is no stdout (``>&-``)."""
    if sys.stdout is not None:
        sys.stdout.flush()


def make_front(
    name: str, extras: Extras, *, verbose: bool, hidden: Collection[str] = ()
) -> PlainFront | LiveFront:
    """Return the live view at a terminal that can show it, else (or ``verbose``) plain lines."""
    is_terminal = (
        sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    )
    if is_terminal and not verbose:
        return LiveFront(extras)
    return PlainFront(name, extras, hidden if verbose else (*hidden, DETAIL))

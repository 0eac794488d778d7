"""What a person is shown of a notebook: its URLs, the QR code, the browser.

The only place that puts a token beside a URL; it goes to the terminal of who asked, and to the
browser by a file that nobody else can read, as Jupyter itself does it: a command line can be
read by everybody.
"""

from __future__ import annotations

import html
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import click

from sshvpn.cli.browser import LanUrls, print_qr
from sshvpn.cli.front import flush
from sshvpn.control import secret_of
from sshvpn.model import ForwardProfile
from sshvpn.wiring import outside, places

Record = Mapping[str, Any]

_OPEN_WITHIN_S = 5.0
_REDIRECT = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>The notebook</title>
</head>
<body><p><a href="{url}">The notebook</a></p></body>
</html>
"""


class NotebookExtras:
    """Says where the notebook is, and opens it, at the first ``running``. Implements Extras."""

    def __init__(self, profile: ForwardProfile, *, qr: bool, browser: bool) -> None:
        self._profile = profile
        self._qr = qr
        self._browser = browser
        self._opening: threading.Thread | None = None
        self.is_done = False

    def is_due(self, snapshot: Mapping[str, Any]) -> bool:
        """Whether ``snapshot`` is the first that is running."""
        return not self.is_done and snapshot["state"] == "running"

    def once_running(self, snapshot: Mapping[str, Any]) -> int:
        """Do it, if it is due; return the lines of the last QR code."""
        if not self.is_due(snapshot):
            return 0
        self.is_done = True
        (record,) = snapshot["records"]
        directory = places.session_path(self._profile)
        token = secret_of(directory).get("token", "")
        lan = [with_token(url, token) for url in LanUrls(outside.make_interfaces()).of([record])]
        here = with_token(record["url"], token)
        click.echo("\n".join(told(record, here, lan)))
        lines = print_qr(lan) if self._qr else 0
        flush()
        if self._browser and has_desktop():
            # A browser may be waited for until its window is closed, and a session goes on here.
            words = (here, directory / "open.html")
            self._opening = threading.Thread(target=_open, args=words, daemon=True)
            self._opening.start()
        return lines

    def wait_opened(self) -> None:
        """Wait until the browser was started, and not for long: before this process ends."""
        if self._opening is not None:
            self._opening.join(_OPEN_WITHIN_S)


def with_token(url: str, token: str) -> str:
    """Return ``url`` as Jupyter takes its token."""
    return f"{url}?token={quote(token, safe='')}" if token else url


def told(record: Record, here: str, lan: Sequence[str]) -> Iterator[str]:
    """Yield the lines about a notebook that runs."""
    notebook = record["notebook"]
    words = notebook["started_with"]
    how = f"started: {words}" if words else f"it ran already (process {notebook['pid']} there)"
    yield f"Jupyter in {notebook['directory']} at {record['host']}, {how}"
    yield f"  here        {here}"
    for url in lan:
        yield f"  on the LAN  {url}"
    if any(urlsplit(url).scheme == "http" for url in lan):
        yield "  (plain HTTP: who listens in on the local network can read it, the token too)"


def has_desktop() -> bool:
    """Whether there is a browser with windows: one in the terminal would take it away."""
    named = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform == "darwin" or any(os.environ.get(name) for name in named)


def _open(url: str, redirect: Path) -> None:
    import webbrowser

    redirect.unlink(missing_ok=True)
    try:
        fd = os.open(redirect, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # the session has just ended, with its directory
        return
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(_REDIRECT.format(url=html.escape(url)))
    if not webbrowser.open(redirect.as_uri()):
        click.echo("sshvpn: no browser could be started; open the URL above", err=True)

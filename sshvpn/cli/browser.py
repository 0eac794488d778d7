"""The browser and the QR code: what comes after a forward works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from shutil import get_terminal_size
from typing import Any
from urllib.parse import urlsplit

import click

from sshvpn.boundary import Interfaces

_POLL_S = 0.3
_ANSWER_TIMEOUT_S = 5.0
_WAIT_S = 60.0


class LanUrls:
    """The URLs under which the LAN's machines reach a forward."""

    def __init__(self, interfaces: Interfaces) -> None:
        self._interfaces = interfaces

    def of(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the URLs of the records that are not on loopback alone, a handful at most.

        Each address of IPv4 has one, as each adapter has one such; or else the first of IPv6.
        ``*`` is the first address of the LAN.
        """
        return [url for record in records for url in self._of_one(record)][:4]

    def _of_one(self, record: Mapping[str, Any]) -> Iterable[str]:
        if record["direction"] == "remote" or not record["url"]:
            return
        parts = urlsplit(record["url"])
        places = list(self._places(record["listen"]))
        fours = [place for place in places if not place.startswith("[")]
        for place in fours or places[:1]:
            yield parts._replace(netloc=place).geturl()

    def _places(self, listened: Iterable[str]) -> Iterator[str]:
        for listen in listened:
            host, _, port = listen.rpartition(":")
            if host in ("127.0.0.1", "[::1]") or listen.startswith("/"):
                continue
            if host in ("0.0.0.0", "[::]"):  # noqa: S104 (compared, not bound)
                host = next((found.address for found in self._interfaces.lan()), "")
                host = f"[{host}]" if ":" in host else host
            if host:
                yield f"{host}:{port}"


def print_qr(urls: Sequence[str]) -> int:
    """Print a QR code of each URL, or say why there is none.

    Returns how many lines of a terminal the last one has, with its URL; 0 where there is none.
    """
    from sshvpn.wiring import lan

    if not urls:
        click.echo(
            "sshvpn: no QR code: the forward is for this machine only (--lan shares it)", err=True
        )
    lines = 0
    for url in urls:
        try:
            code = lan.qr_code(url)
        except ValueError:
            lines = 0
            click.echo("sshvpn: this URL is too long for a QR code", err=True)
        else:
            lines = len(code.splitlines()) + -(-len(url) // max(get_terminal_size().columns, 1))
            click.echo(code)
        click.echo(url)
    return lines


def open_when_answered(urls: Sequence[str], *, wait: bool) -> None:
    """Open the browser at the first URL once something answers there.

    Without ``wait`` that happens by the way. With it: after a minute without an answer a line
    says so, and nothing is opened.
    """
    if not urls:
        click.echo("sshvpn: nothing to open: no forward here is a web page", err=True)
        return
    if wait:
        _open(urls[0])
    else:
        threading.Thread(target=_open, args=(urls[0],), daemon=True).start()


def _open(url: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not answers(url):
        if time.monotonic() > deadline:
            click.echo(f"sshvpn: nothing answers at {url} yet; not opened", err=True)
            return
        time.sleep(_POLL_S)
    import webbrowser

    if not webbrowser.open(url):
        click.echo(f"sshvpn: no browser was found; open {url} yourself", err=True)


def answers(url: str) -> bool:
    """Whether an HTTP server answers at ``url``, with any status; TLS: whether it connects."""
    import http.client

    parts = urlsplit(url)
    kind = http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_ANSWER_TIMEOUT_S)
    try:
        if parts.scheme == "https":
            connection.connect()
            return True
        connection.request("GET", parts.path or "/")
        connection.getresponse().read(1)
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()

"""Asks a web server for its status, by the standard library."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

_TIMEOUT_S = 10.0


class SystemWebClient:
    """Implements boundary.WebClient."""

    def __init__(self) -> None:
        # The libraries take a while, and until it is asked there is a login to wait for.
        threading.Thread(target=_load, daemon=True).start()

    async def status(self, url: str, host: str | None, headers: Mapping[str, str]) -> int | None:
        """Return the status of a GET; see boundary.WebClient."""
        return await asyncio.to_thread(_status, url, host, headers)


def _load() -> None:
    import http.client
    import ssl

    del http, ssl


def _encoded(value: str) -> bytes:
    """Return a header's value in Latin-1, as servers read it (RFC 9110, 5.5), where it can be."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()


def _status(url: str, host: str | None, headers: Mapping[str, str]) -> int | None:
    import http.client

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    if parts.scheme == "https":
        import ssl

        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT_S, context=context
        )
    try:
        own = {} if host is None else {"Host": host}
        encoded = {name: _encoded(value) for name, value in {**own, **headers}.items()}
        connection.request("GET", parts.path or "/", headers=encoded)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()

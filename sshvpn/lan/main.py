"""The process that speaks to the machines of the LAN: ``python -m sshvpn.lan.main NAME``.

It hears what strangers send, so it is a process of its own: without the supervisor's sockets,
without privilege, and without a way to any (:mod:`sshvpn.lan.confine`). Its input has one JSON
object a line: ``{"presence": …, "portal": PORT or null}``; what it says is one a line, too:
``{"names": […], "portal": […]}`` when that has changed, ``{"level": …, "text": …}`` to be logged.
When its input ends, however that comes, it withdraws all and ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from sshvpn.lan.confine import confine
from sshvpn.lan.portal import Portal
from sshvpn.lan.responder import Responder
from sshvpn.presence import Presence, from_json

_LONGEST_LINE = 1 << 20
_RETRY_S = 2.0


class LanSide:
    """Names and portal of one session."""

    def __init__(self) -> None:
        self._responder = Responder(self._tell)
        self._portal: Portal | None = None
        self._portal_port: int | None = None
        self._told: dict[str, Any] = {}

    async def show(self, presence: Presence | None, portal_port: int | None) -> None:
        """Show this from now on; None withdraws all."""
        if portal_port != self._portal_port:
            if self._portal is not None:
                self._portal.show(None)
            self._portal_port, self._portal = portal_port, None
        if portal_port is not None and self._portal is None:
            self._portal = Portal(portal_port, lambda: self._responder.names)
        if self._portal is not None:
            self._portal.show(presence)
        port = self._portal.port if self._portal is not None else None
        named = presence if presence is not None and presence.has_names else None
        await self._responder.show(named, port)
        self._tell()

    async def retry(self) -> None:
        """Try again, from time to time, what of the portal could not be listened on."""
        while True:
            await asyncio.sleep(_RETRY_S)
            if self._portal is not None:
                self._portal.retry()
                self._tell()

    def _tell(self) -> None:
        places = self._portal.places if self._portal is not None else ()
        now = {
            "names": list(self._responder.names),
            "portal": [[place.address, place.port] for place in places],
        }
        if now != self._told:
            self._told = now
            _say(now)


async def _serve() -> None:
    side = LanSide()
    retrying = asyncio.create_task(side.retry())
    try:
        async for line in _lines():
            said = json.loads(line)
            presence = None if said["presence"] is None else from_json(said["presence"])
            await side.show(presence, said["portal"])
    finally:
        retrying.cancel()
        await side.show(None, None)


async def _lines() -> AsyncIterator[bytes]:
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except OSError:  # the supervisor has gone: the end of the input comes next
        return


class _ToParent(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say({"level": record.levelname.lower(), "text": record.getMessage()})


def main() -> int:
    """Serve until the input ends, and return the exit code."""
    for number in (signal.SIGINT, signal.SIGHUP):  # for the supervisor, which ends us in order
        signal.signal(number, signal.SIG_IGN)
    log = logging.getLogger("sshvpn.lan")
    log.addHandler(_ToParent(logging.WARNING))
    logging.getLogger().addHandler(logging.NullHandler())  # the libraries' have nobody to hear
    confine()
    asyncio.run(_serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The process that speaks to the LAN, as its supervisor sees it (the other side: sshvpn.lan.main).

It hears what strangers send, so what it says is believed no further than its form.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sshvpn.errors import printable
from sshvpn.model import TcpEndpoint
from sshvpn.system.daemon import package_environment
from sshvpn.system.process import ChildLines
from sshvpn.waiting import within

_END_WITHIN_S = 3.0
_LONGEST_LINE = 1 << 16
_MOST = 64
_KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
_KEPT_BEGINNING = "COVERAGE_"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.local")


class LanProcess:
    """The real :class:`sshvpn.boundary.LanServer`; ``title`` is for people who read ps(1)."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._process: asyncio.subprocess.Process | None = None
        self._lines: ChildLines | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(
        self,
        reachable: Callable[[tuple[str, ...], tuple[TcpEndpoint, ...]], None],
        warn: Callable[[str], None],
        ended: Callable[[], None],
    ) -> None:
        """Start it; it says nothing to anybody until it is told something. Raises OSError."""

        def take(line: str) -> None:
            if (said := _understood(line)) is None:
                return
            if (text := said.get("text")) is not None:
                warn(printable(str(text))[:500])
            else:
                reachable(_names(said), _portal(said))

        self._lines = ChildLines(take, _LONGEST_LINE)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "sshvpn.lan.main",
                self._title,
                stdin=asyncio.subprocess.PIPE,
                stdout=self._lines.write_fd,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
                cwd="/",
            )
        finally:
            self._lines.release()
        self._watcher = asyncio.create_task(self._watch(self._process, ended))

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Hand it what is to be told from now on. Nothing happens where it has ended."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()

    async def close(self) -> None:
        """Let it withdraw all and end; killed, where that takes too long. Twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._watcher is not None:
            self._watcher.cancel()
        if process.stdin is not None:
            process.stdin.close()
        try:
            await within(_END_WITHIN_S, process.wait())
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._lines is not None:
            self._lines.close()

    @staticmethod
    async def _watch(process: asyncio.subprocess.Process, ended: Callable[[], None]) -> None:
        await process.wait()
        ended()


def _environment() -> dict[str, str]:
    # No SSH_AUTH_SOCK, no session bus: nothing that leads anywhere.
    return {
        name: value
        for name, value in package_environment().items()
        if name in _KEPT or name.startswith(_KEPT_BEGINNING)
    }


# What it says --------------------------------------------------------------------------------


def _understood(line: str) -> Mapping[str, Any] | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _names(said: Mapping[str, Any]) -> tuple[str, ...]:
    names = said.get("names")
    listed = names[:_MOST] if isinstance(names, list) else []
    return tuple(name for name in listed if isinstance(name, str) and _NAME.fullmatch(name))


def _portal(said: Mapping[str, Any]) -> tuple[TcpEndpoint, ...]:
    places = said.get("portal")
    return tuple(
        place
        for one in (places[:_MOST] if isinstance(places, list) else [])
        if (place := _place(one)) is not None
    )


def _place(one: Any) -> TcpEndpoint | None:
    try:
        host, port = one
        return TcpEndpoint(str(ipaddress.ip_address(host)), int(port))
    except (TypeError, ValueError):
        return None

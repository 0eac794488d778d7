"""A conversation with a command at the server, over an ssh of ours that stands already."""

from __future__ import annotations

import asyncio
import contextlib

from sshvpn.system.openssh.mux import Mux, MuxSession


class MuxCommand:
    """Implements boundary.RemoteCommand: one more session of a control master of ours."""

    def __init__(self, session: MuxSession) -> None:
        assert session.stdin is not None  # noqa: S101 (start() asked for both)
        assert session.stdout is not None  # noqa: S101
        self._session = session
        self._stdin = session.stdin
        self._stdout = session.stdout

    @classmethod
    async def start(cls, mux: Mux, command: str) -> MuxCommand:
        """Start ``command``; what stops it shows as the end of what it says."""
        pipe = asyncio.subprocess.PIPE
        return cls(await mux.run(command, pipe, pipe))

    async def write(self, data: bytes) -> None:
        """Send ``data``; see boundary.RemoteCommand."""
        with contextlib.suppress(OSError):
            self._stdin.write(data)
            await self._stdin.drain()

    async def read_line(self) -> str | None:
        """Return its next line; see boundary.RemoteCommand."""
        try:
            line = await self._stdout.readline()
        except ValueError:  # longer than a line may be
            return None
        return line.decode(errors="replace") if line else None

    async def close(self) -> None:
        """End it; see boundary.RemoteCommand."""
        self._stdin.close()
        await self._session.end()

"""A command at the server, in a channel of paramiko's."""

from __future__ import annotations

import asyncio
import contextlib

import paramiko

from sshvpn.errors import SshvpnError
from sshvpn.system.sshtunnel.transport import Transport

_OPEN_TIMEOUT_S = 30.0
_LONGEST_LINE = 1 << 16


class ChannelCommand:
    """Implements boundary.RemoteCommand. What blocks runs in threads."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._lines = channel.makefile("rb")

    @classmethod
    async def start(cls, transport: Transport, command: str) -> ChannelCommand:
        """Start ``command``. Raises SshvpnError where the server does not let it."""

        def run() -> paramiko.Channel:
            channel = transport.open_session(timeout=_OPEN_TIMEOUT_S)
            channel.exec_command(command)
            return channel

        try:
            return cls(await asyncio.to_thread(run))
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise SshvpnError(f"the server runs no command: {error}") from error

    async def write(self, data: bytes) -> None:
        """Send ``data``; see boundary.RemoteCommand."""
        with contextlib.suppress(OSError, EOFError):
            await asyncio.to_thread(self._channel.sendall, data)

    async def read_line(self) -> str | None:
        """Return its next line; see boundary.RemoteCommand."""
        try:
            line: bytes = await asyncio.to_thread(self._lines.readline, _LONGEST_LINE)
        except (OSError, EOFError):
            return None
        return line.decode(errors="replace") if line.endswith(b"\n") else None

    async def close(self) -> None:
        """End it; see boundary.RemoteCommand."""
        await asyncio.to_thread(self._channel.close)

"""An ssh that is held where it says a certain line, until it may go on.

ssh logs in, and asks for the server's tun device in the same breath; where that device is only
being made by another login, this one has to wait between the two. OpenSSH has no word for that,
but it says what it does, on a pipe, and what nobody reads off a pipe that is full holds its
writer. So its stderr is a pipe of packets (pipe(2), ``O_DIRECT``) with room for one (fcntl(2),
``F_SETPIPE_SZ``): when the line has been read and nothing is any more, ssh says one line more,
and waits in the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from sshvpn.system.process import ChildLines

_ROOM = 1 << 16
"""Of a pipe as the kernel makes it, in bytes."""


class Gate:
    """Where somebody waits until ``is_open`` is done; ``is_reached`` once that one is there."""

    def __init__(self) -> None:
        self.is_open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_reached = False


@dataclass(frozen=True)
class Hold:
    """Held at a line that begins so, until the gate opens."""

    line: re.Pattern[str]
    gate: Gate


class HeldLines(ChildLines):
    """The lines of a child that is held.

    Behind the line it has time for one more; what it does behind that one, it does not do yet.
    """

    def __init__(
        self,
        take: Callable[[str], None],
        hold: Hold,
        *,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._hold = hold
        self._tell = take
        self._is_free = False
        self._is_released = False
        super().__init__(self._look, heard=heard)
        hold.gate.is_open.add_done_callback(lambda _: self.go_on())

    @staticmethod
    def _pipe() -> tuple[int, int]:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1)  # a page: the least there is
        return reader, writer

    def _look(self, line: str) -> None:
        if self._hold.line.match(line):
            self._hold.gate.is_reached = True
            if not self._is_free:
                self._pause()
        self._tell(line)

    def release(self) -> None:
        """Close our end that writes, once the child is held no more. May be called again."""
        self._is_released = True
        if self._is_free:
            super().release()

    def go_on(self) -> None:
        """Let the child go on, through a pipe as any other. May be called again."""
        if self._is_free:
            return
        self._is_free = True
        if self.write_fd >= 0:
            flags = fcntl.fcntl(self.write_fd, fcntl.F_GETFL)
            fcntl.fcntl(self.write_fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
            # A user may have too many pipes for that (pipe-user-pages-soft): then it stays small.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, _ROOM)
        if self._is_released:  # else the child is still to be given it
            super().release()
        self._resume()

    async def wait_end(self, timeout_s: float | None = None) -> None:
        """Wait until nobody can write any more, or so long: there is nobody to be held then."""
        self.go_on()
        await super().wait_end(timeout_s)

    def close(self) -> None:
        """Hear no more. May be called twice."""
        self._is_free = True
        super().close()

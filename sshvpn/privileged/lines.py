"""Lines that come over a unix socket, and the descriptors that come with them."""

from __future__ import annotations

import os
import select
import socket

_PIECE = 1 << 16
_MOST_HANDED = 4
"""More in one message are none of ours: the kernel closes what has no room."""


class Lines:
    """What ``peer`` sends, a line at a time. A descriptor is kept until the next :meth:`forget`."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._begun = b""
        self._handed: list[int] = []

    def next(self, longest: int) -> bytes:
        """Return the next line with its end; without one: the last, or longer than that."""
        while b"\n" not in self._begun and len(self._begun) < longest:
            data, handed, _, _ = socket.recv_fds(self._peer, _PIECE, _MOST_HANDED)
            self._handed += handed
            if len(self._handed) > _MOST_HANDED:
                self.forget()
            if not data:
                break
            self._begun += data
        line, end, self._begun = self._begun.partition(b"\n")
        return line + end

    def is_quiet(self, for_s: float) -> bool:
        """Wait until something comes, at most so long, and return whether nothing did."""
        return not self._begun and not select.select([self._peer], [], [], for_s)[0]

    def take(self) -> int | None:
        """Return the only descriptor that has come, which the caller closes; None: not one."""
        if len(self._handed) != 1:
            return None
        return self._handed.pop()

    def forget(self) -> None:
        """Close the descriptors that nobody has taken."""
        for descriptor in self._handed:
            os.close(descriptor)
        self._handed.clear()

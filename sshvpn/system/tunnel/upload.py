"""The agent's script on its way to the server, as ssh's TCP connection shows it; pure."""

from __future__ import annotations

_PIECE = 1024
"""More than ssh's own signs of life in the time for which a silence is put up with."""


class Upload:
    """``size`` bytes that ssh begins to send at ``now``, when it has sent ``sent`` in all.

    ``sent`` are bytes that the server has acknowledged; None where that cannot be told.
    ``moved_at`` is when they last went on.
    """

    def __init__(self, size: int, sent: int | None, now: float) -> None:
        self._next = None if sent is None else sent + _PIECE
        self._end = 0 if sent is None else sent + size
        self.moved_at = now

    def look(self, sent: int | None, now: float) -> None:
        """Take it that ``sent`` bytes are acknowledged; what comes after the script is no sign."""
        if sent is None or self._next is None or not self._next <= sent <= self._end:
            return
        self._next = sent + _PIECE
        self.moved_at = now

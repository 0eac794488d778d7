"""How long to wait before a further name is tried, after one that was another machine's.

RFC 6762, section 8.1: after fifteen conflicts within any ten seconds a host waits at least five
seconds before each further try. No clock here: time is an argument.
"""

from __future__ import annotations

from collections import deque

_CONFLICTS = 15
_WITHIN_S = 10.0
_REST_S = 5.0
_QUIET_S = 60.0
"""The RFC does not say when that is over: when there was no conflict for so long."""


class Brake:
    """Notes conflicts; each further try waits once there were too many too soon."""

    def __init__(self) -> None:
        self._conflicts: deque[float] = deque(maxlen=_CONFLICTS)
        self._is_on = False

    def take_conflict(self, now: float) -> float:
        """Note a conflict at ``now`` (monotonic, in seconds); return when to try again."""
        if self._conflicts and now >= self._conflicts[-1] + _QUIET_S:
            self._is_on = False
        self._conflicts.append(now)
        if len(self._conflicts) == _CONFLICTS and now <= self._conflicts[0] + _WITHIN_S:
            self._is_on = True
        return now + _REST_S if self._is_on else now

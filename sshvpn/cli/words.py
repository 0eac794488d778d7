"""Numbers and times as a person reads them; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

_UNITS = ("kB", "MB", "GB", "TB", "PB")
_KILO = 1000
_TEN = 10


def human_bytes(count: float) -> str:
    """Return a number of bytes with three digits: ``999 B``, ``1.2 kB``, ``34 MB``."""
    if count < _KILO - 0.5:
        return f"{count:.0f} B"
    for unit in _UNITS:
        count /= _KILO
        if count < _KILO - 0.5:
            return f"{count:.1f} {unit}" if count < _TEN - 0.05 else f"{count:.0f} {unit}"
    return f"{count:.0f} {_UNITS[-1]}"


def human_ms(milliseconds: float) -> str:
    """Return a time with two digits or more: ``0.3 ms``, ``7.1 ms``, ``240 ms``."""
    if milliseconds < _TEN - 0.05:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms"


def counted(count: int, noun: str) -> str:
    """Return ``1 noun``, ``2 nouns``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def instant(text: str) -> datetime:
    """Return the point in time that RFC 3339 says."""
    # Python 3.10 does not know the Z of RFC 3339.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def clock(text: str, now: float) -> str:
    """Return the time of day here; with the day where that is not the day of ``now``."""
    when = instant(text).astimezone()
    is_today = when.date() == datetime.fromtimestamp(now, when.tzinfo).date()
    return f"{when:%H:%M}" if is_today else f"{when:%-d %b %H:%M}"


def candidates(snapshots: Iterable[Mapping[str, Any]]) -> str:
    """Return the names of what is up; with its kind, and how many, where a name is of several."""
    found = Counter((str(snapshot["name"]), str(snapshot["kind"])) for snapshot in snapshots)
    names = Counter(name for name, _ in found.elements())

    def told(name: str, kind: str, count: int) -> str:
        if names[name] == 1:
            return name
        return f"{name} ({kind})" if count == 1 else f"{name} ({count} {kind}s)"

    return ", ".join(told(name, kind, count) for (name, kind), count in sorted(found.items()))

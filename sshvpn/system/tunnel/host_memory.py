"""Which login worked with which server, in a small file: the next one need not try the others.

``{"alice@203.0.113.20:22": "prepare", "alice@203.0.113.20:22 3e8_0123456789": "5600"}``. It is a
memory, not a setting: a file that is broken, or cannot be written, means nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

_MOST_HOSTS = 500


class HostMemory:
    """The file at ``path``; without one nothing is remembered."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def login_of(self, host: str) -> str | None:
        """Return what was remembered of ``host`` (``user@name:port``), or of one tunnel to it."""
        return self._read().get(host)

    def note(self, host: str, login: str) -> None:
        """Remember ``login``; the hosts that were noted longest ago are forgotten first."""
        known = self._read()
        if self._path is None or known.get(host) == login:
            return
        known.pop(host, None)
        known[host] = login
        kept = dict(list(known.items())[-_MOST_HOSTS:])
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            new.replace(self._path)

    def _read(self) -> dict[str, str]:
        if self._path is None:
            return {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {str(host): login for host, login in found.items() if isinstance(login, str)}

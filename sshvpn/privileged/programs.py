"""Where the programs are that root may run: absolute paths, nothing of the caller's PATH."""

from __future__ import annotations

import os

PLACES = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin")


def path_of(program: str) -> str | None:
    """Return the absolute path of ``program``, None where it is not installed."""
    candidates = (f"{place}/{program}" for place in PLACES)
    return next((path for path in candidates if os.access(path, os.X_OK)), None)

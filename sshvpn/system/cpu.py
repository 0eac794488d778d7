"""What this machine's processor can do."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@cache
def has_aes() -> bool:
    """Whether the processor has AES instructions (x86 AES-NI, ARMv8 crypto; proc(5) cpuinfo).

    False where nothing says so: then AES in software is both slower than chacha20 and open to
    timing attacks. Apple's processors all have them, and macOS has no /proc.
    """
    try:
        text = _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return platform.system() == "Darwin"
    return names_aes(text)


def names_aes(cpuinfo: str) -> bool:
    """Whether the text of /proc/cpuinfo has ``aes`` among the flags (x86) or features (ARM)."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return "aes" in value.split()
    return False

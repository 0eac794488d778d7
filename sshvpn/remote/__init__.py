"""What runs on the server, and the words it is spoken to with.

Owns the agent's script, its protocol, and what it does as commands for people; connects
to nobody and runs nothing itself.
"""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def agent_script() -> str:
    """Return the agent as it is delivered: without comments, which nobody reads there.

    Its parts stand in ``agent/``, joined in the order of their numbers.
    """
    parts = sorted((Path(__file__).parent / "agent").glob("*.sh"))
    text = "".join(part.read_text(encoding="ascii") for part in parts)
    lines = (line for line in text.splitlines() if line and not line.lstrip().startswith("#"))
    return "\n".join(lines)

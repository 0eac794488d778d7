"""What runs on the server, and the words it is spoken to with.

Owns the agent's script, its protocol, and what it does as commands for people; connects
to nobody and runs nothing itself.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

_FOR_READERS = re.compile(r'^ *"""[^"]*"""\n|  # .*$', re.MULTILINE)
_INDENT = re.compile("^(?:    )+", re.MULTILINE)


def _bare(program: str) -> str:
    """Return a program in Python without what it does not need to run."""
    return _INDENT.sub(lambda four: " " * (len(four[0]) // 4), _FOR_READERS.sub("", program))


@functools.cache
def agent_script() -> str:
    """Return the agent as it is delivered: without comments and margins, which are for readers.

    Its parts stand in ``agent/``, joined in the order of their numbers; what python3 does
    there stands in single quotes.
    """
    here = Path(__file__).parent
    parts = sorted((here / "agent").glob("*.sh"))
    text = "".join(part.read_text(encoding="ascii") for part in parts)
    stripped = (line.lstrip(" ") for line in text.splitlines())
    script = "\n".join(line for line in stripped if line and not line.startswith("#"))
    program = (here / "tcp_socket.py").read_text(encoding="ascii")
    return script.replace("@tcp_socket.py@", _bare(program))

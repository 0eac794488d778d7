"""What runs on the server, and the words it is spoken to with.

Owns the agent's script, its protocol, and what it does as commands for people; connects
to nobody and runs nothing itself.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

_FOR_READERS = re.compile(r'^ *"""[^"]*"""\n|  # .*$', re.MULTILINE)
_HEADING = re.compile(r"(?<=\(\) [{(]) # .*")
"""What stands behind the first brace of a function in sh."""
_INDENT = re.compile("^(?:    )+", re.MULTILINE)


def _bare(program: str) -> str:
    """Return a program in Python without what it does not need to run."""
    return _INDENT.sub(lambda four: " " * (len(four[0]) // 4), _FOR_READERS.sub("", program))


@functools.cache
def agent_script() -> str:
    """Return the tunnel's agent as it is delivered; what python3 does there is in single quotes."""
    script = _script("agent")
    for name in ("lasting_tun.py", "tcp_socket.py"):
        program = (Path(__file__).parent / name).read_text(encoding="ascii")
        script = script.replace(f"@{name}@", _bare(program))
    return script


@functools.cache
def boot() -> str:
    """Return what reads a script by length from its standard input and runs it, in sh.

    It stands in single quotes on the login shell's command line; see the agent's opening.
    """
    opening = (Path(__file__).parent / "agent" / "01-opening.sh").read_text(encoding="ascii")
    found = re.search(r"^boot='([^'!\\\n]*)'$", opening, re.MULTILINE)
    if found is None:
        raise ValueError("the opening has no line boot='…' that every shell can read")
    return found[1]


@functools.cache
def notebook_script() -> str:
    """Return what finds and starts Jupyter, as it is delivered."""
    return _script("notebook")


def _script(directory: str) -> str:
    """Return the parts of a script, joined in the order of their numbers.

    Without comments and margins, which are for readers.
    """
    parts = sorted((Path(__file__).parent / directory).glob("*.sh"))
    text = "".join(part.read_text(encoding="ascii") for part in parts)
    stripped = (line.lstrip(" ") for line in text.splitlines())
    bare = (_HEADING.sub("", line) for line in stripped)
    return "\n".join(line for line in bare if line and not line.startswith("#"))

"""The aliases of ssh_config(5), for completion: ``Host`` lines, through ``Include``.

ssh itself has no list of them. Nothing here decides what an alias means; whatever cannot be
read is passed over.
"""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

DEPTH_MAX = 16
"""ssh gives up on deeper includes too (READCONF_MAX_DEPTH)."""
SYSTEM_FILE = Path("/etc/ssh/ssh_config")


def aliases(file: Path | None = None) -> Iterator[str]:
    """Yield the aliases of ``file`` (as ``-F``), or of the user's and the system's files.

    Those with wildcards or negations stand for no one host and are left out; a name may come
    twice.
    """
    if file is not None:
        yield from _from_file(file, _user_directory(), 0)
        return
    yield from _from_file(_user_directory() / "config", _user_directory(), 0)
    yield from _from_file(SYSTEM_FILE, SYSTEM_FILE.parent, 0)


def _user_directory() -> Path:
    return Path("~").expanduser() / ".ssh"


def _from_file(file: Path, base: Path, depth: int) -> Iterator[str]:
    try:
        text = file.read_text(errors="replace") if file.is_file() else ""
    except OSError:
        return
    for line in text.splitlines():
        keyword, words = _words(line)
        if keyword == "host":
            yield from (word for word in words if word and not set(word) & set("*?!"))
        elif keyword == "include" and depth < DEPTH_MAX:
            for pattern in words:
                # ssh_config(5): a relative pattern is looked for beside the user's or system's file
                whole = os.path.join(base, os.path.expanduser(pattern))  # noqa: PTH111, PTH118
                for name in sorted(glob.glob(whole)):  # noqa: PTH207 (patterns may be absolute)
                    yield from _from_file(Path(name), base, depth + 1)


def _words(line: str) -> tuple[str, list[str]]:
    """Return the keyword in lower case, and its arguments."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quote that is not closed
        words = line.split()
    if not words:
        return "", []
    keyword, equals, value = words[0].partition("=")
    rest = ([value] if value else []) if equals else words[1:2]
    rest = [word.removeprefix("=") for word in rest] + words[1 if equals else 2 :]
    return keyword.lower(), [word for word in rest if word]

"""Pure parsers of what ``sshvpn notebook`` is told about the server: a directory, a Jupyter.

Nothing here is a word for a shell: paths and words travel as lines, and are never evaluated.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from sshvpn.errors import UsageError
from sshvpn.model import JupyterWay, NotebookWish

_LONGEST = 4096


def parse_directory(text: str) -> str:
    """Return a directory as the server has it: absolute, or of the home directory, ``~``.

    However it was written it is one text, as far as that can be told from here: ``..`` and
    symbolic links are the server's.
    """
    path = _one_line(text, "a directory")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/"):
        return "/" + "/".join(parts)
    if path == "~" or path.startswith("~/"):
        del parts[0]
    elif path.startswith("~"):
        return "/".join(parts)
    if not parts:
        return "~"
    return "/".join([".", *parts] if parts[0].startswith("~") else parts)


def parse_jupyter(way: JupyterWay, text: str) -> tuple[str, ...]:
    """Return the words of ``way``: those of a command as a shell splits them, else one.

    Raises UsageError.
    """
    if way is not JupyterWay.COMMAND:
        return (_one_line(text, "a path or a name"),)
    try:
        words = tuple(shlex.split(_one_line(text, "a command")))
    except ValueError as error:
        raise UsageError(f"'{text}' has a quote that is not closed", "close it") from error
    if not words or "" in words:
        raise UsageError(f"'{text}' is no command", "write one like: jupyter lab")
    return words


def make_wish(
    directory: str, said: Mapping[JupyterWay, tuple[str, ...] | None], *, has_port: bool
) -> NotebookWish:
    """Return what is wished for; of the ways ``said`` one at most may hold words.

    Raises UsageError for two.
    """
    ways = [(way, words) for way, words in said.items() if words]
    if len(ways) > 1:
        names = " and ".join(way.value for way, _ in ways)
        raise UsageError(f"{names} each name a Jupyter", "say one of them")
    way, words = ways[0] if ways else (JupyterWay.AUTO, ())
    return NotebookWish(directory, way, words, has_port)


def _one_line(text: str, what: str) -> str:
    if not text or not text.isprintable() or len(text) > _LONGEST:
        raise UsageError(f"{text[:60]!r} is not {what}", "write it on one line")
    return text

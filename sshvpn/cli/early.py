"""What begins before the command line is read: the process that ``up`` will need loads already.

Only for words that need no reading for that, ``sshvpn up HOST …``; all else of them is
:mod:`sshvpn.cli.up`'s, which takes over what was begun, or leaves it: it ends with this process.
"""

from __future__ import annotations

import contextlib
import os
import socket

_NOT_WITH = ("-h", "--help", "--foreground", "--dry-run", "--name")
"""Options that want no such process, or one of another name."""

_begun: dict[str, socket.socket] = {}


def begin(words: list[str]) -> None:
    """Begin what ``words`` will need, if they are plain enough. Loads no click."""
    if len(words) < 2 or words[0] != "up" or words[1].startswith("-"):  # noqa: PLR2004
        return
    if any(word.startswith(_NOT_WITH) for word in words):
        return
    if _is_for_caller():  # nothing of it may run as root, which is given up first
        return
    from sshvpn.wiring import beginning

    name = words[1]
    with contextlib.suppress(OSError):  # what stands in the way is told by who needs it
        _begun[name] = beginning.begin_tunnel(name)


def take(name: str) -> socket.socket | None:
    """Return what was begun for the tunnel ``name``, once; it is the caller's to close."""
    return _begun.pop(name, None)


def _is_for_caller() -> bool:
    if os.geteuid() != 0:
        return False
    from sshvpn.wiring import privilege

    return privilege.is_for_caller()

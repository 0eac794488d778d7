"""A process of root's that serves one socket: how it is started by sudo, and how it answers.

The entries stand in ``privileged/``. Each greets with a line of JSON when it is there; then a line
each way, until one side closes the socket.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sshvpn
from sshvpn.errors import (
    NotRunningError,
    PrivilegeError,
    Retry,
    SshvpnError,
    TakenError,
    UsageError,
)
from sshvpn.system.privilege.sudo import Sudo

_ENTRIES = Path(sshvpn.__file__).resolve().parent / "privileged"
_KINDS: Mapping[str, type[SshvpnError]] = {
    kind.code: kind for kind in (UsageError, NotRunningError, PrivilegeError, TakenError)
}


class HelperGoneError(PrivilegeError):
    """The helper has ended before its time: killed, most likely. Another one may take over."""

    retry = Retry.FOREVER


class StepFailedError(SshvpnError):
    """The kernel, or a program that root ran, did not do what it was told to."""

    retry = Retry.ONCE_RUN


def start_as_root(
    entry: str,
    prompt: str,
    *,
    at_terminal: bool = False,
    uid: int | None = None,
    asks: bool = True,
) -> tuple[socket.socket, dict[str, Any], Sudo]:
    """Start ``privileged/ENTRY``; return its socket, its greeting, and the sudo around it.

    As root it is started at once and acts for user ``uid`` (default: root). Else by sudo, which
    asks with ``prompt`` ``at_terminal``, or by the program of ``$SUDO_ASKPASS``, else nobody;
    without ``asks`` nobody in any case.
    Blocks for as long as a person types. Raises PrivilegeError. Interrupted, nothing is left.
    """
    # -I, -S: nothing of the caller's environment or directory decides what root imports.
    program = [sys.executable, "-I", "-S", str(_ENTRIES / entry)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with theirs:
            variables = {"SUDO_UID": str(uid or 0)}
            sudo = Sudo(
                program, theirs, variables, at_terminal=at_terminal, prompt=prompt, asks=asks
            )
        try:
            sudo.wait_for(ours)
            greeting = checked(_first_line(ours))
        except HelperGoneError as error:
            raise sudo.why() from error
        except BaseException:
            ours.close()
            sudo.interrupted()
            raise
    except BaseException:
        ours.close()
        raise
    return ours, greeting, sudo


def _first_line(peer: socket.socket) -> bytes:
    # Byte by byte: what comes behind it is somebody else's to read.
    line = b""
    while not line.endswith(b"\n"):
        try:
            piece = peer.recv(1)
        except OSError as error:
            raise gone() from error
        if not piece:
            break
        line += piece
    return line


def request_line(**request: object) -> bytes:
    """Return a request as it is sent."""
    return json.dumps(request).encode() + b"\n"


def checked(line: bytes) -> dict[str, Any]:
    """Return the answer that ``line`` is. Raises the error that it tells of."""
    if not line.endswith(b"\n"):
        raise gone()
    answer: dict[str, Any] = json.loads(line)
    if not answer["ok"]:
        error = answer["error"]
        raise _KINDS.get(error["code"], StepFailedError)(error["message"], error["hint"])
    return answer


def gone() -> HelperGoneError:
    """Return the error of a process that has ended before its time."""
    return HelperGoneError("the privileged helper has ended", "sshvpn clean removes what it left")

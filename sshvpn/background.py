"""The background process of ``forward -b`` and ``up``: ``python -m sshvpn.background NAME``.

Its standard input is the socket of the command that started it. The first line is the session's
kind, and what that needs is loaded while the command still reads its own words; the second is the
profile; for a tunnel a line follows that brings the helper's socket; then both speak the control
protocol. The name on its command line is for people who read ps(1).
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
from typing import Any

from sshvpn.control import VERSION
from sshvpn.errors import PrivilegeError, SshvpnError

GARBAGE_THRESHOLD = 20_000


def main() -> int:
    """Run the session that the launcher describes, and return its exit code."""
    # Modules that load make many objects and no garbage.
    gc.set_threshold(GARBAGE_THRESHOLD)
    launcher = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    from sshvpn.wiring import sessions

    kind = _line(launcher).decode().strip()
    sessions.load_first()
    if not select.select([launcher], [], [], 0)[0]:  # the command still reads its words
        sessions.load(kind)
    if not (line := _line(launcher)):  # there was nothing to run after all
        return 0
    try:
        return _run(kind, json.loads(line), launcher)
    except SshvpnError as error:
        _tell(launcher, error)
        return error.exit_code


def _run(kind: str, request: dict[str, Any], launcher: socket.socket) -> int:
    from sshvpn.model import TunnelProfile
    from sshvpn.wire import profile_from_json
    from sshvpn.wiring import forwards, sessions, tunnels

    profile = profile_from_json(request["profile"])
    if isinstance(profile, TunnelProfile):
        tunnels.begin_login(profile)
    sessions.load(kind)
    from sshvpn.runner import Launcher

    waiting = Launcher(launcher, can_answer=bool(request["can_answer"]))
    verbose = bool(request["verbose"])
    if isinstance(profile, TunnelProfile):
        helper = tunnels.take_helper(launcher)
        if helper is None:  # sudo refused, or a person gave up: the launcher tells
            return PrivilegeError.exit_code
        return tunnels.run_tunnel(profile, None, waiting, helper, verbose=verbose)
    return forwards.run_forward(profile, None, waiting, verbose=verbose)


def _line(launcher: socket.socket) -> bytes:
    # Byte by byte, so that nothing behind the line is taken from the protocol.
    line = b""
    while not line.endswith(b"\n"):
        piece = launcher.recv(1)
        if not piece:
            break
        line += piece
    return line


def _tell(launcher: socket.socket, error: SshvpnError) -> None:
    """Tell the launcher of an error that came before the control socket could."""
    end = {
        "v": VERSION,
        "event": "end",
        "exit_code": error.exit_code,
        "error": error.as_record(),
        "message": str(error),
        "hint": error.hint,
    }
    try:
        launcher.sendall(json.dumps(end).encode() + b"\n")
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main())

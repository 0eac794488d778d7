"""Starts the background process of a session.

Little is loaded here: while a command reads its words, the process has begun already.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import sshvpn

DISMISS_S = 3.0
"""How long one that is no more wanted is waited for: it may still be loading."""


def begin(kind: str, title: str) -> socket.socket:
    """Start ``python -m sshvpn.background TITLE``, and return the socket to it.

    It loads what a session of ``kind`` needs and waits for :func:`assign`; it ends in silence
    where the socket does before. The process has a session of its own, the root directory as its
    working directory (so that no module of somebody else's is imported from there), and the
    socket as its standard input. What it would print goes nowhere: it speaks over the socket,
    and into its log.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "sshvpn.background", title],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env=package_environment(),
        )
    ours.sendall(kind.encode() + b"\n")
    return ours


def assign(begun: socket.socket, request: dict[str, object]) -> None:
    """Hand what :func:`begin` started the session that it runs."""
    import json

    begun.sendall(json.dumps(request).encode() + b"\n")


def hand(launched: socket.socket, descriptor: int) -> None:
    """Give what :func:`begin` started a copy of ``descriptor``, for which it waits."""
    socket.send_fds(launched, [b"\n"], [descriptor])


def dismiss(launched: socket.socket) -> None:
    """Let what :func:`begin` started end, and wait until it has, for a few seconds at most."""
    deadline = time.monotonic() + DISMISS_S
    with launched, contextlib.suppress(OSError):
        launched.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            launched.settimeout(left)
            if not launched.recv(1 << 16):
                return


def take(launcher: socket.socket) -> int | None:
    """Wait for what :func:`hand` gives, and return it; None where the launcher has gone."""
    said, descriptors, _, _ = socket.recv_fds(launcher, 1, 1, socket.MSG_CMSG_CLOEXEC)
    return descriptors[0] if said and descriptors else None


def package_environment() -> dict[str, str]:
    """Return this environment, in which the package is found from any directory."""
    home = os.path.dirname(os.path.dirname(sshvpn.__file__))  # noqa: PTH120 (pathlib takes 5 ms)
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    absolute = [os.path.abspath(p) for p in others]  # noqa: PTH100
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, *absolute])}

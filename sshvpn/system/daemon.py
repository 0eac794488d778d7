"""Starts the background process of a session."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import sshvpn


def spawn(request: dict[str, object], title: str, *, pass_fds: Sequence[int] = ()) -> socket.socket:
    """Start ``python -m sshvpn.background TITLE``, hand it ``request``, return the socket.

    The process has a session of its own, the root directory as its working directory (so that
    no module of somebody else's is imported from there), and the socket as its standard input.
    What it would print goes nowhere: it speaks over the socket, and into its log. Of the
    descriptors open here it gets ``pass_fds``, under the same numbers.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "sshvpn.background", title],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=pass_fds,
            cwd="/",
            env=_environment(),
        )
    ours.sendall(json.dumps(request).encode() + b"\n")
    return ours


def _environment() -> dict[str, str]:
    # The package must be found without the working directory, installed or not.
    home = str(Path(sshvpn.__file__).parent.parent)
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    absolute = [str(Path(p).absolute()) for p in others]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, *absolute])}

"""A session's process, begun before it is known what it will run. Loads next to nothing."""

from __future__ import annotations

import socket


def begin_tunnel(name: str) -> socket.socket:
    """Let the process of :func:`sshvpn.wiring.tunnels.start_tunnel` load already.

    Close the socket where nothing shall run: the process ends in silence. Raises OSError.
    """
    from sshvpn.system import daemon

    return daemon.begin("tunnel", name)

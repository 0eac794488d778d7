"""The ProxyCommand that fetches a connected socket for ssh (ssh_config(5), ProxyUseFdpass).

Run as ``python -IS handover_client.py SOCKET``; it imports the standard library only, and never
the package. ssh takes the socket from its standard output, a unix socket, with a byte that says
nothing (OpenSSH, monitor_fdpass.c). Exit 1: there was none.
"""

import socket
import sys


def main() -> int:
    """Fetch the socket at SOCKET, and pass it on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(sys.argv[1])
        _, found, _, _ = socket.recv_fds(peer, 1, 1)
    if not found:
        return 1
    with socket.socket(fileno=sys.stdout.fileno()) as ssh:
        socket.send_fds(ssh, [b"\0"], found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The peer of the sshtunnel engine: the library as its own manual uses it.

Runs by itself inside a machine: ``library.py HOST LOCAL_PORT REMOTE_PORT``, until it is killed.
"""

import sys
import threading

from sshtunnel import SSHTunnelForwarder


def main() -> None:
    """Forward, say so, and stay."""
    host, local, remote = sys.argv[1:]
    with SSHTunnelForwarder(
        host,
        ssh_username="alice",
        local_bind_address=("127.0.0.1", int(local)),
        remote_bind_address=("127.0.0.1", int(remote)),
    ):
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

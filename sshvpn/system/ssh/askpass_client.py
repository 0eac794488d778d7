"""The program that ssh asks for passwords: hands the prompt to whoever started ssh.

Run as ``python -IS askpass_client.py PROMPT``; it imports the standard library only, and never
the package. Exit 1: there is no answer.
"""

import json
import os
import socket
import sys


def main() -> int:
    """Send the prompt to the socket in SSHVPN_ASKPASS_SOCKET, print the answer."""
    message = {
        "prompt": sys.argv[1] if len(sys.argv) > 1 else "",
        "kind": os.environ.get("SSH_ASKPASS_PROMPT", ""),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(os.environ["SSHVPN_ASKPASS_SOCKET"])
        peer.sendall(json.dumps(message).encode() + b"\n")
        with peer.makefile("rb") as reader:
            reply = reader.readline()
    answer = json.loads(reply or b"{}").get("answer")
    if answer is None:
        return 1
    sys.stdout.write(answer + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

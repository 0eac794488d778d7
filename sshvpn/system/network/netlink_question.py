"""One question to the kernel, and its answer at once (netlink(7)).

For those that are asked every few seconds; pyroute2 is large.
"""

from __future__ import annotations

import socket

from sshvpn.plan.netlink import HEADER, messages

_NLM_F_REQUEST = 1
_ROOM = 8192


def ask(protocol: int, kind: int, body: bytes) -> list[tuple[int, bytes]]:
    """Return kind and body of each message that answers ``body``; those of an error, too.

    Asked in this thread's network namespace. Never blocks. Raises OSError.
    """
    question = HEADER.pack(HEADER.size + len(body), kind, _NLM_F_REQUEST, 0, 0) + body
    kind_of_socket = socket.SOCK_RAW | socket.SOCK_NONBLOCK  # the answer is there after send()
    with socket.socket(socket.AF_NETLINK, kind_of_socket, protocol) as kernel:
        kernel.send(question)
        return list(messages(kernel.recv(_ROOM)))

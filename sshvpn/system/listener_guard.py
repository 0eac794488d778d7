"""Keeps a listener to the adapter that it is meant for.

Linux is a weak host (RFC 1122 3.3.4.2): an address of the LAN's adapter answers to whoever
sends a packet for it, by whatever adapter it comes in. A classic BPF program on the listening
socket (SO_ATTACH_FILTER, socket(7)) lets in only what came by one adapter or over ``lo``, and
needs no privilege. Binding to the device instead (SO_BINDTODEVICE) would shut out this machine
itself: what it sends to its own address comes over ``lo``.

A packet that is not let in is dropped without an answer. Connections that a guarded listener
accepts inherit the filter, so an adapter that was made anew needs a new listener.
"""

from __future__ import annotations

import array
import errno
import ipaddress
import os
import socket
import struct
from contextlib import closing, suppress

from sshvpn.model import TcpEndpoint
from sshvpn.system.sockets import ProcessSockets, is_listening

_SO_ATTACH_FILTER = 26

# linux/filter.h and linux/bpf_common.h
_LOAD_WORD_ABSOLUTE = 0x20
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06
_ARRIVED_BY = 0xFFFFF000 + 8
"""SKF_AD_OFF + SKF_AD_IFINDEX: the index of the adapter that the packet came in by."""
_WHOLE_PACKET = 0xFFFFFFFF


def guard(sock: socket.socket, interface: str) -> None:
    """Let only packets in that came by ``interface`` or over ``lo``.

    ``sock`` is a TCP socket; do it before ``listen()``, so that nobody slips in between. Twice:
    the last one counts. Raises OSError, and leaves the socket as it was, when there is no such
    adapter (ENODEV) or when the kernel has no socket filters.
    """
    program = _program(_index_of(interface), _index_of("lo"))
    address, length = program.buffer_info()
    # struct sock_fprog: the number of instructions (8 bytes each), and where they stand.
    option = struct.pack("@HP", length * program.itemsize // 8, address)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def guard_process_listener(pid: int, endpoint: TcpEndpoint, interface: str) -> bool:
    """Guard the listener of another process (the system's ssh), found by where it listens.

    Returns whether it is guarded now: False where no such listener is found, where there is no
    such adapter, and where the kernel does not let us at the process (Yama, seccomp, Linux
    before 5.6). A connection that came before this call is not undone. Twice changes nothing.
    """
    try:
        wanted = (ipaddress.ip_address(endpoint.host), endpoint.port)
    except ValueError:
        return False
    with closing(ProcessSockets(pid)) as process:
        for _, sock in process.borrow_all():
            with suppress(OSError):
                host, port = sock.getsockname()[:2]
                if is_listening(sock) and (ipaddress.ip_address(host), port) == wanted:
                    guard(sock, interface)
                    return True
    return False


def _index_of(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:  # without a number before Python 3.14
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), interface) from error


def _program(*interface_indexes: int) -> array.array[int]:
    """Return the BPF program that takes packets of these adapters and drops all others.

    An array of struct sock_filter: code (16 bits), jump if true, if false (8 bits each), k.
    """
    count = len(interface_indexes)
    instructions = [(_LOAD_WORD_ABSOLUTE, 0, 0, _ARRIVED_BY)]
    for place, index in enumerate(interface_indexes):
        instructions.append((_JUMP_IF_EQUAL, count - place, 0, index))
    instructions += [(_RETURN, 0, 0, 0), (_RETURN, 0, 0, _WHOLE_PACKET)]
    return array.array("B", b"".join(struct.pack("=HBBI", *one) for one in instructions))

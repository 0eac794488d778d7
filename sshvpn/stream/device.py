"""The tun of one end: opened with its segments whole, and given back as it was.

Runs on the server too: Python 3.6, the standard library alone (see sshvpn.stream.program).
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys

# linux/if_tun.h
_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETLE = 0x400454CA, 0x400454D0, 0x400454DC
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_MULTI_QUEUE = 0x0001, 0x1000, 0x4000, 0x0100
_CSUM, _TSO4, _TSO6, _TSO_ECN, _USO4, _USO6 = 1, 2, 4, 8, 0x20, 0x40
_TCP_SEGMENTS = _CSUM | _TSO4 | _TSO6


class PumpError(Exception):
    """Why a pump ends: CODE is a word for the program, the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def open_tun(name: str, *, is_many: bool = False) -> int:
    """Return a descriptor of the tun NAME, which is there and is this user's; a queue of it.

    Raises PumpError.
    """
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if is_many else 0)
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise PumpError("no_tun", f"/dev/net/tun: {error.strerror}") from error
    try:
        socket.if_nametoindex(name)  # or root would make one of that name
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        os.close(descriptor)
        code, reason = "no_device", error.strerror or "there is none"
        if error.errno == errno.EINVAL:
            reason = "made {} several queues".format("without" if is_many else "for")
        if error.errno == errno.EBUSY:
            code = "busy"
        raise PumpError(code, f"{name}: {reason}") from error
    return descriptor


def flags_of(name: str) -> int:
    """Return with which flags the tun was last opened, or made."""
    try:
        with open(f"/sys/class/net/{name}/tun_flags") as file:  # noqa: PTH123
            return int(file.read(), 16)
    except (OSError, ValueError):
        return _IFF_TUN | _IFF_NO_PI


def give_back(name: str, descriptor: int, flags: int) -> None:
    """Close the tun, and leave it with FLAGS: the device stands longer than its queue.

    Who opens it next need know nothing of segments.
    """
    clear_offloads(descriptor)
    os.close(descriptor)
    with contextlib.suppress(OSError):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            socket.if_nametoindex(name)
            kept = flags & (_IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_MULTI_QUEUE)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), kept))
        finally:
            os.close(descriptor)


def set_offloads(descriptor: int, *, takes_udp: bool) -> bool:
    """Let the kernel hand over whole segments, of TCP, and of UDP too where the peer TAKES_UDP.

    Returns whether this kernel knows those of UDP. One that refuses all cuts segments itself.
    """
    if sys.byteorder == "big":
        fcntl.ioctl(descriptor, _TUNSETVNETLE, struct.pack("i", 1))
    udp = _USO4 | _USO6
    knows_udp = _offload(descriptor, _TCP_SEGMENTS | udp)
    if not (knows_udp and takes_udp) and not _offload(descriptor, _TCP_SEGMENTS):
        clear_offloads(descriptor)
    return knows_udp


def clear_offloads(descriptor: int) -> None:
    """Let the kernel cut segments and fill in checksums before it hands packets over."""
    _offload(descriptor, 0)


def _offload(descriptor: int, bits: int) -> bool:
    try:
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, bits)
    except OSError:
        return False
    return True

"""A tun that stays, made where the server's ip makes none: busybox's knows no ``ip tuntap``.

The agent hands this text to the server's python3, as root. So it needs the standard library of
Python 3.6 alone, has no single quote (a shell holds it in such), and nothing else is imported::

    python3 -I -S -c TEXT NAME UID [multi_queue]

It says nothing, or on the standard error why there is no device; its exit status tells which.
"""

import fcntl
import os
import struct
import sys

# linux/if_tun.h
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TUN, _IFF_NO_PI, _IFF_MULTI_QUEUE, _IFF_TUN_EXCL = 0x0001, 0x1000, 0x0100, 0x8000


def request(name: str, *, is_many: bool) -> bytes:
    """Return the struct ifreq for a new tun NAME, of one queue or many."""
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL
    if is_many:
        flags |= _IFF_MULTI_QUEUE
    return struct.pack("16sH22x", name.encode("ascii"), flags)


def make(name: str, uid: int, *, is_many: bool) -> None:
    """Make the tun NAME for the user UID, of one queue or many; as ``ip tuntap add`` does.

    What has that name already is left alone. A crash in the middle leaves nothing: until it is
    told to stay, the device goes with its descriptor. Raises OSError.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, request(name, is_many=is_many))
        fcntl.ioctl(descriptor, TUNSETOWNER, uid)
        fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def main() -> None:
    """Do what the words of the command line say."""
    name, uid = sys.argv[1], int(sys.argv[2])
    try:
        make(name, uid, is_many="multi_queue" in sys.argv)
    except OSError as error:
        sys.exit(error.strerror)


if __name__ == "__main__":
    main()

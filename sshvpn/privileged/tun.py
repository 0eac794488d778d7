"""A tun device, made by ioctl (linux/if_tun.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from sshvpn.errors import PrivilegeError, SshvpnError, TakenError
from sshvpn.plan.state import Link

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TUN, _IFF_NO_PI, _IFF_TUN_EXCL, _IFF_MULTI_QUEUE = 0x0001, 0x1000, 0x8000, 0x0100


def create_tun(link: Link) -> None:
    """Make the tun of ``link``, which stays when this process goes. Raises an SshvpnError.

    TakenError where there is a device of that name.
    """
    # By ioctl: netlink and `ip link` cannot make one without packet information, and making one
    # again would succeed in silence but for IFF_TUN_EXCL.
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL | (_IFF_MULTI_QUEUE if link.has_queues else 0)
    request = struct.pack("16sH22x", link.name.encode(), flags)
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, request)
            fcntl.ioctl(descriptor, _TUNSETOWNER, link.owner)
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise TakenError(f"the device {link.name} is there already") from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PrivilegeError(f"may not make a tun device: {error.strerror}") from error
        raise SshvpnError(
            f"cannot make a tun device: {error.strerror}", "is the module there? modprobe tun"
        ) from error

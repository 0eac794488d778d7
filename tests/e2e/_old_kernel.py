"""Runs a command whose kernel's tun has no offloads, or none of UDP (before Linux 6.2).

::

    _old_kernel.py all|udp COMMAND…     as root, for it and all that it starts

TUNSETOFFLOAD with one of these bits is EINVAL, as there: by a filter of seccomp(2), without
PR_SET_NO_NEW_PRIVS, so that sudo goes on to work.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# linux/if_tun.h, asm/unistd.h
TUNSETOFFLOAD = 0x400454D0
UNKNOWN = {"all": 0xFFFFFFFF, "udp": 0x60}
IOCTL = {"x86_64": 16, "aarch64": 29}
# linux/bpf_common.h, linux/seccomp.h: struct seccomp_data is nr, arch, ip, args[6].
LOAD, EQUAL, HAS_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, COMMAND, ARGUMENT = 0, 24, 32
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


def program(unknown: int) -> list[bytes]:
    """Return the filter; a test that fails jumps to its last instruction."""
    lines = [
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 5, IOCTL[platform.machine()]),
        (LOAD, 0, 0, COMMAND),
        (EQUAL, 0, 3, TUNSETOFFLOAD),
        (LOAD, 0, 0, ARGUMENT),
        (HAS_BITS, 0, 1, unknown),
        (RETURN, 0, 0, REFUSE | errno.EINVAL),
        (RETURN, 0, 0, ALLOW),
    ]
    return [struct.pack("HBBI", *line) for line in lines]


def main() -> None:
    """Set the filter, and become the command."""
    lines = program(UNKNOWN[sys.argv[1]])
    text = ctypes.create_string_buffer(b"".join(lines))
    fprog = struct.pack("HP", len(lines), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(fprog), 0, 0):
        sys.exit(os.strerror(ctypes.get_errno()))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 (no shell is meant)


if __name__ == "__main__":
    main()

"""What the process that strangers speak to gives up at its start, for good."""

from __future__ import annotations

import ctypes
import resource
import struct

_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522
_MOST_DESCRIPTORS = 512


def confine() -> None:
    """Have no capability, and never get one by a program (sudo).

    See prctl(2), capset(2), setrlimit(2). What the kernel does not know is left out.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    libc.capset(struct.pack("=Ii", _VERSION_3, 0), bytes(24))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

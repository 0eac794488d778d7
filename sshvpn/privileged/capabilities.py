"""Giving up what root may do, for good: capabilities(7), prctl(2)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Set as AbstractSet

from sshvpn.privileged.programs import path_of

NET_ADMIN = 12
NET_RAW = 13
_LAST = 63
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def needed() -> set[int]:
    """Return what the helper cannot do without."""
    iptables = path_of("iptables")
    # The old one looks into the kernel through a raw socket.
    is_legacy = iptables is not None and "legacy" in os.path.realpath(iptables)
    return {NET_ADMIN, NET_RAW} if is_legacy else {NET_ADMIN}


def keep_only(kept: AbstractSet[int]) -> None:
    """Drop all capabilities but ``kept``, also for what is run later, and take no new ones.

    A root process that runs a program gets what the bounding set holds, so that is cut first
    (it needs a capability that goes with the rest). Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(_LAST + 1):
        is_there = libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)
        if number not in kept and is_there == 1:
            _checked(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
    _checked(libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0))
    bits = sum(1 << number for number in kept)
    words = [(bits >> shift) & 0xFFFFFFFF for shift in (0, 32)]
    data = (_Data * 2)(*[_Data(word, word, 0) for word in words])
    _checked(libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), data))
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot give up capabilities: {os.strerror(number)}")

"""Child processes: how they are bound to their parent's life."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def dies_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` after which the child gets SIGTERM when its parent ends.

    So a supervisor that is killed with -9 leaves no ssh behind (prctl(2), PR_SET_PDEATHSIG).
    None where the system has no such thing. The libc is loaded here, not in the child: between
    fork and exec nothing may be loaded or locked.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the request was made
            os._exit(1)

    return before_exec

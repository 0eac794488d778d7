"""Child processes: how they are bound to their parent's life, and how one hears what they say."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Callable

from sshvpn.waiting import within

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_PIECE = 1 << 16
_LONGEST_LINE = 1 << 20


def find_ssh() -> str | None:
    """Return the absolute path of the system's ssh, or None."""
    return shutil.which("ssh")


class ChildLines:
    """What a child writes, line by line; give it ``write_fd`` as its output, then ``release``.

    A pipe of our own, since asyncio's counts as open, and the child as running, as long as a
    grandchild (a ProxyCommand) holds it. ``take`` is called in the loop, and ``heard`` before it,
    once for all that has come. Of a line that is longer than ``longest`` bytes, its end is kept.
    Close it.
    """

    def __init__(
        self,
        take: Callable[[str], None],
        longest: int = _LONGEST_LINE,
        *,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._take = take
        self._heard = heard
        self._longest = longest
        self._fd, self.write_fd = self._pipe()
        os.set_blocking(self._fd, False)
        self._begun = b""
        self._end = asyncio.Event()
        self._resume()

    @staticmethod
    def _pipe() -> tuple[int, int]:
        return os.pipe()

    def _resume(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _pause(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)

    def release(self) -> None:
        """Close our end that writes: the child has its own now. May be called twice."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    async def wait_end(self, timeout_s: float | None = None) -> None:
        """Wait until nobody can write any more, or so long."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(timeout_s, self._end.wait())

    def close(self) -> None:
        """Hear no more. May be called twice."""
        self.release()
        if self._fd >= 0:
            self._pause()
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            piece = os.read(self._fd, _PIECE)
        except BlockingIOError:
            return
        self._heard()
        *lines, self._begun = (self._begun + piece).split(b"\n")
        self._begun = self._begun[-self._longest :]
        if not piece:
            lines = [self._begun] if self._begun else []
            self._end.set()
            self.close()
        for line in lines:
            self._take(line[-self._longest :].decode(errors="replace").rstrip("\r"))


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


def confined() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` after which the child has no capability, and can get none.

    Not by a setuid program either (prctl(2), PR_SET_NO_NEW_PRIVS), nor as root, whose programs
    else get all that there are (capabilities(7)). It ends with its parent, as by
    :func:`dies_with_parent`.
    """
    end_with_parent = dies_with_parent()
    if end_with_parent is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    prctl, capset = libc.prctl, libc.capset
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()

    def before_exec() -> None:
        end_with_parent()
        prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
        if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or capset(header, nothing):
            os._exit(1)

    return before_exec

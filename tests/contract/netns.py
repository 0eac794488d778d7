"""Network namespaces without names or processes: they end with the test that holds them.

A namespace is a file descriptor; one thread enters it, and what the thread opens or starts
(sockets, ``ip``, an event loop) lives in there. The thread of the test stays where it is.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace with a thread that lives in it. Close it; twice is fine."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=_unshare)
        self._file = self.run(_open_own)
        self.ip("link set lo up")

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call ``function`` inside, and return what it returns or raises."""
        return self._thread.submit(function, *args).result()

    def ip(self, *commands: str) -> None:
        """Run ``ip COMMAND`` inside for each."""
        for command in commands:
            self.run(_ip, command)

    @property
    def path(self) -> str:
        """Where it is found, for ``ip link … netns PATH``."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def link_to(self, other: Namespace, here: str, there: str) -> None:
        """Join the two by a cable: adapter ``here`` in this one, ``there`` in the other."""
        self.ip(f"link add {here} type veth peer name {there} netns {other.path}")
        self.ip(f"link set {here} up")
        other.ip(f"link set {there} up")

    def close(self) -> None:
        """Let go of it; the kernel takes it down with all that is in it."""
        if self._file >= 0:
            self._thread.shutdown()
            os.close(self._file)
            self._file = -1


def _unshare() -> None:
    if _libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _open_own() -> int:
    return os.open(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)


def _ip(command: str) -> None:
    done = subprocess.run(  # noqa: PLW1510 -- a failure is shown with what ip said
        ["ip", *shlex.split(command)], capture_output=True, text=True
    )
    assert done.returncode == 0, f"ip {command}: {done.stderr}"


def may_make_namespaces() -> bool:
    """Whether this process has the right to (CAP_SYS_ADMIN)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return bool(effective >> 21 & 1)

"""Tells a service manager how a process stands, as sd_notify(3) describes the protocol.

One datagram a message to the socket that ``$NOTIFY_SOCKET`` names. Without such a variable nobody
wants to be told, and nothing happens.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_MICROSECONDS = 1_000_000
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """The service manager that started this process, if one did. Implements boundary.Manager.

    The variables are taken out of ``environment``. What cannot be told is lost: a tunnel does not
    end because nobody listens to it. Close it.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # A manager that does not read must not stop the event loop.
            self._socket.setblocking(False)  # noqa: FBT003 (socket's own signature)
        self.watchdog_s = _watchdog_s(environment) if self._socket is not None else None
        for name in _OURS:  # what we start is not what is asked
            environment.pop(name, None)

    @property
    def is_there(self) -> bool:
        """Whether there is one: this process is a service of it."""
        return self._address is not None

    @property
    def hides_owners(self) -> bool:
        """Whether this process is in a namespace of users where there is no root."""
        return self.is_there and not _has_root()

    def say(self, **variables: str) -> None:
        """Send ``READY="1"``, ``STATUS=…`` and so on; each on one line, whatever it holds."""
        if self._socket is None or self._address is None:
            return
        lines = [f"{name}={' '.join(value.split())}" for name, value in variables.items()]
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(lines).encode(), self._address)

    def say_reloading(self, status: str) -> None:
        """Tell that what runs is being made anew; ``READY`` tells that it is done."""
        since = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.say(RELOADING="1", MONOTONIC_USEC=str(since), STATUS=status)

    def close(self) -> None:
        """Tell nothing more. Twice is fine."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _address(text: str) -> str | None:
    """Return the address to send to; one in the abstract namespace begins with ``@``."""
    if text.startswith("@"):
        return f"\0{text[1:]}"
    return text if text.startswith("/") else None


def _has_root(uid_map: Path = Path("/proc/self/uid_map")) -> bool:
    """Whether root is somebody here (user_namespaces(7)); a kernel without them has one."""
    try:
        lines = uid_map.read_text().splitlines()
    except OSError:
        return True
    return any(line.split()[0] == "0" for line in lines)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return within which time the manager wants to hear of this process: sd_watchdog_enabled(3).

    None where it does not, or where another process is meant.
    """
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / _MICROSECONDS

"""Tells that an ssh has fallen silent that should have ended by itself.

ssh asks the server for a sign of life (ServerAliveInterval), and ends without one. One that is
stopped, or stuck, does neither, and its listeners go on taking connections. But whatever lives
is heard: so its TCP connection is looked at from outside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sshvpn.errors import ConnectionLostError, SshvpnError
from sshvpn.system.network.sockets import TcpCounters
from sshvpn.system.openssh.words import ALIVE_COUNT_MAX, ALIVE_INTERVAL_S
from sshvpn.system.ssh.config import Config

_LOOK_EVERY_S = 0.5


def patience_s(config: Config) -> float:
    """Return how long an ssh of ``config`` may hear nothing: as long as it waits itself."""
    interval = int(config.get("serveraliveinterval", ("0",))[0])
    count = int(config.get("serveralivecountmax", ("3",))[0])
    if not interval:
        interval, count = ALIVE_INTERVAL_S, ALIVE_COUNT_MAX
    return interval * (count + 1) - _LOOK_EVERY_S


async def wait_silent(counters: Callable[[], TcpCounters | None], patience_s: float) -> SshvpnError:
    """Return an error once ``counters`` have stood still for ``patience_s``.

    For ever where the kernel does not let us look.
    """
    seen, silent_s = counters(), 0.0
    while True:
        began = time.monotonic()
        await asyncio.sleep(_LOOK_EVERY_S)
        # When all of us stood still, nobody was there to hear anything.
        silent_s += min(time.monotonic() - began, 2 * _LOOK_EVERY_S)
        now = counters()
        if now is None or now != seen:
            seen, silent_s = now, 0.0
        elif silent_s >= patience_s:
            return ConnectionLostError("nothing is heard of the server any more")

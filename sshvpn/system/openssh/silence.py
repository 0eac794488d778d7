"""Tells that an ssh has fallen silent that should have ended by itself.

ssh asks the server for a sign of life (ServerAliveInterval), and ends without one. One that is
stopped, or stuck, does neither, and its listeners go on taking connections. But whatever lives
is heard: so its TCP connection is looked at from outside. The kernel knows since when nothing has
come, so that it is looked at only when that may be too long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sshvpn.errors import ConnectionLostError, SshvpnError
from sshvpn.system.openssh.words import ALIVE_COUNT_MAX, ALIVE_INTERVAL_S
from sshvpn.system.ssh.config import Config

_SOONER_S = 0.5
"""So much sooner than by ssh itself it is noticed here: ssh says more of what has happened."""
_LEAST_LOOK_S = 0.1
_LATE_S = 1.0
"""A look that comes so late: all of us stood still, and nobody was there to hear anything."""
_LOOK_AGAIN_S = 5.0
"""Where the kernel does not let us look, it may later: ssh is not there yet, or another one is."""


def patience_s(config: Config) -> float:
    """Return how long an ssh of ``config`` may hear nothing: as long as it waits itself."""
    interval = int(config.get("serveraliveinterval", ("0",))[0])
    count = int(config.get("serveralivecountmax", ("3",))[0])
    if not interval:
        interval, count = ALIVE_INTERVAL_S, ALIVE_COUNT_MAX
    return interval * (count + 1) - _SOONER_S


async def wait_silent(
    silence_s: Callable[[], float | None],
    patience_s: float,
    now: Callable[[], float] = time.monotonic,
) -> SshvpnError:
    """Return an error once nothing was heard for ``patience_s``.

    ``silence_s`` returns for how long nothing was; None where the kernel does not let us look,
    then for ever.
    """
    since = now()
    while True:
        silent_s = silence_s()
        if silent_s is None:
            wait_s = _LOOK_AGAIN_S
        else:
            left_s = patience_s - min(silent_s, now() - since)
            if left_s <= 0:
                return ConnectionLostError("nothing is heard of the server any more")
            wait_s = max(left_s, _LEAST_LOOK_S)
        due = now() + wait_s
        await asyncio.sleep(wait_s)
        if now() - due > _LATE_S:
            since = now()

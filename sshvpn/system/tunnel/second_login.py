"""The login that opens a device which the first one has made, begun beside that one.

A login takes its time at both ends, and two of them, one after the other, twice as long. So where
the device can be guessed, the second one logs in meanwhile, and asks for it when it is there::

    first    log in ── sudo ── make the device ── unit N ─┐
    second   log in ──────────────────── (held) ──────────┴─ open N ── its agent takes over

It asks nobody anything: whoever is to answer would be asked twice at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from sshvpn.errors import AuthenticationError, HostKeyUnknownError, LoginNeededError, SshvpnError
from sshvpn.remote.protocol import Device
from sshvpn.system.openssh.held import Gate
from sshvpn.system.tunnel.agent_login import AgentLogin

log = logging.getLogger("sshvpn.agent")

Prepared = tuple[AgentLogin, Device]


class Dial(Protocol):
    """Makes the login."""

    async def prepared(self, unit: str, gate: Gate | None = None) -> Prepared:
        """Log in with a tunnel to the server's ``unit``, which a first login has made.

        With a gate it will have made it when that opens, and is asked for then; nobody is asked
        anything. It begins once the server has answered the first one. The caller closes what is
        returned.
        """
        ...


class SecondLogin:
    """Begun at once, for the server's ``unit``. Close it, whatever came of it.

    ``was_refused`` tells that it could not log in without a person.
    """

    def __init__(self, dial: Dial, unit: str) -> None:
        self._unit = unit
        self._gate = Gate()
        self._making: asyncio.Task[Prepared] | None = asyncio.create_task(
            dial.prepared(unit, self._gate)
        )
        self.was_refused = False

    async def take(self, unit: str) -> Prepared | None:
        """Return what it gives, now that the device ``unit`` is there; the caller closes that.

        None where it did not come to ask for it, or the device is another one: one that is begun
        now may. Raises what stopped it after that.
        """
        if self._making is None or unit != self._unit:
            return await self._given_up("the device is another one")
        self._gate.is_open.set_result(None)
        try:
            made = await asyncio.shield(self._making)
        except (SshvpnError, OSError) as error:
            if self._gate.is_reached:
                raise
            # Of a host key that is not known, or a password, only the first one has asked.
            asks = (AuthenticationError, HostKeyUnknownError, LoginNeededError)
            self.was_refused = isinstance(error, asks)
            return await self._given_up(str(error))
        self._making = None
        return made

    async def _given_up(self, why: str) -> Prepared | None:
        log.debug("not by the login that was begun beside the first: %s", why)
        await self.close()
        return None

    async def close(self) -> None:
        """End it, where it was not taken."""
        making, self._making = self._making, None
        if making is None:
            return
        making.cancel()
        (made,) = await asyncio.gather(making, return_exceptions=True)
        if not isinstance(made, BaseException):
            await made[0].close()

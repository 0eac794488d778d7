"""The remote host's address of the LAN (``--lan-address``), and whether somebody else has it.

::

    claim ── an answer at once ──> TakenError
      └──── quiet: it is taken ──── a late answer ──> given up (``lost``), and told once

Who answers late is a machine that sleeps beside its radio, or one whose first frame got lost: for
the rest of the time that RFC 5227 and RFC 4861 give it, it is listened to beside the tunnel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

from sshvpn.boundary import Prober
from sshvpn.errors import TakenError
from sshvpn.model import TunnelProfile

log = logging.getLogger("sshvpn.tunnel")


class LanAddress:
    """One tunnel's address of the LAN. ``lost`` says to whom, once it was given up."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._address: str | None = None
        self._listening: asyncio.Task[TakenError | None] | None = None
        self._news = asyncio.Event()
        self.lost: TakenError | None = None

    async def claim(self, address: str, interface: str) -> None:
        """Return when nobody has answered for ``address`` at once; who does later is heard.

        Raises TakenError, but not for one that this tunnel has given up already: it stays so as
        long as another one has it. Cancelled: nothing is left.
        """
        await self.close()
        was_lost = self.lost is not None and self._address == address
        self._address, self.lost = address, None
        quiet = asyncio.Event()
        self._listening = asyncio.create_task(self._holder(address, interface, quiet))
        waiting = asyncio.create_task(quiet.wait())
        try:
            ends = {self._listening, waiting}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self.close()
            raise
        finally:
            waiting.cancel()
        if not self._listening.done():
            self._listening.add_done_callback(self._note)
        elif was_lost:
            self._note(self._listening)
        else:
            await self.settle()

    async def settle(self) -> None:
        """Wait for the last who may answer. Raises TakenError."""
        error = await self._listening if self._listening is not None else None
        if error is not None:
            raise error

    def granted(self, profile: TunnelProfile) -> TunnelProfile:
        """Return ``profile`` with what it has of the LAN: without an address that was given up."""
        return profile if self.lost is None else replace(profile, lan_address=None)

    async def forget(self) -> None:
        """Claim nothing any more, and tell nothing of what was: no address is asked for."""
        await self.close()
        self._address = self.lost = None

    async def changes(self) -> AsyncIterator[None]:
        """Yield when it was given up."""
        while True:
            await self._news.wait()
            self._news.clear()
            yield

    async def close(self) -> None:
        """Listen to nobody any more; twice is fine."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.remove_done_callback(self._note)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _holder(
        self, address: str, interface: str, quiet: asyncio.Event
    ) -> TakenError | None:
        holder = await self._prober.holder_of(interface, address, quiet)
        if holder is None:
            return None
        return TakenError(
            f"{address} is in use on {interface}, by {holder}", "name a free address of the LAN"
        )

    def _note(self, listening: asyncio.Task[TakenError | None]) -> None:
        if listening.cancelled():
            return
        if (bug := listening.exception()) is not None:
            log.warning("who else has %s is not known: %s", self._address, bug)
            return
        self.lost = listening.result()
        if self.lost is not None:
            log.warning("%s: the remote host has given it up", self.lost)
            self._news.set()

"""Tells the machines of the shared networks what is reachable here, and follows how it stands.

It looks at the session's snapshots and at the adapters, and decides nothing of its own: what is
told is sshvpn.presence's, who is shared with sshvpn.sharing's. What hears and answers strangers
is a process of its own (boundary.LanServer), which is started once there is something to tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from sshvpn.boundary import Interfaces, LanServer, TrustStore
from sshvpn.errors import SshvpnError
from sshvpn.model import ForwardProfile, TcpEndpoint, TunnelProfile
from sshvpn.presence import Presence, presence, to_json
from sshvpn.sharing import LanSharing

log = logging.getLogger("sshvpn.lan")

_START_AGAIN_S = (1.0, 60.0)
"""The first and the longest wait before a process that has ended is started again."""

_FIRST_S = 0.2
"""So long the first word waits, in which a command that started the session ends: the process that
says it takes both."""


class Announcer:
    """One session's, which is of ``profile``. ``make_server`` returns a process to be started.

    ``token`` returns the notebook's, an empty text where there is none.

    ``on_change`` is called when the names or the portal have changed; may be replaced.
    """

    def __init__(
        self,
        profile: ForwardProfile | TunnelProfile,
        interfaces: Interfaces,
        trust: TrustStore,
        make_server: Callable[[], LanServer],
        token: Callable[[], str] = lambda: "",
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._interfaces = interfaces
        self._trust = trust
        self._make_server = make_server
        self._token = token
        self._server: LanServer | None = None
        self._snapshot: Mapping[str, Any] | None = None
        self._told: tuple[Presence | None, int | None] = (None, None)
        self._running: Mapping[str, Any] | None = None
        self._is_over = False
        self._names: tuple[str, ...] = ()
        self._portal: tuple[TcpEndpoint, ...] = ()
        self._dirty = asyncio.Event()
        self._start_again_s = _START_AGAIN_S[0]
        self._tasks: list[asyncio.Task[None]] = []
        self.adopt(profile)

    def adopt(self, profile: ForwardProfile | TunnelProfile) -> None:
        """Tell from now on what ``profile`` wants to be told."""
        is_tunnel = isinstance(profile, TunnelProfile)
        self._wishes = profile.wishes
        self._is_wanted = profile.wishes.has_any and (
            profile.lan is not False if is_tunnel else bool(profile.lan)
        )
        only = profile.lan_interfaces if isinstance(profile, TunnelProfile) else ()
        self._sharing = LanSharing(self._interfaces, self._trust, only=only)
        self._dirty.set()
        self._begin()

    def observe(self, snapshot: Mapping[str, Any]) -> None:
        """Take how the session stands now; it is told soon."""
        self._snapshot = snapshot
        if snapshot["state"] == "running" and snapshot["records"]:
            self._running = snapshot
        self._dirty.set()
        self._begin()

    def _begin(self) -> None:
        runs = self._snapshot is not None and self._snapshot["state"] == "running"
        if runs and self._is_wanted and not self._tasks:
            self._tasks = [asyncio.create_task(self._tell()), asyncio.create_task(self._follow())]

    def withdraw(self) -> None:
        """Begin to withdraw all, for good: the session is about to end."""
        self._is_over = True
        self._dirty.set()

    def facts(self) -> dict[str, list[str]]:
        """Return what ``status --json`` says of it: host names, and the portal's URLs."""
        return {
            "names": list(self._names),
            "portal": [f"http://{place}/" for place in self._portal],
        }

    async def close(self) -> None:
        """Withdraw all, and return when that is done. May be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.close()
            self._server = None

    async def _follow(self) -> None:
        try:
            async for _ in self._interfaces.changes():
                self._dirty.set()
        except SshvpnError as error:
            log.warning("changes are not followed: %s", error)

    async def _tell(self) -> None:
        if self._wishes.portal is None:  # a person waits for that
            await asyncio.sleep(_FIRST_S)
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._look()
            except SshvpnError as error:
                log.warning("the local network is not told: %s", error)

    async def _look(self) -> None:
        told = None
        if self._is_wanted and not self._is_over:
            shared, _ = await asyncio.to_thread(self._sharing.look)
            if self._snapshot is not None:  # what it is after the look, which took its time
                told = presence(self._wishes, self._snapshot, shared, self._running, self._token())
        now = (told, self._wishes.portal)
        if now == self._told and (told is None or self._server is not None):
            return
        self._told = now
        if self._server is None and (told is None or not await self._start()):
            return
        if self._server is not None:
            plain = None if told is None else to_json(told)
            await self._server.tell({"presence": plain, "portal": self._wishes.portal})

    async def _start(self) -> bool:
        server = self._make_server()
        try:
            await server.start(self._take, log.warning, self._server_ended)
        except OSError as error:
            log.warning("the local network is not told: %s", error.strerror)
            self._server_ended()
            return False
        self._server = server
        return True

    # What the process says --------------------------------------------------------------

    def _take(self, names: tuple[str, ...], portal: tuple[TcpEndpoint, ...]) -> None:
        if (names, portal) == (self._names, self._portal):
            return
        gained = [name for name in names if name not in self._names]
        if gained:
            log.info("the local network knows it as %s", ", ".join(gained))
        self._names, self._portal = names, portal
        self._start_again_s = _START_AGAIN_S[0]
        self.on_change()

    def _server_ended(self) -> None:
        wait_s, self._start_again_s = (
            self._start_again_s,
            min(self._start_again_s * 2, _START_AGAIN_S[1]),
        )
        log.warning("the local network is not told just now: its process has ended")
        server, self._server = self._server, None
        self._take((), ())
        self._tasks.append(asyncio.create_task(self._again(server, wait_s)))

    async def _again(self, server: LanServer | None, wait_s: float) -> None:
        if server is not None:
            with contextlib.suppress(OSError):
                await server.close()
        await asyncio.sleep(wait_s)
        self._dirty.set()

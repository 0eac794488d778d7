"""This machine's end of a tunnel as its session sees it: the privileged helper, asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sshvpn.errors import PrivilegeError, SshvpnError
from sshvpn.plan import marks
from sshvpn.plan.request import Bypass, BypassCgroup, BypassUser, Facts
from sshvpn.plan.state import NetworkState, ProxyNeighbour
from sshvpn.plan.steps import AddNeighbour, DeleteNeighbour, Step
from sshvpn.privileged import cgroup
from sshvpn.privileged.proxies import proxy_neighbours
from sshvpn.system.network.monitor import HangUp, any_change, changes, listen, name_of
from sshvpn.system.privilege.helper import Helper

log = logging.getLogger("sshvpn.local_end")

T = TypeVar("T")

_CHANGES = 1 << 7 | 1 << 18 | 1 << 23 | 1 << 24
"""RTNLGRP_IPV4_RULE, IPV6_RULE, IPV4_NETCONF, IPV6_NETCONF (linux/rtnetlink.h)."""
_COALESCE_S = 0.2
"""A firewall that is loaded anew changes some hundred times."""
_LOOK_EVERY_S = 0.5
"""How often is looked for proxy neighbours, where there shall be any: nobody tells of them."""
_LIVES_S = 5.0
"""A helper that is killed sooner than this will be so again: no other one is started."""

Starter = Callable[[], Helper]


class HelperEnd:
    """Implements boundary.LocalEnd.

    One thread speaks with the helper, a request after the other: one that is no longer waited
    for is finished all the same, so that no answer is taken for the next one's. What it made is
    noted there, too.

    A helper that is killed leaves all as it stands. ``start`` starts another one, asking nobody,
    which takes that over; where it raises, :meth:`wait_gone` returns.
    """

    def __init__(self, helper: Helper, label: str, start: Starter) -> None:
        self._helper = helper
        self._label = label
        self._unit: int | None = None
        self._own_group: str | None = None
        self._is_enclosed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="helper")
        self._start = start
        self._started_at = float("-inf")
        self._hang_up = HangUp(helper.fileno(), self._take_over_soon)
        self._taking_over: asyncio.Task[None] | None = None
        self._is_closed = False
        self._gone: asyncio.Future[SshvpnError] = asyncio.get_running_loop().create_future()
        self._neighbours: frozenset[ProxyNeighbour] = frozenset()
        self._has_neighbours = asyncio.Event()
        self._nudge, self._nudged = socket.socketpair()
        self._nudged.settimeout(0)

    async def open(self) -> int:
        """Begin, and return the tunnel's unit; again is fine. Raises TakenError where it is up."""
        return await self._ask(self._open_once) if self._unit is None else self._unit

    def _open_once(self, helper: Helper) -> int:
        if self._unit is None:
            self._unit = helper.open(self._label)
        return self._unit

    async def facts(self) -> Facts:
        """Return what this machine is like."""
        return await self._ask(Helper.facts)

    async def read(self) -> NetworkState:
        """Return what the tunnel has in the kernel now."""
        return await self._ask(Helper.read)

    async def apply(self, steps: Sequence[Step]) -> None:
        """Make the steps, all or none."""
        loop = asyncio.get_running_loop()

        def make(helper: Helper) -> None:
            helper.apply(steps)
            self._note_neighbours(steps)
            if self._neighbours:
                loop.call_soon_threadsafe(self._has_neighbours.set)

        await self._ask(make)

    def _note_neighbours(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case AddNeighbour(neighbour):
                    self._neighbours |= {neighbour}
                case DeleteNeighbour(neighbour):
                    self._neighbours -= {neighbour}

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield at the start, and after changes of the firewall, a rule, a setting (coalesced).

        Not after those of another tunnel's alone; but also when another helper has taken over:
        nobody put anything back meanwhile.

        Not heard are iptables-legacy, and accept_ra of an adapter: the kernel tells nobody.
        """
        unit = await self.open()
        watched = await self._ask(Helper.watch)
        looking = asyncio.create_task(self._look_for_neighbours())
        try:
            with watched as firewall, listen(_CHANGES) as others:
                heeds = {
                    firewall: lambda data: _concerns_firewall(data, self._label),
                    others: lambda data: _concerns_routing(data, unit),
                    self._nudged: any_change,
                }
                async for _ in changes(heeds, _COALESCE_S):
                    yield None
        finally:
            looking.cancel()

    async def _look_for_neighbours(self) -> None:
        before: frozenset[ProxyNeighbour] = frozenset()
        while True:
            await self._has_neighbours.wait()
            await asyncio.sleep(_LOOK_EVERY_S)
            missing = self._neighbours.difference(proxy_neighbours())
            # Once: what cannot be put back (its adapter has gone) is not tried all the time.
            if missing - before:
                self._nudge.send(b"\n")
            before = missing
            if not self._neighbours:
                self._has_neighbours.clear()

    async def bypass(self) -> Bypass:
        """Let this process and what it starts go around a default route, and return how."""
        uid = os.getuid()
        service = cgroup.of_service()
        if service is not None:
            return BypassCgroup(service, marks.bypass_mark(await self.open()))
        try:
            # Where systemd has given the user a part of the tree, the helper may not change it.
            path = self._own_group = cgroup.enclose(self._label, os.getpid(), uid)
        except PrivilegeError:
            try:
                path = await self._ask(lambda helper: helper.enclose(os.getpid()))
                self._is_enclosed = True
            except PrivilegeError as error:
                if uid == 0:  # forwarded packets count as root's, too
                    raise
                log.warning("%s: all that this user sends goes around the tunnel", error)
                return BypassUser(uid)
        return BypassCgroup(path, marks.bypass_mark(await self.open()))

    async def pace(self, sock: socket.socket, name: str) -> None:
        """Let a TCP socket be paced by the congestion control ``name``."""
        await self._ask(lambda helper: helper.pace(sock, name))

    async def close(self) -> Sequence[str]:
        """Remove all, and return what could not be removed; twice is fine."""
        self._is_closed = True
        self._hang_up.close()
        # After a take-over that has begun: the thread does one thing after the other.
        failed = await self._ask(lambda helper: helper.close())
        self._nudge.close()
        self._nudged.close()
        if self._own_group is not None:
            failed += cgroup.remove(self._own_group)
        return failed

    # A helper that was killed -------------------------------------------------------------

    async def wait_gone(self) -> SshvpnError:
        """Wait until nobody is left who could change this end, and return why."""
        return await asyncio.shield(self._gone)

    def _take_over_soon(self) -> None:
        self._taking_over = asyncio.get_running_loop().create_task(self._take_over())

    async def _take_over(self) -> None:
        try:
            await self._ask(self._begin_again)
        except SshvpnError as error:
            log.warning("the privileged helper was killed")
            if not self._gone.done():
                self._gone.set_result(error)
            return
        if self._is_closed:
            return
        log.warning("the privileged helper was killed; another one has taken over what stands")
        self._hang_up = HangUp(self._helper.fileno(), self._take_over_soon)
        with contextlib.suppress(OSError):
            self._nudge.send(b"\n")

    def _begin_again(self, killed: Helper) -> None:
        if time.monotonic() - self._started_at < _LIVES_S:
            raise PrivilegeError(
                "the privileged helper was killed, and the one after it", "see who kills it"
            )
        self._started_at = time.monotonic()
        helper = self._start()
        try:
            if self._unit is not None:  # else it comes to that yet
                helper.open(self._label, self._unit)
            if self._is_enclosed:
                helper.enclose(os.getpid())
        except BaseException:
            helper.let_go()
            raise
        self._helper = helper
        killed.let_go()

    async def _ask(self, what: Callable[[Helper], T]) -> T:
        # Whichever helper it is when its turn comes.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: what(self._helper))


# pyroute2 is loaded once there is a change -------------------------------------------------


def _concerns_firewall(data: bytes, label: str) -> bool:
    from sshvpn.system.network.concern import concerns_firewall

    return concerns_firewall(data, label)


def _concerns_routing(data: bytes, unit: int) -> bool:
    from sshvpn.system.network.concern import concerns_routing

    return concerns_routing(data, unit, name_of)

"""This machine's end of a tunnel as its session sees it: the privileged helper, asynchronous."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sshvpn.errors import PrivilegeError
from sshvpn.plan import marks
from sshvpn.plan.request import Bypass, BypassCgroup, BypassUser, Facts
from sshvpn.plan.state import NetworkState
from sshvpn.plan.steps import Step
from sshvpn.privileged import cgroup
from sshvpn.system.network.monitor import changes, rtnetlink
from sshvpn.system.privilege.helper import Helper

log = logging.getLogger("sshvpn.local_end")

T = TypeVar("T")

_CHANGES = 1 << 7 | 1 << 18 | 1 << 23 | 1 << 24
"""RTNLGRP_IPV4_RULE, IPV6_RULE, IPV4_NETCONF, IPV6_NETCONF (linux/rtnetlink.h)."""
_COALESCE_S = 0.2
"""A firewall that is loaded anew changes some hundred times."""


class HelperEnd:
    """Implements boundary.LocalEnd.

    One thread speaks with the helper, a request after the other: one that is no longer waited
    for is finished all the same, so that no answer is taken for the next one's.
    """

    def __init__(self, helper: Helper, label: str, unit: int, thread: ThreadPoolExecutor) -> None:
        self._helper = helper
        self._label = label
        self._unit = unit
        self._own_group: str | None = None
        self._thread = thread

    @classmethod
    async def open(cls, helper: Helper, label: str) -> HelperEnd:
        """Begin with the tunnel ``label``. Raises TakenError where it is up."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="helper")
        loop = asyncio.get_running_loop()
        unit = await loop.run_in_executor(thread, helper.open, label)
        return cls(helper, label, unit, thread)

    @property
    def unit(self) -> int:
        """The tunnel's unit."""
        return self._unit

    async def facts(self) -> Facts:
        """Return what this machine is like."""
        return await self._ask(self._helper.facts)

    async def read(self) -> NetworkState:
        """Return what the tunnel has in the kernel now."""
        return await self._ask(self._helper.read)

    async def apply(self, steps: Sequence[Step]) -> None:
        """Make the steps, all or none."""
        await self._ask(lambda: self._helper.apply(steps))

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield at the start, and after changes of the firewall, a rule, a setting (coalesced).

        Not heard are iptables-legacy, proxy neighbours, and accept_ra of an adapter: the kernel
        tells nobody.
        """
        with await self._ask(self._helper.watch) as firewall, rtnetlink(_CHANGES) as others:
            async for _ in changes([firewall, others], _COALESCE_S):
                yield None

    async def bypass(self) -> Bypass:
        """Let this process and what it starts go around a default route, and return how."""
        uid = os.getuid()
        service = cgroup.of_service()
        if service is not None:
            return BypassCgroup(service, marks.bypass_mark(self._unit))
        try:
            # Where systemd has given the user a part of the tree, the helper may not change it.
            path = self._own_group = cgroup.enclose(self._label, os.getpid(), uid)
        except PrivilegeError:
            try:
                path = await self._ask(lambda: self._helper.enclose(os.getpid()))
            except PrivilegeError as error:
                if uid == 0:  # forwarded packets count as root's, too
                    raise
                log.warning("%s: all that this user sends goes around the tunnel", error)
                return BypassUser(uid)
        return BypassCgroup(path, marks.bypass_mark(self._unit))

    async def pace(self, sock: socket.socket, name: str) -> None:
        """Let a TCP socket be paced by the congestion control ``name``."""
        await self._ask(lambda: self._helper.pace(sock, name))

    async def close(self) -> Sequence[str]:
        """Remove all, and return what could not be removed; twice is fine."""
        failed = await self._ask(self._helper.close)
        if self._own_group is not None:
            failed += cgroup.remove(self._own_group)
        return failed

    async def _ask(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what)

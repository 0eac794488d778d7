"""This machine's end of a tunnel as its session sees it: the privileged helper, asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sshvpn.plan.request import Facts
from sshvpn.plan.state import NetworkState
from sshvpn.plan.steps import Step
from sshvpn.system.privilege import Helper

T = TypeVar("T")


class HelperEnd:
    """Implements boundary.LocalEnd.

    One thread speaks with the helper, a request after the other: one that is no longer waited
    for is finished all the same, so that no answer is taken for the next one's.
    """

    def __init__(self, helper: Helper, unit: int, thread: ThreadPoolExecutor) -> None:
        self._helper = helper
        self._unit = unit
        self._thread = thread

    @classmethod
    async def open(cls, helper: Helper, label: str) -> HelperEnd:
        """Begin with the tunnel ``label``. Raises TakenError where it is up."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="helper")
        loop = asyncio.get_running_loop()
        return cls(helper, await loop.run_in_executor(thread, helper.open, label), thread)

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

    async def close(self) -> Sequence[str]:
        """Remove all, and return what could not be removed; twice is fine."""
        return await self._ask(self._helper.close)

    async def _ask(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what)

"""This machine as ``--dry-run`` sees it: what a tunnel would find, and nothing is changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

from sshvpn.errors import PrivilegeError
from sshvpn.plan import marks
from sshvpn.plan.request import Bypass, BypassCgroup, BypassUser, Facts
from sshvpn.privileged import cgroup
from sshvpn.system.privilege.helper import Helper

T = TypeVar("T")


class HelperView:
    """Implements boundary.LocalView. The helper is asked to look only; close it."""

    def __init__(self, helper: Helper, label: str) -> None:
        self._helper = helper
        self._label = label

    async def unit(self) -> int:
        """Return the unit that the tunnel would get. Raises TakenError where it is up."""
        return await self._ask(lambda helper: helper.look(self._label))

    async def facts(self) -> Facts:
        """Return what this machine is like."""
        return await self._ask(Helper.facts)

    async def bypass(self) -> Bypass:
        """Return how ssh would be let go around a default route.

        Raises PrivilegeError where it surely could not.
        """
        try:
            path = cgroup.of_service() or cgroup.place_for(self._label)
        except PrivilegeError:
            if os.getuid() == 0:
                raise
            return BypassUser(os.getuid())
        return BypassCgroup(path, marks.bypass_mark(await self.unit()))

    async def close(self) -> None:
        """Let the helper end."""
        await self._ask(lambda helper: helper.close())

    async def _ask(self, what: Callable[[Helper], T]) -> T:
        return await asyncio.to_thread(what, self._helper)

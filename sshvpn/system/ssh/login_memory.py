"""What earlier logins of a session needed: what a refusal means where one worked before."""

from __future__ import annotations

import asyncio

from sshvpn.boundary import Prompter
from sshvpn.errors import AuthenticationError, LoginNeededError, SshvpnError
from sshvpn.system.ssh.agent import AgentMemory


class LoginMemory:
    """Of the logins to one host, whatever makes them."""

    def __init__(self) -> None:
        self._agent = AgentMemory()
        self._needs_person = False

    async def note(self, agent: str | None, *, was_answered: bool) -> None:
        """Remember a login that worked: the agent at path ``agent``, and whether one answered."""
        self._needs_person = self._needs_person or was_answered
        await asyncio.to_thread(self._agent.note, agent)

    def missing(self) -> str | None:
        """Return, for a message, what a refused login lacks that an earlier one had.

        Blocks for two seconds at most.
        """
        return self._agent.what_is_missing(needs_person=self._needs_person)

    async def explained(self, error: AuthenticationError, prompter: Prompter | None) -> SshvpnError:
        """Return what ``error`` means to a login that ``prompter`` was there for.

        The same refusal means something else where a login worked before and nobody can be
        asked now: what is missing is a person or the agent, not the right to log in.
        """
        missing = None if prompter is not None else await asyncio.to_thread(self.missing)
        if missing is None:
            return error
        return LoginNeededError(
            f"the server wants a login: {missing}",
            "bring the agent back, or start it again at a terminal",
        )

    async def wait_back(self) -> None:
        """Return when the agent has a key again that it had; for ever where none is missing."""
        await self._agent.wait_back()

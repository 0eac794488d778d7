"""Notebooks: the session of one, and what runs at a host without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from sshvpn.wiring import terminal
from sshvpn.wiring.outside import make_engine, make_interfaces, make_trust_store

_ANSWER_WITHIN_S = 60.0
_END_WITHIN_S = 30.0
"""A Jupyter that is told to end is waited for at the server, for twenty seconds."""

T = TypeVar("T")

if TYPE_CHECKING:
    from sshvpn.control import SessionDir
    from sshvpn.jupyter import Found
    from sshvpn.model import ForwardProfile
    from sshvpn.notebook import NotebookSession
    from sshvpn.remote.notebook_protocol import Ended, Server


def make_notebook(profile: ForwardProfile, directory: SessionDir) -> NotebookSession:
    """Return a session for ``profile``, which wishes for a notebook."""
    from sshvpn.notebook import Access, NotebookSession
    from sshvpn.system.web import SystemWebClient

    def keep(access: Access) -> None:
        directory.keep_secret({"base_url": access.base_url, "token": access.token})

    return NotebookSession(
        profile,
        make_engine(profile.engine, directory.path),
        make_interfaces(),
        make_trust_store(),
        web=SystemWebClient(),
        keep=keep,
    )


def list_notebooks(profile: ForwardProfile) -> tuple[Server, ...]:
    """Return the servers of Jupyter that run at the host of ``profile``, over a login of its own.

    Who sits at the terminal is asked what ssh wants to know. Raises an SshvpnError.
    """
    found, _ = end_notebooks(profile, lambda _: ())
    return found.servers


def end_notebooks(
    profile: ForwardProfile, choose: Callable[[Found], Sequence[Server]]
) -> tuple[Found, list[Ended]]:
    """End those servers of Jupyter that ``choose`` returns of what runs there.

    Returns what was there, and which of the chosen have ended. ``choose`` may raise.
    """
    import asyncio

    from sshvpn.jupyter import conversation

    async def main() -> tuple[Found, list[Ended]]:
        engine = make_engine(profile.engine)
        await engine.check(profile)
        connection = await engine.connect(profile, terminal.prompter())
        try:
            async with conversation(connection, profile.host) as jupyter:
                directory = profile.notebook.directory if profile.notebook else ""
                found = await _within(_ANSWER_WITHIN_S, jupyter.look(directory), profile.host)
                chosen = [server.pid for server in choose(found)]
                within_s = _ANSWER_WITHIN_S + _END_WITHIN_S * len(chosen)
                if not chosen:
                    return found, []
                return found, await _within(within_s, jupyter.stop(chosen), profile.host)
        finally:
            await connection.close()

    return asyncio.run(main())


async def _within(seconds: float, answer: Awaitable[T], host: str) -> T:
    import asyncio

    from sshvpn.errors import UnreachableError
    from sshvpn.waiting import within

    try:
        return await within(seconds, answer)
    except asyncio.TimeoutError as error:
        raise UnreachableError(
            f"{host} does not say what runs there", "see what hangs there: its disks, its login"
        ) from error

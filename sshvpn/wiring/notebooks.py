"""Notebooks: the session of one, and what runs at a host without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sshvpn.wiring import terminal
from sshvpn.wiring.outside import make_engine, make_interfaces, make_trust_store

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
    servers, _ = end_notebooks(profile, lambda _: ())
    return servers


def end_notebooks(
    profile: ForwardProfile, choose: Callable[[Found], Sequence[Server]]
) -> tuple[tuple[Server, ...], list[Ended]]:
    """End those servers of Jupyter that ``choose`` returns of what runs there.

    Returns all that ran, and which of the chosen have ended. ``choose`` may raise.
    """
    import asyncio

    from sshvpn.jupyter import conversation

    async def main() -> tuple[tuple[Server, ...], list[Ended]]:
        engine = make_engine(profile.engine)
        await engine.check(profile)
        connection = await engine.connect(profile, terminal.prompter())
        try:
            async with conversation(connection, profile.host) as jupyter:
                found = await jupyter.look(profile.notebook.directory if profile.notebook else "")
                chosen = [server.pid for server in choose(found)]
                return found.servers, await jupyter.stop(chosen) if chosen else []
        finally:
            await connection.close()

    return asyncio.run(main())

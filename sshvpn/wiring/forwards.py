"""Forwards: their sessions, in this process or in one of their own; those of notebooks, too."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sshvpn.wiring import sessions
from sshvpn.wiring.lan import check_portal
from sshvpn.wiring.notebooks import make_notebook
from sshvpn.wiring.outside import make_engine, make_interfaces, make_trust_store
from sshvpn.wiring.places import SessionDirOf

if TYPE_CHECKING:
    from sshvpn.forwarding import ForwardSession
    from sshvpn.model import ForwardProfile
    from sshvpn.runner import Front, Launcher


def make_forward(profile: ForwardProfile, directory: Path | None = None) -> ForwardSession:
    """Return a session for ``profile``; ``directory`` is its private run-time directory."""
    from sshvpn.forwarding import ForwardSession

    return ForwardSession(
        profile, make_engine(profile.engine, directory), make_interfaces(), make_trust_store()
    )


def run_forward(
    profile: ForwardProfile,
    make_front: Callable[[], Front] | None = None,
    launcher: Launcher | None = None,
    *,
    verbose: bool = False,
) -> int:
    """Run ``profile`` in this process until it ends, and return the exit code.

    Raises AlreadyUpError where it is up, and the SshvpnError that stopped the first start.
    """
    from sshvpn.model import Direction, UnixEndpoint
    from sshvpn.system.imports import leave_out_unused

    leave_out_unused()
    with SessionDirOf(profile) as directory:
        directory.note_sockets(
            spec.listen.path
            for spec in profile.specs
            if isinstance(spec.listen, UnixEndpoint) and spec.direction is not Direction.REMOTE
        )

        async def make(is_service: bool) -> ForwardSession:
            if profile.notebook is not None:
                session: ForwardSession = make_notebook(profile, directory)
            else:
                session = make_forward(profile, directory.path)
            session.is_service = is_service
            await session.check()
            check_portal(profile)
            return session

        return sessions.run(make, profile, directory, make_front, launcher, verbose=verbose)


def start_background(profile: ForwardProfile, *, verbose: bool = False) -> socket.socket:
    """Start a process of its own that runs ``profile``, and return the socket to it.

    It is a control socket that is attached from the start (docs/control-protocol.md): closing
    it before the first ``running`` undoes everything.
    """
    from sshvpn.system import daemon

    begun = daemon.begin("forward", profile.name)
    sessions.assign(begun, profile, verbose=verbose)
    return begun

"""Builds the system: the only module that knows all rooms.

The command line, the background process and the Python interface come here for a session that
can be run. Everything heavy is imported where it is used: ``sshvpn status`` passes by here too.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sshvpn.control import SessionDir, session_id
from sshvpn.system import paths

if TYPE_CHECKING:
    from sshvpn.boundary import ForwardEngine, Interfaces, Prompter
    from sshvpn.forwarding import ForwardSession
    from sshvpn.model import EngineName, ForwardProfile
    from sshvpn.runner import Front, Launcher


def runtimes() -> tuple[Path, ...]:
    """Return the directories where running sessions may be found."""
    return paths.runtime_dirs()


def log_dir() -> Path:
    """Return the directory of the logs."""
    return paths.log_dir()


def log_file(kind: str, name: str) -> Path:
    """Return the file of a session's log."""
    return paths.log_dir() / f"{kind}-{re.sub(r'[^A-Za-z0-9._@-]', '_', name)[:100]}.log"


def session_path(profile: ForwardProfile) -> Path:
    """Return the run-time directory of ``profile``'s session, there or not."""
    return paths.runtime_dir() / f"forward-{session_id(profile)}"


def make_engine(name: EngineName, directory: Path | None = None) -> ForwardEngine:
    """Return the engine: ``auto`` is the system's OpenSSH where there is one."""
    from sshvpn.model import EngineName
    from sshvpn.system.openssh import OpensshEngine
    from sshvpn.system.process import find_ssh

    if name is EngineName.OPENSSH or (name is EngineName.AUTO and find_ssh()):
        return OpensshEngine(directory)
    from sshvpn.system.sshtunnel_engine import SshtunnelEngine

    return SshtunnelEngine()


def make_interfaces() -> Interfaces:
    """Return the adapters of this machine."""
    from sshvpn.system.interfaces import SystemInterfaces

    return SystemInterfaces()


def make_forward(profile: ForwardProfile, directory: Path | None = None) -> ForwardSession:
    """Return a session for ``profile``; ``directory`` is its private run-time directory."""
    from sshvpn.forwarding import ForwardSession
    from sshvpn.lan.trust import FileTrustStore

    return ForwardSession(
        profile,
        make_engine(profile.engine, directory),
        make_interfaces(),
        FileTrustStore(paths.state_dir() / "trust.json"),
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
    import asyncio

    from sshvpn import runner
    from sshvpn.model import Direction, UnixEndpoint
    from sshvpn.system.imports import leave_out_unused

    leave_out_unused()
    with SessionDirOf(profile) as directory:
        directory.note_sockets(
            spec.listen.path
            for spec in profile.specs
            if isinstance(spec.listen, UnixEndpoint) and spec.direction is not Direction.REMOTE
        )
        session = make_forward(profile, directory.path)

        async def main() -> int:
            await session.check()
            return await runner.run(
                session,
                directory,
                log_file=log_file(session.kind, session.name),
                front=make_front() if make_front else None,
                launcher=launcher,
                verbose=verbose,
            )

        return asyncio.run(main())


class SessionDirOf(SessionDir):
    """The locked run-time directory of ``profile``'s session."""

    def __init__(self, profile: ForwardProfile) -> None:
        super().__init__(paths.runtime_dir(), "forward", session_id(profile))


def trust_lan(profile: ForwardProfile) -> None:
    """Remember the networks of the LAN that are there now as ``--lan`` does."""
    import asyncio

    asyncio.run(make_forward(profile).settle_trust(None))


def start_background(profile: ForwardProfile, *, verbose: bool = False) -> socket.socket:
    """Start a process of its own that runs ``profile``, and return the socket to it.

    It is a control socket that is attached from the start (docs/control-protocol.md): closing
    it before the first ``running`` undoes everything.
    """
    from sshvpn.system.daemon import spawn
    from sshvpn.wire import profile_to_json

    request = {
        "profile": profile_to_json(profile),
        "can_answer": terminal_prompter() is not None,
        "verbose": verbose,
    }
    return spawn(request, profile.name)


def terminal_prompter() -> Prompter | None:
    """Return who can be asked at this process's terminal, or None."""
    from sshvpn.system.terminal import TerminalPrompter, has_terminal

    return TerminalPrompter() if has_terminal() else None


def ask_at_terminal(prompt: str, *, echo: bool) -> str | None:
    """Return what the person at the terminal types, or None where nobody is."""
    from sshvpn.system import terminal

    return terminal.ask(prompt, echo=echo)


def qr_code(text: str) -> str:
    """Return ``text`` as a QR code to be printed on a terminal."""
    from sshvpn.lan.qr import terminal_qr

    return terminal_qr(text)

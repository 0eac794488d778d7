"""One session, run: in this process, or in a process of its own."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sshvpn.wiring import terminal
from sshvpn.wiring.lan import make_announcer
from sshvpn.wiring.outside import make_way
from sshvpn.wiring.places import log_file

if TYPE_CHECKING:
    from sshvpn.control import SessionDir
    from sshvpn.forwarding import ForwardSession
    from sshvpn.runner import Exporter, Front, Launcher
    from sshvpn.tunnel.session import TunnelSession
    from sshvpn.wiring.places import Profile


def run(
    make: Callable[[bool], Awaitable[ForwardSession | TunnelSession]],
    profile: Profile,
    directory: SessionDir,
    make_front: Callable[[], Front] | None,
    launcher: Launcher | None,
    *,
    verbose: bool,
) -> int:
    """Run what ``make`` returns in this process until it ends, and return the exit code.

    ``make`` is told whether this process is a service, so that nobody is there to be told.
    Raises what ``make`` raises, and what stopped the first start.
    """
    import asyncio
    import contextlib

    from sshvpn import runner
    from sshvpn.errors import SshvpnError
    from sshvpn.readiness import Readiness
    from sshvpn.system.systemd import journal
    from sshvpn.system.systemd.sd_notify import ServiceManager

    # In the journal the log has everything; a front beside it would say it twice.
    is_journal = launcher is None and journal.is_stderr()

    exporter = _make_exporter(profile)

    async def main() -> int:
        with contextlib.closing(ServiceManager()) as manager:
            try:
                session = await make(launcher is None and manager.is_there)
            except SshvpnError as error:
                Readiness(manager).failed(error)
                raise
            return await runner.run(
                session,
                directory,
                log_file=None if is_journal else log_file(session.kind, session.name),
                exporter=exporter,
                front=make_front() if make_front and not is_journal else None,
                launcher=launcher,
                way=make_way(session),
                announcer=make_announcer(profile, directory.path),
                manager=None if launcher else manager,
                verbose=verbose,
            )

    return asyncio.run(main())


def _make_exporter(profile: Profile) -> Exporter | None:
    if profile.metrics is None:
        return None
    from sshvpn.system.metrics import Exporter

    return Exporter(profile.metrics)


def load_first() -> None:
    """Import what every session needs, and what looks at ssh's configuration."""
    from sshvpn.system.imports import leave_out_unused

    leave_out_unused()
    from sshvpn import wire
    from sshvpn.system.ssh import config

    del wire, config


def load(kind: str) -> None:
    """Import what a session of ``kind`` needs beside that."""
    from sshvpn import runner
    from sshvpn.system.systemd import journal, sd_notify

    del runner, journal, sd_notify
    if kind == "tunnel":
        from sshvpn import sharing
        from sshvpn.system.network import interfaces, prober, way
        from sshvpn.system.privilege import local_end
        from sshvpn.system.tunnel import auto
        from sshvpn.tunnel import session

        del sharing, interfaces, prober, way, local_end, auto, session


def assign(begun: socket.socket, profile: Profile, *, verbose: bool) -> None:
    """Let a process that loads already (sshvpn.system.daemon) run ``profile``."""
    from sshvpn.system import daemon
    from sshvpn.wire import profile_to_json

    request: dict[str, object] = {
        "profile": profile_to_json(profile),
        "can_answer": terminal.prompter() is not None,
        "verbose": verbose,
    }
    daemon.assign(begun, request)

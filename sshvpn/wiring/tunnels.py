"""Tunnels: their sessions, in this process or in one of their own; and ``--dry-run``."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sshvpn.control import AlreadyUpError, is_alive
from sshvpn.system import paths
from sshvpn.wiring import beginning, sessions, terminal
from sshvpn.wiring.lan import check_portal
from sshvpn.wiring.outside import make_interfaces, make_trust_store
from sshvpn.wiring.places import SessionDirOf, session_path
from sshvpn.wiring.privilege import start_helper, start_helper_again

if TYPE_CHECKING:
    from sshvpn.boundary import Interfaces, LocalEnd, TunnelCarrier
    from sshvpn.model import TunnelProfile
    from sshvpn.runner import Front, Launcher
    from sshvpn.sharing import LanSharing
    from sshvpn.tunnel.session import TunnelSession
    from sshvpn.tunnel.surroundings import Identity, Surroundings


def make_tunnel(profile: TunnelProfile, directory: Path, local: LocalEnd) -> TunnelSession:
    """Return a session for ``profile``; ``local`` is this machine's end."""
    from sshvpn.tunnel.session import TunnelSession

    return TunnelSession(profile, identity_of(profile), _surroundings(profile, directory, local))


def _surroundings(profile: TunnelProfile, directory: Path, local: LocalEnd) -> Surroundings:
    from sshvpn.system.network.prober import SystemProber
    from sshvpn.tunnel.surroundings import Surroundings

    interfaces = make_interfaces()
    return Surroundings(
        local=local,
        carrier=_make_carrier(profile, directory),
        interfaces=interfaces,
        sharing=_make_sharing(profile, interfaces),
        prober=SystemProber(),
    )


def _make_sharing(profile: TunnelProfile, interfaces: Interfaces) -> LanSharing:
    from sshvpn.sharing import LanSharing

    return LanSharing(interfaces, make_trust_store(), only=profile.lan_interfaces)


def _make_carrier(profile: TunnelProfile, directory: Path | None) -> TunnelCarrier:
    from sshvpn.model import Transport
    from sshvpn.system.tunnel.auto import AutoCarrier
    from sshvpn.system.tunnel.stream import StreamCarrier
    from sshvpn.system.tunnel.w import OpensshCarrier

    hosts = paths.state_dir() / "hosts.json"
    if profile.transport is Transport.STREAM or profile.has_queues:
        return StreamCarrier(directory, hosts)
    if profile.transport is Transport.W:
        return OpensshCarrier(directory, hosts)
    return AutoCarrier(directory, hosts)


def identity_of(profile: TunnelProfile) -> Identity:
    """Return by what both kernels know this user's tunnel of ``profile``."""
    from sshvpn.plan import marks
    from sshvpn.system.identity import machine_digest
    from sshvpn.tunnel.surroundings import Identity

    label = marks.label_of(os.getuid(), profile.name)
    # Many gateways may have a tunnel of this name to one server.
    return Identity(label, f"{label}_{machine_digest(label)}", os.getuid())


def run_tunnel(
    profile: TunnelProfile,
    make_front: Callable[[], Front] | None = None,
    launcher: Launcher | None = None,
    helper: socket.socket | None = None,
    *,
    verbose: bool = False,
) -> int:
    """Run ``profile`` in this process until it ends, and return the exit code.

    ``helper`` is the socket of a privileged helper that was started before; without one it is
    started here. Raises AlreadyUpError, PrivilegeError, and what stopped the first start.
    """
    from sshvpn.system.imports import leave_out_unused
    from sshvpn.system.privilege.helper import Helper
    from sshvpn.system.privilege.local_end import HelperEnd

    leave_out_unused()
    with SessionDirOf(profile) as directory:

        async def make(is_service: bool) -> TunnelSession:
            own = Helper.from_socket(helper) if helper else start_helper()
            local = HelperEnd(own, identity_of(profile).label, start_helper_again)
            session = make_tunnel(profile, directory.path, local)
            session.is_service = is_service
            try:
                await session.check()
                check_portal(profile)
            except BaseException:
                await session.close()
                raise
            return session

        return sessions.run(make, profile, directory, make_front, launcher, verbose=verbose)


def start_tunnel(
    profile: TunnelProfile, begun: socket.socket | None = None, *, verbose: bool = False
) -> socket.socket:
    """Start a process of its own that runs ``profile``, as :func:`start_background` does.

    ``begun`` is what :func:`beginning.begin_tunnel` gave for this name. While it loads, the
    privileged helper is started here, where sudo may ask at the terminal; it begins with that.
    Raises AlreadyUpError without asking anybody, and PrivilegeError; interrupted, nothing is left.
    """
    from sshvpn.system import daemon

    if is_alive(session_path(profile)):
        if begun is not None:
            begun.close()  # it ends, whatever the command still waits for
        raise AlreadyUpError(session_path(profile))
    launched = begun or beginning.begin_tunnel(profile.name)
    try:
        sessions.assign(launched, profile, verbose=verbose)
        with start_helper().detach() as helper:
            daemon.hand(launched, helper.fileno())
    except BaseException:
        daemon.dismiss(launched)
        raise
    return launched


def begin_login(profile: TunnelProfile) -> None:
    """Begin with what a login needs first, before all is loaded: ssh's configuration."""
    from sshvpn.system.ssh import config

    config.begin(profile.destination, profile.ssh, config.KEEP_FORWARDS)


def take_helper(launcher: socket.socket) -> socket.socket | None:
    """Return the helper's socket once :func:`start_tunnel` has it; None where it gave up."""
    from sshvpn.system import daemon

    descriptor = daemon.take(launcher)
    return None if descriptor is None else socket.socket(fileno=descriptor)


def dry_run(profile: TunnelProfile) -> list[str]:
    """Return all that :func:`run_tunnel` would change on both machines, as commands.

    It looks as one who may change everything, so the helper is started as for that.
    """
    import asyncio

    from sshvpn.rehearsal import Scene, rehearse
    from sshvpn.system.network.prober import SystemProber
    from sshvpn.system.privilege.local_view import HelperView

    identity = identity_of(profile)

    async def main() -> list[str]:
        local = HelperView(start_helper(), identity.label)
        try:
            interfaces = make_interfaces()
            sharing = _make_sharing(profile, interfaces)
            carrier = _make_carrier(profile, None)
            scene = Scene(local, carrier, interfaces, sharing, SystemProber())
            check_portal(profile)
            return await rehearse(profile, identity, scene, terminal.prompter())
        finally:
            await local.close()

    return asyncio.run(main())

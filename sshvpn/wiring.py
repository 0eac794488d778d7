"""Builds the system: the only module that knows all rooms.

The command line, the background process and the Python interface come here for a session that
can be run. Everything heavy is imported where it is used: ``sshvpn status`` passes by here too.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sshvpn.control import AlreadyUpError, SessionDir, is_alive, session_id, snapshots
from sshvpn.model import TunnelProfile
from sshvpn.system import paths

if TYPE_CHECKING:
    from sshvpn.announcing import Announcer
    from sshvpn.boundary import (
        ForwardEngine,
        Interfaces,
        LocalEnd,
        Prompter,
        TrustStore,
        TunnelCarrier,
        Way,
    )
    from sshvpn.forwarding import ForwardSession
    from sshvpn.jupyter import Found
    from sshvpn.model import EngineName, ForwardProfile
    from sshvpn.notebook import NotebookSession
    from sshvpn.remote.notebook_protocol import Ended, Server
    from sshvpn.runner import Exporter, Front, Launcher
    from sshvpn.services import Kind
    from sshvpn.system.privilege.helper import Helper
    from sshvpn.system.systemd.manager import Services, SystemServices
    from sshvpn.tunnel import Identity, Surroundings, TunnelSession

    Profile = ForwardProfile | TunnelProfile


def runtimes() -> tuple[Path, ...]:
    """Return the directories where running sessions may be found."""
    return paths.runtime_dirs()


def log_dir() -> Path:
    """Return the directory of the logs."""
    return paths.log_dir()


def log_file(kind: str, name: str) -> Path:
    """Return the file of a session's log."""
    return paths.log_dir() / f"{kind}-{re.sub(r'[^A-Za-z0-9._@-]', '_', name)[:100]}.log"


def session_path(profile: Profile) -> Path:
    """Return the run-time directory of ``profile``'s session, there or not; makes nothing.

    One that lives goes first, wherever it is: a service has a place of its own.
    """
    name = f"{_kind(profile)}-{session_id(profile)}"
    living = next((base / name for base in runtimes() if is_alive(base / name)), None)
    if living is not None:
        return living
    base = paths.runtime_dirs()[0]
    if base.exists():
        base = paths.runtime_dir()  # which looks whose it is
    return base / name


def _kind(profile: Profile) -> str:
    return "tunnel" if isinstance(profile, TunnelProfile) else "forward"


def make_engine(name: EngineName, directory: Path | None = None) -> ForwardEngine:
    """Return the engine: ``auto`` is the system's OpenSSH where there is one."""
    from sshvpn.model import EngineName
    from sshvpn.system.openssh.engine import OpensshEngine
    from sshvpn.system.process import find_ssh

    if name is EngineName.OPENSSH or (name is EngineName.AUTO and find_ssh()):
        return OpensshEngine(directory)
    from sshvpn.system.sshtunnel.engine import SshtunnelEngine

    return SshtunnelEngine()


def make_interfaces() -> Interfaces:
    """Return the adapters of this machine."""
    from sshvpn.system.network.interfaces import SystemInterfaces

    return SystemInterfaces()


def ipv4_routers(interfaces: Iterable[str]) -> dict[str, str]:
    """Return the router of each adapter's IPv4 default route, of those that have one."""
    from sshvpn.system.network.interfaces import SystemInterfaces

    system = SystemInterfaces()
    found = ((name, system.ipv4_router(name)) for name in dict.fromkeys(interfaces))
    return {name: router for name, router in found if router is not None}


def make_trust_store() -> TrustStore:
    """Return the networks that this user has said yes to."""
    from sshvpn.lan.trust import FileTrustStore

    return FileTrustStore(paths.state_dir() / "trust.json")


def make_way(session: ForwardSession | TunnelSession) -> Way:
    """Return the way to the server of ``session``'s profile, whatever that is just then."""
    from sshvpn.system.network.way import SystemWay

    return SystemWay(lambda: (session.profile.destination, session.profile.ssh))


def make_forward(profile: ForwardProfile, directory: Path | None = None) -> ForwardSession:
    """Return a session for ``profile``; ``directory`` is its private run-time directory."""
    from sshvpn.forwarding import ForwardSession

    return ForwardSession(
        profile, make_engine(profile.engine, directory), make_interfaces(), make_trust_store()
    )


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


def make_tunnel(profile: TunnelProfile, directory: Path, local: LocalEnd) -> TunnelSession:
    """Return a session for ``profile``; ``local`` is this machine's end, open."""
    from sshvpn.tunnel import TunnelSession

    return TunnelSession(profile, _identity(profile), _surroundings(profile, directory, local))


def _surroundings(profile: TunnelProfile, directory: Path | None, local: LocalEnd) -> Surroundings:
    from sshvpn.sharing import LanSharing
    from sshvpn.system.network.prober import SystemProber
    from sshvpn.tunnel import Surroundings

    interfaces = make_interfaces()
    return Surroundings(
        local=local,
        carrier=_make_carrier(profile, directory),
        interfaces=interfaces,
        sharing=LanSharing(interfaces, make_trust_store(), only=profile.lan_interfaces),
        prober=SystemProber(),
    )


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


def make_announcer(profile: Profile, directory: Path) -> Announcer:
    """Return who tells the LAN of ``profile``'s session, where it is shared."""
    from sshvpn.announcing import Announcer
    from sshvpn.control import secret_of
    from sshvpn.system.lan_process import LanProcess

    trust = make_trust_store()
    return Announcer(
        profile,
        make_interfaces(),
        trust,
        lambda: LanProcess(profile.name),
        lambda: secret_of(directory).get("token", ""),
    )


def _check_portal(profile: Profile) -> None:
    """Raise TakenError or PrivilegeError where the portal's port cannot be had."""
    from sshvpn.model import TcpEndpoint
    from sshvpn.sharing import LanSharing
    from sshvpn.system.network import local_listener

    if profile.wishes.portal:
        only = profile.lan_interfaces if isinstance(profile, TunnelProfile) else ()
        for here in LanSharing(make_interfaces(), make_trust_store(), only=only).addresses():
            local_listener.probe(TcpEndpoint(here.address, profile.wishes.portal))


def _identity(profile: TunnelProfile) -> Identity:
    from sshvpn.plan import marks
    from sshvpn.system.identity import machine_digest
    from sshvpn.tunnel import Identity

    label = marks.label_of(os.getuid(), profile.name)
    # Many gateways may have a tunnel of this name to one server.
    return Identity(label, f"{label}_{machine_digest(label)}", os.getuid())


# Running in this process -------------------------------------------------------------------


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

        async def make() -> ForwardSession:
            if profile.notebook is not None:
                session: ForwardSession = make_notebook(profile, directory)
            else:
                session = make_forward(profile, directory.path)
            await session.check()
            _check_portal(profile)
            return session

        return _run(make, profile, directory, make_front, launcher, verbose=verbose)


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
    from sshvpn.system.privilege.helper import Helper
    from sshvpn.system.privilege.local_end import HelperEnd

    with SessionDirOf(profile) as directory:

        async def make() -> TunnelSession:
            own = Helper.from_socket(helper) if helper else _start_helper()
            label = _identity(profile).label
            local = await HelperEnd.open(own, label, _start_helper_again)
            session = make_tunnel(profile, directory.path, local)
            try:
                await session.check()
                _check_portal(profile)
            except BaseException:
                await session.close()
                raise
            return session

        return _run(make, profile, directory, make_front, launcher, verbose=verbose)


def _run(
    make: Callable[[], Awaitable[ForwardSession | TunnelSession]],
    profile: Profile,
    directory: SessionDir,
    make_front: Callable[[], Front] | None,
    launcher: Launcher | None,
    *,
    verbose: bool,
) -> int:
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
                session = await make()
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


class SessionDirOf(SessionDir):
    """The locked run-time directory of ``profile``'s session.

    Raises AlreadyUpError where it lives in any of this user's run-time directories.
    """

    def __init__(self, profile: Profile) -> None:
        if is_alive(living := session_path(profile)):
            raise AlreadyUpError(living)
        super().__init__(paths.runtime_dir(), _kind(profile), session_id(profile))


def trust_lan(profile: Profile) -> None:
    """Remember the networks of the LAN that are there now as ``--lan`` does."""
    import asyncio

    from sshvpn.sharing import LanSharing

    only = profile.lan_interfaces if isinstance(profile, TunnelProfile) else ()
    sharing = LanSharing(make_interfaces(), make_trust_store(), only=only)
    asyncio.run(sharing.settle(None, trusts=True))


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
        connection = await engine.connect(profile, terminal_prompter())
        try:
            async with conversation(connection, profile.host) as jupyter:
                found = await jupyter.look(profile.notebook.directory if profile.notebook else "")
                chosen = [server.pid for server in choose(found)]
                return found.servers, await jupyter.stop(chosen) if chosen else []
        finally:
            await connection.close()

    return asyncio.run(main())


# Running in a process of its own -----------------------------------------------------------


def start_background(profile: ForwardProfile, *, verbose: bool = False) -> socket.socket:
    """Start a process of its own that runs ``profile``, and return the socket to it.

    It is a control socket that is attached from the start (docs/control-protocol.md): closing
    it before the first ``running`` undoes everything.
    """
    return _spawn(profile, verbose=verbose)


def start_tunnel(profile: TunnelProfile, *, verbose: bool = False) -> socket.socket:
    """Start a process of its own that runs ``profile``, as :func:`start_background` does.

    While it loads, the privileged helper is started here, where sudo may ask at the terminal;
    it begins when it gets the helper. Raises AlreadyUpError without asking anybody, and
    PrivilegeError; interrupted, nothing is left.
    """
    from sshvpn.system import daemon

    if is_alive(session_path(profile)):
        raise AlreadyUpError(session_path(profile))
    launched = _spawn(profile, verbose=verbose)
    try:
        with _start_helper().detach() as helper:
            daemon.hand(launched, helper.fileno())
    except BaseException:
        daemon.dismiss(launched)
        raise
    return launched


def take_helper(launcher: socket.socket) -> socket.socket | None:
    """Return the helper's socket once :func:`start_tunnel` has it; None where it gave up.

    What :func:`run_tunnel` needs is imported meanwhile: sudo may be asking just now.
    """
    from sshvpn import runner, sharing, tunnel
    from sshvpn.system import daemon
    from sshvpn.system.network import interfaces, prober, way
    from sshvpn.system.privilege import helper as privilege, local_end
    from sshvpn.system.tunnel import w as openssh_tunnel

    del runner, sharing, tunnel, interfaces, local_end, openssh_tunnel, privilege, prober, way
    descriptor = daemon.take(launcher)
    return None if descriptor is None else socket.socket(fileno=descriptor)


def _spawn(profile: Profile, *, verbose: bool) -> socket.socket:
    from sshvpn.system.daemon import spawn
    from sshvpn.wire import profile_to_json

    request: dict[str, object] = {
        "profile": profile_to_json(profile),
        "can_answer": terminal_prompter() is not None,
        "verbose": verbose,
    }
    return spawn(request, profile.name)


def dry_run(profile: TunnelProfile) -> list[str]:
    """Return all that :func:`run_tunnel` would change on both machines, as commands.

    It looks as one who may change everything, so the helper is started as for that.
    """
    import asyncio

    from sshvpn.rehearsal import rehearse
    from sshvpn.system.privilege.local_end import HelperEnd

    async def main() -> list[str]:
        label = _identity(profile).label
        local = await HelperEnd.open(_start_helper(), label, _start_helper_again)
        try:
            outside = _surroundings(profile, None, local)
            return await rehearse(profile, _identity(profile), outside, terminal_prompter())
        finally:
            await local.close()

    return asyncio.run(main())


def left_units() -> set[int]:
    """Return the numbers of tunnels, of whomever, of which a killed helper has left something."""
    from sshvpn.privileged.units import left_units

    return left_units()


def sweep_kernel() -> list[str]:
    """Remove from this machine's kernel what killed helpers of this user left; root: of all.

    The helper is started for it as for a tunnel. A tunnel that is up is spared, though its helper
    was killed. Returns what could not be removed; raises PrivilegeError.
    """
    from sshvpn.plan import marks
    from sshvpn.privileged import cgroup

    helper = _start_helper()
    names = [one["name"] for one in snapshots(runtimes()).values() if one["kind"] == "tunnel"]
    try:
        _, failed = helper.sweep(marks.label_of(os.getuid(), name) for name in names)
    finally:
        helper.close()
    # Where systemd has given the user a part of the tree, the helper may not change it.
    cgroup.remove_empty()
    return failed


_helpers: list[Helper] = []
"""Helpers that root started for the user it then became (:func:`leave_root`)."""


def leave_root(tunnels: int) -> None:
    """Become the user who called sudo, if any, with helpers for as many tunnels; else nothing.

    To be called before anything of that user is read.
    """
    from sshvpn.system.privilege.actor import become_caller, caller
    from sshvpn.system.privilege.helper import Helper

    uid = caller()
    if uid is None:
        return
    _helpers.extend(Helper.start(at_terminal=False, uid=uid) for _ in range(tunnels))
    become_caller()


def _start_helper() -> Helper:
    from sshvpn.system.privilege.helper import Helper

    if _helpers:
        return _helpers.pop()
    return Helper.start(at_terminal=terminal_prompter() is not None)


def _start_helper_again() -> Helper:
    """Start a helper in place of one that was killed, asking nobody. Raises an SshvpnError."""
    from sshvpn.errors import PrivilegeError, SshvpnError
    from sshvpn.system.privilege.actor import is_service
    from sshvpn.system.privilege.helper import Helper

    if is_service():  # what it was started with as root is given up for good
        raise SshvpnError("the privileged helper was killed", "the service is started again")
    try:
        return Helper.start(asks=False)
    except PrivilegeError as error:
        raise PrivilegeError(
            f"the privileged helper was killed, and no other can be started: {error}",
            "bring the tunnel up again: sshvpn up",
        ) from error


# Services ----------------------------------------------------------------------------------

_installers: list[SystemServices] = []
"""What installs services, started by root for the user it then became."""


def leave_root_for_services() -> None:
    """Become the user who called sudo, if any, with root's part started before; else nothing."""
    from sshvpn.system.privilege.actor import become_caller, caller
    from sshvpn.system.systemd.manager import SystemServices

    uid = caller()
    if uid is None:
        return
    _installers.append(SystemServices.begin(uid=uid))
    become_caller()


def services(kind: Kind) -> Services:
    """Return the service manager for ``kind``, to be closed; sudo may ask at the terminal.

    Raises SshvpnError for what stands in the way, PrivilegeError where sudo refuses.
    """
    from sshvpn.system.systemd import manager as service_manager

    service_manager.check(kind)
    if _installers and not kind.is_users:
        return _installers.pop()
    return service_manager.services(kind, at_terminal=terminal_prompter() is not None)


def service_profile(profile: Profile) -> str:
    """Return the configuration that a service of ``profile`` reads. Raises UsageError."""
    from sshvpn.config import render
    from sshvpn.config.from_profile import of_profile

    return render(of_profile(profile))


def service_state(kind: Kind, name: str) -> Mapping[str, str]:
    """Return how systemd sees a service: ActiveState, StatusText, ExecMainStatus, NRestarts."""
    from sshvpn.system.systemd import manager as service_manager

    return service_manager.state_of(kind, name)


def enabled_services() -> list[tuple[Kind, str]]:
    """Return the services of this user, or (as root) of the system."""
    from sshvpn.system.systemd import manager as service_manager

    return list(service_manager.enabled())


def service_key(name: str, *, make: bool) -> Path | None:
    """Return the path of the key of the service NAME; None where there is none and none is made."""
    from sshvpn.system.systemd import key as service_key

    path = service_key.path_of(name)
    return service_key.ensure(name) if make else path if path.exists() else None


def service_key_line(name: str) -> str:
    """Return the public half of that key. Raises SshvpnError."""
    from sshvpn.system.systemd import key as service_key

    return service_key.public_line(name)


def remove_service_key(name: str) -> bool:
    """Remove that key, and return whether there was one."""
    from sshvpn.system.systemd import key as service_key

    return service_key.remove(name)


def service_configuration(kind: Kind, name: str) -> Path:
    """Return the configuration of its own that a service reads."""
    from sshvpn.system.systemd import manager as service_manager

    return service_manager.configuration(kind, name)


def unit_of_process(pid: int) -> str | None:
    """Return the systemd service that a process is part of, None for none."""
    from sshvpn.system.systemd import journal

    return journal.own_unit(str(pid))


def print_journal(session: str, unit: str, *, follow: bool) -> None:
    """Print what the journal has of ``unit``, which runs a session of that kind.

    ``follow``: until Ctrl-C. Raises SshvpnError where this user may not read it.
    """
    from sshvpn.services import KINDS
    from sshvpn.system.systemd import journal

    journal.print_unit(unit, is_users=KINDS[session].is_users, follow=follow)


def try_login(profile: Profile) -> None:
    """Log in as a service would, asking nobody, and change nothing. Raises why it cannot."""
    import asyncio

    asyncio.run(_try_login(profile))


async def _try_login(profile: Profile) -> None:
    if isinstance(profile, TunnelProfile):
        from sshvpn.system.remote_agent.errors import NoAgentError
        from sshvpn.system.tunnel.w import OpensshCarrier

        carrier = OpensshCarrier(None, None)
        await carrier.check(profile)
        try:
            await carrier.look(profile, _identity(profile).remote_label, None)
        except NoAgentError:
            # A key that is limited to its device runs no agent, and needs none.
            if profile.remote_device is None or profile.address is None:
                raise
        return
    engine = make_engine(profile.engine)
    await engine.check(profile)
    await (await engine.connect(profile, None)).close()


def sweep_tunnel(name: str) -> list[str]:
    """Remove what a killed process has left of this user's tunnel NAME; return what failed."""
    from sshvpn.plan import marks

    helper = _start_helper()
    try:
        helper.open(marks.label_of(os.getuid(), name))
    finally:
        failed = helper.close()
    return failed


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

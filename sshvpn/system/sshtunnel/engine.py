"""The sshtunnel engine: forwards carried by the sshtunnel library, in this process.

The asyncio face of it. The library and paramiko block, and run in threads; they are imported
when a connection is made, not before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sshvpn.boundary import Prompter
from sshvpn.errors import AuthenticationError, SshvpnError, UsageError
from sshvpn.model import (
    Endpoint,
    ForwardProfile,
    Listener,
    SshOptions,
    TcpCounters,
    TcpPath,
    Traffic,
    Tuning,
)
from sshvpn.remote.protocol import TcpOptions
from sshvpn.system.network.sockets import counters_of
from sshvpn.system.openssh import tcp_path
from sshvpn.system.paths import home
from sshvpn.system.process import find_ssh
from sshvpn.system.ssh.askpass import AskpassServer
from sshvpn.system.ssh.config import resolve
from sshvpn.system.ssh.login_memory import LoginMemory
from sshvpn.system.sshtunnel import knownhosts
from sshvpn.system.sshtunnel.dial import Carrier, dial, ssh_jump
from sshvpn.system.sshtunnel.knownhosts import Marker
from sshvpn.system.sshtunnel.settings import OTHER_ENGINE, Settings, refuse_specs, settings_of

if TYPE_CHECKING:
    from sshvpn.system.sshtunnel.command import ChannelCommand
    from sshvpn.system.sshtunnel.keys import Keyring
    from sshvpn.system.sshtunnel.login import Asker

log = logging.getLogger("sshvpn.sshtunnel")

T = TypeVar("T")

_LOOK_EVERY_S = 0.5
_PROBE_BYTES = 1024
"""More than our own requests for life are acknowledged with: then data got through."""


class SshtunnelEngine:
    """Implements boundary.ForwardEngine with the sshtunnel library.

    Unlocked keys are kept in memory, so that a reconnect of this engine never prompts.
    """

    name = "sshtunnel"

    def __init__(self) -> None:
        self._keyring: Keyring | None = None
        self._far_end = tcp_path.FarEnd()
        self._logins = LoginMemory()

    async def check(self, profile: ForwardProfile) -> None:
        """Raise UsageError, naming the other engine, for what this one cannot honour."""
        refuse_specs(profile)
        settings = await _settings(profile)
        if settings.jumps:
            ssh_jump(settings, (), may_prompt=False)
        _offer(settings)

    async def connect(self, profile: ForwardProfile, prompter: Prompter | None) -> Connection:
        """Log in; see boundary.ForwardEngine."""
        from sshvpn.system.sshtunnel.errors import connect_error
        from sshvpn.system.sshtunnel.keys import Keyring

        settings = await _settings(profile)
        offered = _offer(settings)
        self._keyring = self._keyring or Keyring()
        async with _askpass(settings, prompter) as askpass:
            environment = askpass.environment() if askpass else os.environ
            try:
                carrier = await dial(
                    settings,
                    _config_words(profile.ssh),
                    environment,
                    may_prompt=prompter is not None,
                )
            except OSError as error:
                raise connect_error(error, settings) from error
            connection = Connection(settings, carrier, offered, self._far_end)
            login = connection.log_in(self._keyring, prompter, self._logins.missing)
            try:
                await (askpass.unless_given_up(login) if askpass else login)
            except AuthenticationError as error:
                await connection.close()
                raise await self._logins.explained(error, prompter) from error
            except BaseException:
                await connection.close()
                raise
        was_answered = connection.was_answered or (askpass is not None and askpass.answers > 0)
        await self._logins.note(settings.agent, was_answered=was_answered)
        return connection

    async def wait_login_possible(self) -> None:
        """Return when the agent is back; see boundary.ForwardEngine."""
        await self._logins.wait_back()


class Connection:
    """One SSH connection of the library's; implements boundary.Connection."""

    def __init__(
        self,
        settings: Settings,
        carrier: Carrier,
        offered: Mapping[str, tuple[str, ...]],
        far_end: tcp_path.FarEnd,
    ) -> None:
        from sshvpn.system.sshtunnel.forwarder import Forwarder

        self._settings = settings
        self._far_end = far_end
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._asker: Asker | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._forwarder = Forwarder(settings, carrier, offered, self._tell_end)
        self.was_answered = False

    def _tell_end(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._ended.set)

    # The login --------------------------------------------------------------------------

    async def log_in(
        self,
        keyring: Keyring,
        prompter: Prompter | None,
        missing: Callable[[], str | None],
    ) -> None:
        """Exchange keys, check the host's, and log in. Cancelled: the thread has ended."""
        from sshvpn.system.sshtunnel.login import Asker, LogIn, check_host_key

        self._asker = None if prompter is None else Asker(prompter, self._loop)
        transport = self._forwarder.transport
        login = LogIn(transport, self._settings, keyring, self._asker)

        def run() -> None:
            transport.start_client()
            check_host_key(transport, self._settings, self._asker)
            login.run(missing=missing)

        await self._do_blocking(run)
        self._forwarder.is_alive = True
        self.was_answered = self._asker is not None and self._asker.answers > 0
        self._watcher = asyncio.create_task(self._watch())

    async def _do_blocking(self, function: Callable[[], T]) -> T:
        from sshvpn.system.sshtunnel.errors import connect_error

        work = asyncio.ensure_future(asyncio.to_thread(function))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._carrier.abort()
            if self._asker is not None:
                self._asker.cancel()
            with contextlib.suppress(Exception):
                await work
            raise
        except SshvpnError:
            raise
        except Exception as error:
            reason = self._forwarder.transport.reason or error
            meant = connect_error(reason, self._settings)
            raise await asyncio.to_thread(self._carrier.explained, meant) from error

    # While it stands --------------------------------------------------------------------

    async def open_listener(self, listener: Listener) -> Endpoint:
        """Open one; see boundary.Connection."""
        return await asyncio.to_thread(self._forwarder.open_listener, listener)

    async def close_listener(self, listener: Listener) -> None:
        """Close one; see boundary.Connection."""
        await asyncio.to_thread(self._forwarder.close_listener, listener)

    async def run(self, command: str) -> ChannelCommand:
        """Start a command; see boundary.Connection."""
        from sshvpn.system.sshtunnel.command import ChannelCommand

        return await ChannelCommand.start(self._forwarder.transport, command)

    def traffic(self) -> Traffic:
        """Return the bytes that the forwards carried, and how many are open."""
        counters = _counters(self._carrier)
        return replace(self._forwarder.traffic(), rtt_s=counters.rtt_s if counters else None)

    async def _watch(self) -> None:
        """Ask for life where nothing was heard; end what gives none (ServerAliveInterval)."""
        from sshvpn.system.sshtunnel.errors import DeadPeer

        transport, settings = self._forwarder.transport, self._settings
        patience_s = settings.alive_interval_s * (settings.alive_count + 1) - _LOOK_EVERY_S
        silent_s, unasked_s = 0.0, 0.0
        acked, looked_at = _bytes_acked(self._carrier), time.monotonic()
        asking: asyncio.Future[None] | None = None
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            looked_before, looked_at = looked_at, time.monotonic()
            acked_before, acked = acked, _bytes_acked(self._carrier)
            # A slow link that is full brings our requests late, and the answers later.
            has_heard = transport.stream.last_read > looked_before
            if has_heard or acked - acked_before > _PROBE_BYTES:
                silent_s, unasked_s = 0.0, 0.0
                continue
            # When all of us stood still, nobody was there to hear anything.
            step_s = min(looked_at - looked_before, 2 * _LOOK_EVERY_S)
            silent_s, unasked_s = silent_s + step_s, unasked_s + step_s
            if silent_s >= patience_s:
                transport.reason = DeadPeer()
                self._carrier.abort()
                return
            if unasked_s >= settings.alive_interval_s and (asking is None or asking.done()):
                unasked_s = 0.0
                asking = asyncio.ensure_future(asyncio.to_thread(transport.ask_for_life))

    async def tune(self, profile: ForwardProfile) -> TcpPath:
        """Tune the TCP connection; see boundary.Connection."""
        if profile.tuning is Tuning.OFF:
            return TcpPath()
        from sshvpn.system.sshtunnel.tuning import tune_there

        limit_s = self._settings.alive_interval_s * (self._settings.alive_count + 1)
        options = TcpOptions(tcp_path.user_timeout_s(round(limit_s)))
        with self._carrier.connection() as sock:
            here = await tcp_path.tune_socket(sock, options, None)
        there = tcp_path.NOT_ASKED
        if profile.tuning is Tuning.BOTH:
            transport = self._forwarder.transport
            there = await self._far_end.tune(
                lambda: asyncio.to_thread(tune_there, transport, options)
            )
        return tcp_path.outcome(here, there)

    # The end ----------------------------------------------------------------------------

    async def wait_closed(self) -> SshvpnError:
        """Wait until the connection has ended, and return why."""
        from sshvpn.system.sshtunnel.errors import lost_error

        await self._ended.wait()
        return lost_error(self._forwarder.transport.reason, self._settings)

    async def close(self) -> None:
        """End it, with all its listeners, threads and sockets."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        await asyncio.to_thread(self._forwarder.close)
        self._ended.set()


async def _settings(profile: ForwardProfile) -> Settings:
    """Return how to log in. Raises UsageError for what cannot be honoured, ConfigError."""
    if find_ssh() is not None:
        config = await resolve(profile.destination, profile.ssh)
    else:
        from sshvpn.system.sshtunnel.config_files import resolve_without_ssh

        config = resolve_without_ssh(profile.destination, profile.ssh)
    settings = settings_of(config, os.environ, home())
    _refuse_authorities(settings)
    return settings


def _refuse_authorities(settings: Settings) -> None:
    name = knownhosts.host_name(settings.host, settings.port, settings.host_key_alias)
    known = knownhosts.read(settings.known_hosts, name)
    if known and all(line.marker is Marker.AUTHORITY for line in known):
        raise UsageError(
            f"{name} is known by a certificate authority ({known[0].file}:{known[0].line}), "
            "which the sshtunnel engine cannot check",
            OTHER_ENGINE,
        )


def _offer(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """Return the algorithms to offer, with those first by which a known key can be checked."""
    from sshvpn.system.sshtunnel.transport import HOST_KEYS, algorithms

    name = knownhosts.host_name(settings.host, settings.port, settings.host_key_alias)
    known = knownhosts.read(settings.known_hosts, name)
    offered = algorithms(settings)
    return {**offered, HOST_KEYS: knownhosts.types_first(known, offered[HOST_KEYS])}


def _config_words(options: SshOptions) -> tuple[str, ...]:
    return () if options.config_file is None else ("-F", options.config_file)


@contextlib.asynccontextmanager
async def _askpass(
    settings: Settings, prompter: Prompter | None
) -> AsyncIterator[AskpassServer | None]:
    """Let the ssh of a ProxyJump or a ProxyCommand ask ``prompter`` while it is entered."""
    if not settings.jumps and settings.proxy_command is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sshvpn-") as directory:
        async with AskpassServer(Path(directory) / "ask", prompter) as askpass:
            yield askpass


def _bytes_acked(carrier: Carrier) -> int:
    """Return how much the server's machine has acknowledged so far; 0 where nobody can tell."""
    counters = _counters(carrier)
    return counters.tx_bytes if counters else 0


def _counters(carrier: Carrier) -> TcpCounters | None:
    """Return what the connection has carried; None where nobody can tell."""
    if not carrier.is_tcp:
        return None
    try:
        return counters_of(carrier.sock)
    except (OSError, AttributeError):  # it is closed; a system without TCP_INFO
        return None

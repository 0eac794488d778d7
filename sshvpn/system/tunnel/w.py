"""The ``w`` transport: packets carried by the system's own ssh, between two tun devices (``-w``).

One ssh is the control master of ours that carries the packets, runs the agent on its standard
input and output, and opens listeners (``-O forward``). The user's configuration is honoured
without its forwards, as :mod:`sshvpn.system.openssh.engine` does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from sshvpn.boundary import Prompter
from sshvpn.errors import (
    AuthenticationError,
    HostKeyChangedError,
    HostKeyUnknownError,
    SshvpnError,
    UsageError,
)
from sshvpn.model import Endpoint, Listener, TcpCounters, TcpPath, TunnelProfile
from sshvpn.remote import protocol
from sshvpn.remote.protocol import Facts, Mode
from sshvpn.system.openssh import tcp_path
from sshvpn.system.openssh.listeners import OpensshListeners
from sshvpn.system.process import find_ssh
from sshvpn.system.remote_agent.errors import NoAgentError, SilentAgentError
from sshvpn.system.ssh.agent import agent_socket
from sshvpn.system.ssh.config import KEEP_FORWARDS, Config, resolve
from sshvpn.system.ssh.last_address import LastAddress
from sshvpn.system.ssh.login_memory import LoginMemory
from sshvpn.system.ssh.peers import RESOLVE_WAIT_S, peers_of, prefixes_of
from sshvpn.system.tunnel.agent_login import AgentLogin, Timings
from sshvpn.system.tunnel.dial import TunnelDial
from sshvpn.system.tunnel.host_memory import HostMemory
from sshvpn.system.tunnel.logins import TunnelLogins, needs_agent

_REMOTE_DEVICE = re.compile(r"tun(0|[1-9]\d{0,8})")


class OpensshCarrier:
    """Implements boundary.TunnelCarrier with the system's ssh.

    ``directory`` is a private directory for what belongs to this carrier's one connection;
    without it each connection makes a temporary one. ``hosts`` is the file that remembers
    which login worked with which server.
    """

    name = "w"
    reason = "asked for"
    default_mtu = protocol.LARGEST_MTU
    is_guarded = True

    def __init__(
        self,
        directory: Path | None = None,
        hosts: Path | None = None,
        timings: Timings | None = None,
    ) -> None:
        self._directory = directory
        self._timings = timings or Timings()
        self._logins = LoginMemory()
        self._last_address = LastAddress()
        self._ways = TunnelLogins(HostMemory(hosts))
        self._remote_sockets: set[str] = set()
        self._connection: OpensshTunnel | None = None
        self._checked: Config | None = None  # by check(), for the first login
        self._config: Config | None = None  # of the last login

    async def check(self, profile: TunnelProfile) -> None:
        """Raise UsageError where there is no ssh, or what is asked for cannot be."""
        self.refuse(profile)
        self.use(await self.resolved(profile))

    def refuse(self, profile: TunnelProfile) -> None:
        """Raise UsageError as :meth:`check`, which asks ssh for its configuration besides."""
        check_ssh_and_mtu(profile)
        if profile.streams not in (None, 1):
            raise UsageError("--streams is of the transport stream", "leave it out")
        device = profile.remote_device
        if device is not None and not _REMOTE_DEVICE.fullmatch(device):
            raise UsageError(
                f"remote_device {device}: ssh opens devices called tun and a number",
                f"on the server, as root: ip link property add dev {device} altname tun8",
            )

    def use(self, config: Config) -> None:
        """Take CONFIG for the next login: ssh's configuration was just asked for."""
        self._checked = config

    async def login_name(self, profile: TunnelProfile) -> str:
        """Return ``USER@HOST:PORT`` of the login, as it is remembered."""
        config = self._checked or self._config or await self.resolved(profile)
        return f"{config['user'][0]}@{config['hostname'][0]}:{config['port'][0]}"

    async def peers(self, profile: TunnelProfile) -> Sequence[str]:
        """Return the addresses that are connected to; see boundary.TunnelCarrier.

        While a connection stands, also that of the other end of its TCP connection, which may
        be a proxy's; a resolver that says nothing is not waited for then.
        """
        try:
            config = self._config or await self.resolved(profile)
        except SshvpnError:
            return ()
        now = self._last_address.address
        if self._connection is not None:
            now = self._connection.peer() or now
        found = await peers_of(config, profile.ssh, RESOLVE_WAIT_S if now else None)
        return tuple(dict.fromkeys([*found, *prefixes_of([now] if now else [])]))

    async def connect(
        self,
        profile: TunnelProfile,
        label: str,
        device: asyncio.Future[int],
        prompter: Prompter | None,
    ) -> OpensshTunnel:
        """Log in; see boundary.TunnelCarrier."""
        dial = await self._dial(profile, label, prompter)
        try:
            connection = await self._open(profile, dial, device)
        except AuthenticationError as error:
            told = await self._logins.explained(error, prompter)
            raise self._last_address.explained(told) from error
        except (HostKeyChangedError, HostKeyUnknownError) as error:
            raise self._last_address.explained(error) from error
        try:
            await self._logins.note(agent_socket(dial.config), was_answered=dial.was_answered)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return connection

    async def _open(
        self, profile: TunnelProfile, dial: TunnelDial, device: asyncio.Future[int]
    ) -> OpensshTunnel:
        """Return what carries packets, once it does."""
        dial.device = device
        login, facts = await self._ways.connect(profile, dial.config, dial)
        options = tcp_path.options_for(dial.config)
        return OpensshTunnel(login, facts, options, self._remote_sockets)

    async def look(
        self, profile: TunnelProfile, label: str, prompter: Prompter | None
    ) -> Facts | None:
        """Return what the server is like; see boundary.TunnelCarrier."""
        dial = await self._dial(profile, label, prompter)
        try:
            login = await dial.command(Mode.LOOK)
        except AuthenticationError as error:
            raise await self._logins.explained(error, prompter) from error
        try:
            return await login.facts()
        except (NoAgentError, SilentAgentError):
            if self._needs_agent(profile):
                raise
            return None
        finally:
            await login.leave()

    def _needs_agent(self, profile: TunnelProfile) -> bool:
        """Whether nothing is carried for ``profile`` without an agent."""
        return needs_agent(profile)

    async def _dial(
        self, profile: TunnelProfile, label: str, prompter: Prompter | None
    ) -> TunnelDial:
        config, self._checked = self._checked or await self.resolved(profile), None
        self._config = config
        words = await self._last_address.words(
            config, profile.destination, profile.ssh, KEEP_FORWARDS
        )
        return TunnelDial(
            profile, config, label, prompter, self._directory, self._timings,
            self._last_address, words,
        )  # fmt: skip

    async def resolved(self, profile: TunnelProfile) -> Config:
        """Return ssh's configuration for PROFILE. Raises an SshvpnError."""
        return await resolve(profile.destination, profile.ssh, KEEP_FORWARDS)

    async def wait_login_possible(self) -> None:
        """Return when the agent is back; see boundary.ForwardEngine."""
        await self._logins.wait_back()


def check_ssh_and_mtu(profile: TunnelProfile) -> None:
    """Raise UsageError where there is no ssh, or the MTU is more than an agent sets."""
    if find_ssh() is None:
        raise UsageError("there is no ssh on this machine", "install openssh-client")
    if profile.mtu is not None and profile.mtu > protocol.LARGEST_MTU:
        raise UsageError(
            f"--mtu {profile.mtu}: ssh carries packets of at most {protocol.LARGEST_MTU} bytes",
            "leave it out",
        )


class OpensshTunnel:
    """One ssh that carries packets; implements boundary.TunnelConnection."""

    def __init__(
        self,
        login: AgentLogin,
        facts: Facts | None,
        options: protocol.TcpOptions,
        remote_sockets: set[str],
    ) -> None:
        self._login = login
        self._facts = facts
        self._options = options
        self._listeners = OpensshListeners(login.process, remote_sockets)

    @property
    def facts(self) -> Facts | None:
        """What the agent found at the server; None where the login runs no agent."""
        return self._facts

    def peer(self) -> str | None:
        """Return the address that ssh is connected to, None where it cannot be told."""
        return self._login.process.peer()

    async def tune(self, profile: TunnelProfile, pace: tcp_path.Chooser) -> TcpPath:
        """Tune the TCP connection; see boundary.TunnelConnection."""
        return await self._login.tune(
            self._options, profile.tuning, pace, has_agent=self._facts is not None
        )

    async def configure(self, end: protocol.RemoteEnd) -> None:
        """Let the agent make the server's end what ``end`` says.

        Without an agent the server's end is its administrator's, and nothing happens.
        """
        if self._facts is not None:
            await self._login.agent.configure(end)

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield when the agent has seen a change of the server's firewall."""
        changed = self._login.agent.changed
        while True:
            await changed.wait()
            changed.clear()
            yield None

    async def open_listener(self, listener: Listener) -> Endpoint:
        """Open one; see boundary.Connection."""
        return await self._listeners.open(listener)

    async def close_listener(self, listener: Listener) -> None:
        """Close one; see boundary.Connection."""
        await self._listeners.close(listener)

    async def wait_closed(self) -> SshvpnError:
        """Wait until ssh or the agent has ended, and return why."""
        ended = asyncio.create_task(self._login.process.wait_ended())
        ends: set[asyncio.Future[SshvpnError]] = {ended}
        if self._facts is not None:
            ends.add(self._login.agent.gone)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return await (self._login.why_ended() if self._facts is not None else ended)
        finally:
            ended.cancel()

    async def close(self, *, is_lost: bool = False) -> None:
        """End it, with all that it has left; see boundary.TunnelConnection."""
        if is_lost:
            await self._login.close()
        else:
            await self._listeners.before_end()
            await self._login.leave()
        self._listeners.after_end()

    def counters(self) -> TcpCounters | None:
        """Return what ssh's TCP connection shows; see boundary.TunnelConnection."""
        return self._login.process.counters()

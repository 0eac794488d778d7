"""The openssh engine: forwards carried by the system's own ssh.

One ``ssh -N`` is the master of a control socket of ours (ssh(1), ControlMaster); listeners are
opened and closed over it with ``ssh -O forward`` and ``-O cancel``, so each succeeds or fails
by itself and comes and goes while others live. The user's configuration is honoured, without
its forwards, RemoteCommand, Tunnel and Control settings: our options come first on the command
line, and the first value wins (ssh_config(5)).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from sshvpn.boundary import Prompter
from sshvpn.errors import (
    AuthenticationError,
    HostKeyChangedError,
    HostKeyUnknownError,
    SshvpnError,
    UsageError,
)
from sshvpn.model import Endpoint, ForwardProfile, Listener, TcpPath, Traffic, Tuning
from sshvpn.system.openssh import tcp_path
from sshvpn.system.openssh.command import MuxCommand
from sshvpn.system.openssh.handover import Target, ours_for
from sshvpn.system.openssh.listeners import OpensshListeners
from sshvpn.system.openssh.process import SshProcess
from sshvpn.system.openssh.silence import patience_s, wait_silent
from sshvpn.system.openssh.tcp_path import FarEnd
from sshvpn.system.openssh.words import forward_words
from sshvpn.system.process import find_ssh
from sshvpn.system.ssh.agent import agent_socket
from sshvpn.system.ssh.config import Config, resolve
from sshvpn.system.ssh.last_address import LastAddress
from sshvpn.system.ssh.login_memory import LoginMemory

_CHANNEL_NEW = re.compile(
    r"debug1: channel (\d+): new .*(?:direct-tcpip|forwarded-tcpip|dynamic-tcpip|streamlocal)"
)
_CHANNEL_FREE = re.compile(r"debug1: channel (\d+): free:")


class OpensshEngine:
    """Implements boundary.ForwardEngine with the system's ssh.

    ``directory`` is a private directory for the sockets of this engine's connections, of which
    one is new and others may have flows to carry to their end; without it each connection makes
    a temporary one.
    """

    name = "openssh"

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._logins = LoginMemory()
        self._last_address = LastAddress()
        self._remote_sockets: set[str] = set()
        self._far_end = FarEnd()
        self._connections = 0

    async def check(self, profile: ForwardProfile) -> None:
        """Raise UsageError where there is no ssh, or ssh does not take its configuration."""
        if find_ssh() is None:
            raise UsageError(
                "there is no ssh on this machine",
                "install openssh-client, or use --engine sshtunnel",
            )
        await resolve(profile.destination, profile.ssh)

    async def connect(self, profile: ForwardProfile, prompter: Prompter | None) -> Connection:
        """Log in; see boundary.ForwardEngine."""
        config = await resolve(profile.destination, profile.ssh)
        words = await self._last_address.words(config, profile.destination, profile.ssh)
        # ssh removes its control socket at its end, whoever has made another in its place.
        name = f"mux{self._connections or ''}"
        self._connections += 1
        connection = Connection(self._directory, self._remote_sockets, self._far_end, name)
        try:
            ours = ours_for(config, self._last_address.leads_to)
            await connection.log_in(profile, config, prompter, words, ours)
        except AuthenticationError as error:
            await connection.close()
            told = await self._logins.explained(error, prompter)
            raise self._last_address.explained(told) from error
        except (HostKeyChangedError, HostKeyUnknownError) as error:
            await connection.close()
            raise self._last_address.explained(error) from error
        except BaseException:
            await connection.close()
            raise
        self._last_address.note(connection.peer())
        try:
            await self._logins.note(agent_socket(config), was_answered=connection.was_answered)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def wait_login_possible(self) -> None:
        """Return when the agent is back; see boundary.ForwardEngine."""
        await self._logins.wait_back()


class Connection:
    """One ssh that forwards; implements boundary.Connection.

    ``remote_sockets`` are the paths where the server has listened for this session before; it
    is kept up here, and so is what its end of the connection said to being tuned.
    """

    def __init__(
        self, directory: Path | None, remote_sockets: set[str], far_end: FarEnd, name: str
    ) -> None:
        self._far_end = far_end
        self._process = SshProcess(directory, name, hear=self._hear)
        self._listeners = OpensshListeners(self._process, remote_sockets)
        self._channels: set[int] = set()
        self._options = tcp_path.options_for({})
        self._patience_s = patience_s({})

    @property
    def was_answered(self) -> bool:
        """Whether somebody answered a question of the login."""
        return self._process.was_answered

    def peer(self) -> str | None:
        """Return the address that ssh is connected to, None where it cannot be told."""
        return self._process.peer()

    async def log_in(
        self,
        profile: ForwardProfile,
        config: Config,
        prompter: Prompter | None,
        address_words: Sequence[str],
        ours: Target | str,
    ) -> None:
        """Start ssh, and return when its control socket takes commands."""
        self._options = tcp_path.options_for(config)
        words = forward_words(config, self._process.control, may_prompt=prompter is not None)
        self._patience_s = patience_s(config)
        await self._process.log_in(
            (*words, *address_words, *profile.ssh.ssh_words, *profile.destination.ssh_words),
            prompter,
            ours=ours,
        )
        self._process.settle()

    async def tune(self, profile: ForwardProfile) -> TcpPath:
        """Tune the TCP connection; see boundary.Connection."""
        if profile.tuning is Tuning.OFF:
            return TcpPath()
        here = await tcp_path.tune_here(self._process, self._options, None)
        there = tcp_path.NOT_ASKED
        if profile.tuning is Tuning.BOTH:
            there = await self._far_end.tune(
                lambda: tcp_path.tune_there(self._process, self._options)
            )
        return tcp_path.outcome(here, there)

    def _hear(self, line: str) -> bool:
        if opened := _CHANNEL_NEW.match(line):
            if "listener" not in line:
                self._channels.add(int(opened[1]))
            return True
        if freed := _CHANNEL_FREE.match(line):
            self._channels.discard(int(freed[1]))
            return True
        return False

    async def open_listener(self, listener: Listener) -> Endpoint:
        """Open one; see boundary.Connection."""
        return await self._listeners.open(listener)

    async def close_listener(self, listener: Listener) -> None:
        """Close one; see boundary.Connection."""
        await self._listeners.close(listener)

    async def run(self, command: str) -> MuxCommand:
        """Start a command; see boundary.Connection."""
        return await MuxCommand.start(self._process.mux, command)

    async def wait_closed(self) -> SshvpnError:
        """Wait for ssh to end, or to be heard no more, and return why."""
        ended = asyncio.create_task(self._process.wait_ended())
        silent = asyncio.create_task(wait_silent(self._process.silence_s, self._patience_s))
        racing: set[asyncio.Task[SshvpnError]] = {ended, silent}
        try:
            done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            return (ended if ended in done else silent).result()
        finally:
            for task in racing:
                task.cancel()
            await asyncio.gather(*racing, return_exceptions=True)

    async def close(self) -> None:
        """End ssh, and remove its sockets, those at the server too where it still answers."""
        await self._listeners.before_end()
        await self._process.close()
        self._listeners.after_end()

    def traffic(self) -> Traffic:
        """Return the bytes of ssh's own connection, and how many forwards are open in it."""
        counters = self._process.counters()
        return Traffic(
            rx_bytes=counters.rx_bytes if counters else None,
            tx_bytes=counters.tx_bytes if counters else None,
            connections=len(self._channels),
            rtt_s=counters.rtt_s if counters else None,
        )

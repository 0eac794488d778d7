"""The openssh engine: forwards carried by the system's own ssh.

One ``ssh -N`` is the master of a control socket of ours (ssh(1), ControlMaster); listeners are
opened and closed over it with ``ssh -O forward`` and ``-O cancel``, so each succeeds or fails
by itself and comes and goes while others live. The user's configuration is honoured, without
its forwards, RemoteCommand, Tunnel and Control settings: our options come first on the command
line, and the first value wins (ssh_config(5)).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from sshvpn.boundary import Prompter
from sshvpn.errors import (
    AuthenticationError,
    LoginNeededError,
    SshvpnError,
    TakenError,
    UsageError,
    printable,
)
from sshvpn.model import (
    Direction,
    Endpoint,
    ForwardProfile,
    Listener,
    TcpEndpoint,
    Traffic,
    UnixEndpoint,
)
from sshvpn.system import local_listener
from sshvpn.system.agent import AgentMemory, agent_socket
from sshvpn.system.askpass import AskpassServer
from sshvpn.system.listener_guard import guard_process_listener
from sshvpn.system.openssh_mux import Mux
from sshvpn.system.openssh_stderr import classify, is_debug, is_noise
from sshvpn.system.openssh_words import ssh_words
from sshvpn.system.process import ChildLines, dies_with_parent, find_ssh
from sshvpn.system.sockets import TransportSocket
from sshvpn.system.ssh_config import resolve

log = logging.getLogger("sshvpn.openssh")

_KEPT_LINES = 200
_END_TIMEOUT_S = 3.0
_LAST_WORDS_S = 1.0
_READY_POLL_S = 0.02
_PORT_TRIES = 8
# sun_path holds 107 bytes, and ssh binds to a temporary name that is 17 longer.
_LONGEST_CONTROL_PATH = 107 - 17

_CHANNEL_NEW = re.compile(
    r"debug1: channel (\d+): new .*(?:direct-tcpip|forwarded-tcpip|dynamic-tcpip|streamlocal)"
)
_CHANNEL_FREE = re.compile(r"debug1: channel (\d+): free:")
_OPEN_FAILED = re.compile(r"channel \d+: open failed: ([^:]+): (.*)")


class OpensshEngine:
    """Implements boundary.ForwardEngine with the system's ssh.

    ``directory`` is a private directory for the sockets of this engine's one connection;
    without it each connection makes a temporary one.
    """

    name = "openssh"

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._needs_person = False
        self._agent = AgentMemory()
        self._remote_sockets: set[str] = set()

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
        connection = Connection(profile, self._directory, self._remote_sockets)
        try:
            await connection.log_in(config, prompter)
        except AuthenticationError as error:
            await connection.close()
            raise await self._explained(error, prompter) from error
        except BaseException:
            await connection.close()
            raise
        self._needs_person = self._needs_person or connection.was_answered
        await asyncio.to_thread(self._agent.note, agent_socket(config))
        return connection

    async def wait_login_possible(self) -> None:
        """Return when the agent is back; see boundary.ForwardEngine."""
        await self._agent.wait_back()

    async def _explained(
        self, error: AuthenticationError, prompter: Prompter | None
    ) -> SshvpnError:
        # The same refusal means something else where a login worked before and nobody can be
        # asked now: what is missing is a person or the agent, not the right to log in.
        if prompter is not None:
            return error
        missing = await asyncio.to_thread(
            self._agent.what_is_missing, needs_person=self._needs_person
        )
        if missing is None:
            return error
        return LoginNeededError(
            f"the server wants a login: {missing}",
            "bring the agent back, or start it again at a terminal",
        )


class Connection:
    """One ssh that is a control master; implements boundary.Connection.

    ``remote_sockets`` are the paths where the server has listened for this session before; it
    is kept up here.
    """

    def __init__(
        self, profile: ForwardProfile, directory: Path | None, remote_sockets: set[str]
    ) -> None:
        self._profile = profile
        self._remote_sockets = remote_sockets
        self._temporary = None
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="sshvpn-")
            directory = Path(self._temporary.name)
        self._control = directory / "mux"
        self._mux = Mux(self._control)
        self._askpass = directory / "ask"
        self._process: asyncio.subprocess.Process | None = None
        self._said = ChildLines(self._take)
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._stands = False
        self._channels: set[int] = set()
        self._open: dict[Listener, Endpoint] = {}
        self._one_at_a_time = asyncio.Lock()
        self._transport: TransportSocket | None = None
        self.was_answered = False

    # The login --------------------------------------------------------------------------

    async def log_in(
        self, config: Mapping[str, tuple[str, ...]], prompter: Prompter | None
    ) -> None:
        """Start ssh, and return when its control socket takes commands."""
        if len(os.fsencode(self._control)) > _LONGEST_CONTROL_PATH:
            raise SshvpnError(
                f"the path {self._control} is too long for a unix socket",
                "set XDG_RUNTIME_DIR to a shorter directory",
            )
        self._control.unlink(missing_ok=True)
        async with AskpassServer(self._askpass, prompter) as askpass:
            try:
                environment = askpass.environment()
                await self._start(config, environment, may_prompt=prompter is not None)
                await askpass.unless_given_up(self._wait_ready())
            except BaseException:
                await self._end_process()
                raise
            self.was_answered = askpass.answers > 0

    async def _start(
        self,
        config: Mapping[str, tuple[str, ...]],
        environment: Mapping[str, str],
        *,
        may_prompt: bool,
    ) -> None:
        self._process = await asyncio.create_subprocess_exec(
            find_ssh() or "ssh",
            *ssh_words(config, self._control, may_prompt=may_prompt),
            *self._profile.ssh.ssh_words,
            *self._profile.destination.ssh_words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=self._said.write_fd,
            env=environment,
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )
        self._said.release()

    async def _wait_ready(self) -> None:
        ended = asyncio.create_task(self.wait_closed())
        try:
            while not self._mux.answers():
                if ended.done():
                    raise ended.result()
                await asyncio.wait({ended}, timeout=_READY_POLL_S)
        finally:
            ended.cancel()
        self._lines.clear()
        self._stands = True
        if self._process is not None:
            self._transport = TransportSocket.of_process(self._process.pid)

    def _take(self, line: str) -> None:
        if opened := _CHANNEL_NEW.match(line):
            if "listener" not in line:
                self._channels.add(int(opened[1]))
            return
        if freed := _CHANNEL_FREE.match(line):
            self._channels.discard(int(freed[1]))
            return
        if is_debug(line):
            log.debug("ssh: %s", line)
            if self._stands:
                return
        self._lines.append(line)
        if failed := _OPEN_FAILED.search(line):
            log.warning("a connection was not forwarded: %s (%s)", failed[2], failed[1])
        elif not is_noise(line):
            log.info("ssh: %s", printable(line))

    # Listeners --------------------------------------------------------------------------

    async def open_listener(self, listener: Listener) -> Endpoint:
        """Open one; see boundary.Connection."""
        async with self._one_at_a_time:
            if listener.direction is Direction.REMOTE:
                where = await self._open_remote(listener)
            else:
                where = await self._open_local(listener)
            self._open[listener] = where
            return where

    async def _open_local(self, listener: Listener) -> Endpoint:
        for left in reversed(range(_PORT_TRIES)):
            # ssh says "Port forwarding failed" for every reason: the kernel tells which.
            where = local_listener.probe(listener.listen)
            try:
                await self._mux.forward(listener, where)
            except SshvpnError:
                # Somebody was faster; a port that we chose ourselves can be another one.
                if left and where != listener.listen:
                    continue
                local_listener.probe(where)
                raise
            self._guard(listener, where)
            return where
        raise AssertionError("unreachable")

    def _guard(self, listener: Listener, where: Endpoint) -> None:
        if listener.interface is None or not isinstance(where, TcpEndpoint):
            return
        assert self._process is not None  # noqa: S101 (it has just opened the listener)
        if not guard_process_listener(self._process.pid, where, listener.interface):
            log.warning(
                "%s can be reached through other adapters too: this system does not let a "
                "listener of ssh be limited to %s (--engine sshtunnel can)",
                where,
                listener.interface,
            )

    async def _open_remote(self, listener: Listener) -> Endpoint:
        where = listener.listen
        if isinstance(where, UnixEndpoint):
            await self._open_remote_socket(listener, where)
            return where
        said = await self._mux.forward(listener, where)
        if where.port == 0:
            port = re.search(r"\d+", said)
            if port is None:
                raise SshvpnError("the server did not say which port it listens on")
            return TcpEndpoint(where.host, int(port[0]))
        return where

    async def _open_remote_socket(self, listener: Listener, where: UnixEndpoint) -> None:
        try:
            await self._mux.forward(listener, where)
        except TakenError:
            ours = where.path in self._remote_sockets
            if not await self._mux.remove_remote_socket(where.path, ours=ours):
                raise
            await self._mux.forward(listener, where)
        self._remote_sockets.add(where.path)

    async def close_listener(self, listener: Listener) -> None:
        """Close one; see boundary.Connection."""
        async with self._one_at_a_time:
            where = self._open.pop(listener, None)
            if where is None:
                return
            # Cancelled by the words that opened it: port 0 of the server's stays 0 (ssh(1)).
            words = listener.listen if listener.direction is Direction.REMOTE else where
            with contextlib.suppress(SshvpnError):
                await self._mux.cancel(listener, words)
            await self._remove_remote_socket(listener, where)
            local_listener.remove(where, listener.direction)

    async def _remove_remote_socket(self, listener: Listener, where: Endpoint) -> None:
        if listener.direction is Direction.REMOTE and isinstance(where, UnixEndpoint):
            await self._mux.remove_remote_socket(where.path, ours=True)

    # The end ----------------------------------------------------------------------------

    async def wait_closed(self) -> SshvpnError:
        """Wait for ssh to end, and return why it did."""
        assert self._process is not None  # noqa: S101 (only what was started is waited for)
        exit_status = await self._process.wait()
        await self._said.wait_end(_LAST_WORDS_S)
        return classify(self._lines, exit_status)

    async def close(self) -> None:
        """End ssh, and remove its sockets, those at the server too where it still answers."""
        if self._process is not None and self._process.returncode is None:
            for listener, where in self._open.items():
                await self._remove_remote_socket(listener, where)
        await self._end_process()
        self._said.close()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        for listener, where in self._open.items():
            local_listener.remove(where, listener.direction)
        self._open.clear()
        self._control.unlink(missing_ok=True)
        if self._temporary is not None:
            self._temporary.cleanup()

    async def _end_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        # With all that it started: an askpass that asks, a proxy, would hold its pipe open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END_TIMEOUT_S)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def traffic(self) -> Traffic:
        """Return the bytes of ssh's own connection, and how many forwards are open in it."""
        counters = self._transport.counters() if self._transport else None
        return Traffic(
            rx_bytes=counters.rx_bytes if counters else None,
            tx_bytes=counters.tx_bytes if counters else None,
            connections=len(self._channels),
        )

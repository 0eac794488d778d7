"""The way to the server's SSH port: a TCP connection, a ProxyCommand or a ProxyJump.

What comes out is always a plain connected socket, so that time-outs, polling and closing are
the same whichever way was taken. A proxy is a child process on the other end of a socketpair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from sshvpn.errors import SshvpnError, UsageError
from sshvpn.system.network.connect import connect_first
from sshvpn.system.network.sockets import TransportSocket
from sshvpn.system.openssh.stderr import classify
from sshvpn.system.process import find_ssh
from sshvpn.system.ssh.jump import jump_words
from sshvpn.system.sshtunnel.settings import Settings

_KEPT_LINES = 50
_PROXY_END_S = 2.0


class Carrier:
    """A connected socket, and the proxy behind it, if any. Close it; twice is fine."""

    def __init__(self, sock: socket.socket, proxy: Proxy | None = None) -> None:
        self.sock = sock
        self._proxy = proxy

    @property
    def is_tcp(self) -> bool:
        """Whether the socket reaches the server itself, so that TCP tells of its death."""
        return self._proxy is None

    def explained(self, error: SshvpnError) -> SshvpnError:
        """Return why it broke: the proxy's own last words where it had any, else ``error``."""
        return error if self._proxy is None else self._proxy.error() or error

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket | None]:
        """Lend the TCP socket, ours or the proxy's, for a moment; None if it cannot be had."""
        if self._proxy is None:
            yield self.sock
            return
        transport = TransportSocket.of_process(self._proxy.pid)
        if transport is None:
            yield None
            return
        with closing(transport), transport.borrowed() as sock:
            yield sock

    def abort(self) -> None:
        """Wake whoever waits on the socket: for them the connection has ended."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket and end the proxy. May take two seconds if it does not want to."""
        self.abort()
        self.sock.close()
        if self._proxy is not None:
            self._proxy.end()


class Proxy:
    """A child process that carries the connection over its input and output.

    Should we be killed, its input ends, and that ends it.
    """

    def __init__(self, words: Sequence[str], sock: socket.socket, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            words,
            stdin=sock.fileno(),
            stdout=sock.fileno(),
            stderr=subprocess.PIPE,
            env=dict(env),
            start_new_session=True,
        )
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listener = threading.Thread(target=self._listen, name="proxy-stderr", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def _listen(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 (a pipe was asked for)
        with self._process.stderr as stderr:
            for line in stderr:
                self._said.append(line.decode(errors="replace").rstrip())

    def error(self) -> SshvpnError | None:
        """Return what its stderr tells of, once it has ended by itself; else None."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PROXY_END_S)
        self._listener.join(_PROXY_END_S)
        spoken = [line for line in self._said if line.strip()]
        return classify(spoken, self._process.returncode) if spoken else None

    def end(self) -> None:
        """End it and all that it started, gently and then not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            # Its whole group: a shell's children hold the same pipe open.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PROXY_END_S)
                break
        self._listener.join(_PROXY_END_S)


async def dial(
    settings: Settings,
    config_words: Sequence[str],
    environment: Mapping[str, str],
    *,
    may_prompt: bool,
) -> Carrier:
    """Return a carrier to ``settings``' host, over its proxy if it has one.

    ``config_words`` are the user's ``-F``, for the hops; ``environment`` is the proxy's, and
    ``may_prompt`` says whether a hop's questions can be answered. Raises OSError, or UsageError
    for what is not installed.
    """
    if settings.proxy_command is not None:
        shell = os.environ.get("SHELL") or "/bin/sh"
        return _through([shell, "-c", f"exec {settings.proxy_command}"], environment)
    if settings.jumps:
        words = ssh_jump(settings, config_words, may_prompt=may_prompt)
        return _through(words, environment)
    return Carrier(await _connect(settings))


def ssh_jump(
    settings: Settings, config_words: Sequence[str], *, may_prompt: bool
) -> tuple[str, ...]:
    """Return the command line of the ssh that reaches the last hop. Raises UsageError."""
    ssh = find_ssh()
    if ssh is None:
        raise UsageError(
            "the sshtunnel engine reaches a ProxyJump by ssh, and there is none on this machine",
            "install openssh-client",
        )
    options = {
        "StrictHostKeyChecking": "ask" if may_prompt else "yes",
        "BatchMode": "no" if may_prompt else "yes",
        "ControlPath": "none",
        "LogLevel": "INFO",
    }
    words = [word for item in options.items() for word in ("-o", "=".join(item))]
    target = f"[{settings.host}]:{settings.port}"
    return (ssh, *words, *jump_words(settings.jumps, target, config_words))


def _through(words: Sequence[str], environment: Mapping[str, str]) -> Carrier:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            return Carrier(ours, Proxy(words, theirs, environment))
        except OSError:
            ours.close()
            raise


async def _connect(settings: Settings) -> socket.socket:
    """Return a TCP connection to the first address of the host that takes one."""
    found = await asyncio.get_running_loop().getaddrinfo(
        settings.host, settings.port, family=settings.family, type=socket.SOCK_STREAM
    )
    sock = await connect_first(
        found,
        settings.connect_timeout_s,
        bind_address=settings.bind_address,
        bind_interface=settings.bind_interface,
    )
    _watch(sock, settings)
    return sock


def _watch(sock: socket.socket, settings: Settings) -> None:
    """Let the kernel end the connection when the server's machine is silent for too long."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    interval = max(1, round(settings.alive_interval_s))
    limit_ms = interval * (settings.alive_count + 1) * 1000
    for name, value in (
        ("TCP_KEEPIDLE", interval),
        ("TCP_KEEPINTVL", interval),
        ("TCP_USER_TIMEOUT", limit_ms),  # Linux only; it bounds unacknowledged data too
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

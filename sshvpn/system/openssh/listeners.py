"""Listeners of one ssh: opened and closed over its control socket, each by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re

from sshvpn.errors import SshvpnError, TakenError
from sshvpn.model import Direction, Endpoint, Listener, TcpEndpoint, UnixEndpoint
from sshvpn.system.network import local_listener
from sshvpn.system.network.listener_guard import guard_process_listener
from sshvpn.system.openssh.process import SshProcess

log = logging.getLogger("sshvpn.openssh")

_PORT_TRIES = 8


class OpensshListeners:
    """The listeners of ``process``.

    ``remote_sockets`` are the paths where the server has listened for this session before; it
    is kept up here.
    """

    def __init__(self, process: SshProcess, remote_sockets: set[str]) -> None:
        self._process = process
        self._mux = process.mux
        self._remote_sockets = remote_sockets
        self._open: dict[Listener, Endpoint] = {}
        self._one_at_a_time = asyncio.Lock()

    async def open(self, listener: Listener) -> Endpoint:
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

    async def close(self, listener: Listener) -> None:
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

    async def before_end(self) -> None:
        """Remove what ssh's end would leave at the server, where ssh still runs."""
        if self._process.is_running:
            for listener, where in self._open.items():
                await self._remove_remote_socket(listener, where)

    def after_end(self) -> None:
        """Remove what ssh has left here; twice is fine."""
        for listener, where in self._open.items():
            local_listener.remove(where, listener.direction)
        self._open.clear()

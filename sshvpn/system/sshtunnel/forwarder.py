"""The sshtunnel library's forwarder, whose listeners open and close one by one.

The library by itself connects with whatever key fits, checks no host key, and opens all that
listens at the start. Here the transport and the login are ours; its servers, its handlers and
its end are kept.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import sshtunnel

from sshvpn.errors import ConnectionLostError, SshvpnError, UsageError
from sshvpn.model import Endpoint, Listener, TcpEndpoint, Traffic, UnixEndpoint
from sshvpn.system.network.local_listener import listen_error, probe
from sshvpn.system.sshtunnel.dial import Carrier
from sshvpn.system.sshtunnel.flows import Flow, Flows, TcpServer, UnixServer, serve
from sshvpn.system.sshtunnel.settings import OTHER_ENGINE, Settings
from sshvpn.system.sshtunnel.transport import Transport

log = logging.getLogger("sshvpn.sshtunnel")

CLOSE_TIMEOUT_S = 5.0


def _silent_logger() -> logging.Logger:
    """Return a logger for the library, which would write to stderr with one of its own."""
    logger = logging.getLogger("sshvpn.sshtunnel.library")
    logger.setLevel(logging.CRITICAL)
    return logger


class Forwarder(sshtunnel.SSHTunnelForwarder):  # type: ignore[misc]
    """One SSH connection over ``carrier``, and the listeners that it serves. Thread-safe.

    ``on_end`` is called, by a thread of its own, when the connection is over. Close it; twice
    is fine.
    """

    skip_tunnel_checkup = True
    daemon_forward_servers = True
    daemon_transport = True

    def __init__(
        self,
        settings: Settings,
        carrier: Carrier,
        offered: Mapping[str, tuple[str, ...]],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(
            (settings.host, settings.port),
            ssh_config_file=None,
            ssh_username=settings.user,
            compression=settings.compression,
            logger=_silent_logger(),
        )
        self._settings = settings
        self._carrier = carrier
        self._offered = offered
        self._on_end = on_end
        self._flows = Flows()
        self._lock = threading.Lock()
        self._listening: dict[Listener, tuple[Any, threading.Thread]] = {}
        self._interface: str | None = None
        self._transport = self._get_transport()

    @property
    def transport(self) -> Transport:
        """The SSH connection below."""
        transport: Transport = self._transport
        return transport

    def traffic(self) -> Traffic:
        """Return what the forwards have carried."""
        return self._flows.traffic()

    # Listeners --------------------------------------------------------------------------

    def open_listener(self, listener: Listener) -> Endpoint:
        """Listen, and return where. Raises as boundary.Connection says; see also close()."""
        if not isinstance(listener.target, TcpEndpoint):
            raise UsageError(
                f"the sshtunnel engine does not carry a forward to {listener.target}", OTHER_ENGINE
            )
        local = _local_address(listener.listen)
        remote = (listener.target.host, listener.target.port)
        with self._lock:
            if not self.is_active:
                raise ConnectionLostError("the connection has ended")
            self._interface = listener.interface
            try:
                self._make_ssh_forward_server(remote, local)
            except sshtunnel.BaseSSHTunnelForwarderError as error:
                raise _listener_error(listener, error.__context__) from error
            except OSError as error:
                raise _listener_error(listener, error) from error
            server = self._server_list[-1]
            self._listening[listener] = (server, serve(server))
        if isinstance(listener.listen, TcpEndpoint):
            return TcpEndpoint(listener.listen.host, server.local_port)
        return listener.listen

    def close_listener(self, listener: Listener) -> None:
        """Stop listening; what is open lives on. Not there: nothing happens."""
        with self._lock:
            server, thread = self._listening.pop(listener, (None, None))
            if server is None or thread is None:
                return
            self._server_list.remove(server)
            self.tunnel_is_up.pop(server.local_address, None)
        server.shutdown()
        server.server_close()
        thread.join()
        if isinstance(listener.listen, UnixEndpoint):
            _unlink(listener.listen)

    def close(self) -> None:
        """End everything: listeners, what is open, the connection, its socket and proxy."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for listener in list(self._listening):
            self.close_listener(listener)
        # Through the socket, so that its threads leave it before its number is free again.
        self._carrier.abort()
        if self.transport.ident is not None:
            self.transport.join(max(0.0, deadline - time.monotonic()))
        self.stop(force=True)
        self._flows.close(deadline)
        self._carrier.close()

    # What the library asks of a subclass, or does otherwise ------------------------------

    def _get_transport(self) -> Transport:
        transport = Transport(
            self._carrier.sock, self._offered, self._settings.connect_timeout_s, self._on_end
        )
        transport.use_compression(self.compression)
        if self._settings.rekey_bytes is not None:
            transport.packetizer.REKEY_BYTES = self._settings.rekey_bytes
        return transport

    def _make_ssh_forward_handler_class(self, remote: tuple[str, int]) -> type[Flow]:
        members = {
            "remote_address": remote,
            "ssh_transport": self._transport,
            "logger": self.logger,
            "flows": self._flows,
        }
        return type("Handler", (Flow,), members)

    def _make_ssh_forward_server_class(self, remote: tuple[str, int]) -> type[TcpServer]:
        del remote
        return type("Server", (TcpServer,), {"interface": self._interface})

    def _make_stream_ssh_forward_server_class(self, remote: tuple[str, int]) -> type[UnixServer]:
        del remote
        return UnixServer

    @staticmethod
    def _get_binds(*_: Any, **__: Any) -> list[Any]:
        return []  # listeners come later, one by one

    @staticmethod
    def _consolidate_auth(**_: Any) -> tuple[None, list[Any]]:
        return None, []  # the login is not the library's


def _local_address(endpoint: Endpoint) -> tuple[Any, ...] | str:
    if isinstance(endpoint, UnixEndpoint):
        probe(endpoint)  # removes one that nobody listens on any more
        return endpoint.path
    try:
        # The whole address: a link-local one has a scope that bind(2) must be told.
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except OSError as error:
        raise listen_error(endpoint, error) from error
    address: tuple[Any, ...] = found[0][4]
    return address


def _listener_error(listener: Listener, error: BaseException | None) -> SshvpnError:
    if isinstance(error, OSError):
        if error.errno == errno.ENODEV and listener.interface is not None:
            return UsageError(
                f"cannot listen on {listener.listen}: there is no adapter {listener.interface}",
                "ip link lists them",
            )
        return listen_error(listener.listen, error)
    return SshvpnError(f"cannot listen on {listener.listen}: {error}")


def _unlink(endpoint: UnixEndpoint) -> None:
    from pathlib import Path

    with contextlib.suppress(OSError):
        Path(endpoint.path).unlink()

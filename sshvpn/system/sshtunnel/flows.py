"""What flows through the sshtunnel library's forwards: its servers and its handler, mended.

The library's handler loses what comes after the client's end of data, and its select() cannot
see descriptors past 1023; here each direction has a thread that waits for nothing but its own
data, so that one slow peer holds up nobody else. Half a connection may end before the other.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import paramiko
import sshtunnel

from sshvpn.model import Traffic
from sshvpn.system.network.listener_guard import guard

log = logging.getLogger("sshvpn.sshtunnel")

BACKLOG = 1024
_POLL_S = 3600.0
_NO_DESCRIPTORS_S = 0.1
_READ_BYTES = 256 << 10
_BROKEN = (OSError, EOFError, paramiko.SSHException)
"""How either side of a flow tells that it is over."""
_PACKET_OVERHEAD = 64
"""What paramiko keeps free of a channel's largest packet."""


class Flows:
    """The open connections of all forwards, and what they have carried. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Flow, threading.Thread] = {}
        self._rx_bytes = 0
        self._tx_bytes = 0
        self._is_closed = False

    def enter(self, flow: Flow) -> bool:
        """Add a flow that runs on this thread; False when no more may begin."""
        with self._lock:
            if not self._is_closed:
                self._open[flow] = threading.current_thread()
            return not self._is_closed

    def leave(self, flow: Flow) -> None:
        """Take a flow away and keep its count."""
        with self._lock:
            if self._open.pop(flow, None) is not None:
                self._rx_bytes += flow.rx_bytes
                self._tx_bytes += flow.tx_bytes

    def traffic(self) -> Traffic:
        """Return what was carried so far."""
        with self._lock:
            return Traffic(
                rx_bytes=self._rx_bytes + sum(flow.rx_bytes for flow in self._open),
                tx_bytes=self._tx_bytes + sum(flow.tx_bytes for flow in self._open),
                connections=len(self._open),
            )

    def close(self, deadline: float) -> None:
        """End all flows, and wait for their threads until ``deadline`` (time.monotonic())."""
        with self._lock:
            self._is_closed = True
            running = dict(self._open)
        for flow in running:
            flow.abort()
        for thread in running.values():
            thread.join(max(0.0, deadline - time.monotonic()))


class Flow(sshtunnel._ForwardHandler):  # type: ignore[misc]  # noqa: SLF001
    """One connection of a client, through a channel of its own to the target.

    ::

        client ── request ──[upload: the library's thread]── channel ──> target
               <─ request ──[download: a second thread]──── channel ──

    Each direction ends by itself and tells the other side so; the flow ends with both, or at
    once when one side broke or the server closed the channel. Byte counts are each written by
    one thread only.
    """

    flows: Flows
    chan: Any = None

    def setup(self) -> None:
        """Begin to count, before the channel is asked for."""
        super().setup()
        self.rx_bytes = 0
        self.tx_bytes = 0
        self._has_drained = threading.Event()
        if not self.flows.enter(self):
            raise sshtunnel.HandlerSSHTunnelForwarderError("the forward is being closed")

    def handle(self) -> None:
        """Do as the library does, and stop to count whatever happens."""
        try:
            super().handle()
        finally:
            self.flows.leave(self)

    def abort(self) -> None:
        """End it now: wake both threads."""
        if self.chan is not None:
            _close(self.chan)
        _shut(self.request, socket.SHUT_RDWR)

    def _redirect(self, chan: Any) -> None:
        self.chan = chan
        if isinstance(self.client_address, tuple):
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        download = threading.Thread(target=self._download, name="download", daemon=True)
        download.start()
        try:
            self._upload(chan)
            self._has_drained.wait()
        except _BROKEN:
            _shut(self.request, socket.SHUT_RDWR)
        finally:
            _close(chan)
            download.join()

    def _upload(self, chan: Any) -> None:
        # One read fills one packet: what is larger would be cut and copied again.
        most = chan.out_max_packet_size - _PACKET_OVERHEAD
        while data := self.request.recv(most):
            chan.sendall(data)
            self.tx_bytes += len(data)
        chan.shutdown_write()

    def _download(self) -> None:
        chan = self.chan
        try:
            while data := chan.recv(_READ_BYTES):
                self.request.sendall(data)
                self.rx_bytes += len(data)
            _shut(self.request, socket.SHUT_WR)
            self._has_drained.set()
            # Set when the channel is closed, by the upload's end or by the server: then nobody
            # takes what the client might still send.
            chan.status_event.wait()
        except _BROKEN:
            _close(chan)
        finally:
            self._has_drained.set()
            _shut(self.request, socket.SHUT_RDWR)


class _Listening:
    """What both kinds of the library's servers get: a deep backlog, a guard, a quick end."""

    request_queue_size = BACKLOG
    socket: socket.socket

    def get_request(self) -> Any:
        """Accept one; out of descriptors, wait a little instead of asking without end."""
        try:
            return super().get_request()  # type: ignore[misc]
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                log.warning("a connection waits: %s", error.strerror)
                time.sleep(_NO_DESCRIPTORS_S)
            raise

    def shutdown(self) -> None:
        """Stop to accept; wakes the thread, which looks up only once in a long while."""
        _shut(self.socket, socket.SHUT_RDWR)
        super().shutdown()  # type: ignore[misc]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a connection was not forwarded; the client sees it closed."""
        import sys

        del request, client_address
        log.warning("a connection to %s was not forwarded: %s", self._target(), sys.exc_info()[1])

    def _target(self) -> str:
        host, port = self.remote_address  # type: ignore[attr-defined]
        return f"{host}:{port}"


class TcpServer(_Listening, sshtunnel._ThreadingForwardServer):  # type: ignore[misc]  # noqa: SLF001
    """The library's TCP server, for IPv6 too, kept to the adapter ``interface`` if there is one."""

    interface: str | None = None

    def __init__(self, address: tuple[str, int], *args: Any, **kwargs: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, *args, **kwargs)

    def server_bind(self) -> None:
        """Bind to the one address: on ``::`` not to IPv4's as well."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()

    def server_activate(self) -> None:
        """Listen, guarded: nobody slips in before."""
        if self.interface is not None:
            try:
                guard(self.socket, self.interface)
            except PermissionError:
                log.warning(
                    "%s can be reached through other adapters too: this kernel does not let a "
                    "listener be limited to %s",
                    self.server_address,
                    self.interface,
                )
        super().server_activate()


class UnixServer(_Listening, sshtunnel._ThreadingStreamForwardServer):  # type: ignore[misc]  # noqa: SLF001
    """The library's unix socket server, open to this user alone."""

    def server_activate(self) -> None:
        """Close it to others before anybody can connect (StreamLocalBindMask, ssh_config(5))."""
        Path(self.server_address).chmod(0o600)
        super().server_activate()


def serve(server: Any) -> threading.Thread:
    """Accept connections on a thread of its own, until ``server.shutdown()``."""
    thread = threading.Thread(
        target=server.serve_forever, args=(_POLL_S,), name="accept", daemon=True
    )
    thread.start()
    return thread


def _close(chan: Any) -> None:
    with contextlib.suppress(*_BROKEN):
        chan.close()


def _shut(sock: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(how)

"""The portal: one small page on the shared adapters that shows what is reachable here.

Only who is on a shared network gets in: each listener is bound to its adapter, and answers
neighbours alone. It only reads. A connection carries one request, which must have come within
seconds, and there are only so many; a page that was led here by another name (DNS rebinding) is
refused, and so is one that would frame it.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from importlib import resources
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.netutil import add_accept_handler
from tornado.web import Application, HTTPError, RequestHandler

from sshvpn.frozen import dataclass
from sshvpn.lan.multicast import keep_to
from sshvpn.lan.page import Visit, page
from sshvpn.presence import Adapter, Place, Presence

log = logging.getLogger("sshvpn.lan")

USUAL_PORT = 7748
"""Where nothing is said; where that is taken, one of the next."""
NEXT_PORTS = 20

REQUEST_WITHIN_S = 5.0
DONE_WITHIN_S = 15.0
MOST_CONNECTIONS = 128
MOST_OF_ONE = 16
LONGEST_HEADER = 8192
_BACKLOG = 64

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Server": "sshvpn",
}
_HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9.-]+))(:(?P<port>[0-9]{1,5}))?")
_FILES = {"portal.css": "text/css; charset=utf-8", "portal.js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class _Listening:
    adapter: Adapter
    place: Place


class Portal:
    """Serves what :meth:`show` was given, at each address of each shared adapter.

    ``port`` is the one that was asked for, 0: the usual one, or one of the next. ``names``
    returns our host names, under which it is asked for too.
    """

    def __init__(self, port: int, names: Callable[[], Collection[str]]) -> None:
        self._wanted_port = port
        self._names = names
        self._presence: Presence | None = None
        self._listeners: dict[_Listening, _Listener] = {}
        self._failed: dict[_Listening, str] = {}
        self._port: int | None = None
        self._room = _Admission()

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it listens."""
        return tuple(key.place for key in self._listeners)

    @property
    def port(self) -> int | None:
        """The port that it listens on, None: it does not."""
        return self._port if self._listeners else None

    def show(self, presence: Presence | None) -> None:
        """Show this from now on, at its adapters' addresses; None: listen no more."""
        self._presence = presence
        adapters = presence.adapters if presence is not None else ()
        if self._port is None and adapters:
            self._port = self._free_port(adapters)
        wanted = {
            _Listening(adapter, Place(host, self._port or self._wanted_port))
            for adapter in adapters
            for host in adapter.hosts
        }
        for gone in [key for key in self._listeners if key not in wanted]:
            self._listeners.pop(gone).close()
        self._failed = {key: why for key, why in self._failed.items() if key in wanted}
        for key in sorted(wanted - set(self._listeners), key=lambda key: key.place.address):
            self._listen(key)

    def retry(self) -> bool:
        """Try again what could not be listened on; return whether anything is still missing."""
        for key in [*self._failed]:
            self._listen(key)
        return bool(self._failed)

    def _free_port(self, adapters: Iterable[Adapter]) -> int:
        if self._wanted_port:
            return self._wanted_port
        hosts = [(adapter.name, host) for adapter in adapters for host in adapter.hosts]
        published = {p.port for s in (self._presence.services if self._presence else ())
                     for p in s.places}  # fmt: skip
        for port in range(USUAL_PORT, USUAL_PORT + NEXT_PORTS):
            if port not in published and all(_is_free(name, host, port) for name, host in hosts):
                return port
        return USUAL_PORT

    def _listen(self, key: _Listening) -> None:
        try:
            sock = _listening(key.adapter.name, key.place)
        except OSError as error:
            why = error.strerror or str(error)
            if self._failed.get(key) != why:
                log.warning("no portal on %s port %s: %s", key.place.address, key.place.port, why)
            self._failed[key] = why
            return
        self._failed.pop(key, None)
        self._listeners[key] = _Listener(sock, key.adapter, self._application(key), self._room)

    def _application(self, key: _Listening) -> Application:
        files = {name: _file(name) for name in _FILES}
        return Application(
            [
                (r"/", _Page, {"portal": self, "key": key}),
                *(
                    (f"/{name}", _File, {"portal": self, "body": body, "kind": _FILES[name]})
                    for name, body in files.items()
                ),
            ],
            default_handler_class=_NotFound,
            default_handler_args={"portal": self},
            log_function=lambda _: None,
        )

    # For the handlers -------------------------------------------------------------------

    def is_ours(self, host: str) -> bool:
        """Whether ``host``, as a browser writes it, is one of our names or addresses, and port."""
        name, port = _split(host)
        is_this_page = port == (self._port or 0)
        return is_this_page and name in {place.address for place in self.places} | self._own_names()

    def page(self, key: _Listening, host: str) -> str:
        """Return the page as it is for one who came to ``key`` and wrote ``host``."""
        if self._presence is None:
            raise HTTPError(503)
        name, _ = _split(host)
        visit = Visit(key.adapter, key.place.address, name if name in self._own_names() else None)
        return page(self._presence, visit)

    def _own_names(self) -> set[str]:
        return {name.lower() for name in self._names()}


def _split(host: str) -> tuple[str, int]:
    """Return the name or bare address of a Host header, and its port; 80 where it says none."""
    found = _HOST.fullmatch(host.lower())
    if found is None:
        return "", 0
    return (found["address"] or found["name"]).removesuffix("."), int(found["port"] or 80)


class _Admission:
    """How many connections there may be, of all neighbours and of one."""

    def __init__(self) -> None:
        self._open: list[tuple[str, IOStream]] = []

    def has_room_for(self, host: str) -> bool:
        """Whether ``host`` may have one more."""
        self._open = [(other, stream) for other, stream in self._open if not stream.closed()]
        own = sum(other == host for other, _ in self._open)
        return own < MOST_OF_ONE and len(self._open) < MOST_CONNECTIONS

    def admit(self, host: str, stream: IOStream) -> None:
        """Count the connection until it is closed, which is soon."""
        self._open.append((host, stream))
        IOLoop.current().call_later(DONE_WITHIN_S, stream.close)


class _Listener:
    """One listening socket: who comes by it, from where it may, is served."""

    def __init__(
        self, sock: socket.socket, adapter: Adapter, application: Application, room: _Admission
    ) -> None:
        self._socket = sock
        self._room = room
        self._networks = [ipaddress.ip_interface(cidr).network for cidr in adapter.addresses]
        self._server = HTTPServer(
            application,
            no_keep_alive=True,
            max_header_size=LONGEST_HEADER,
            idle_connection_timeout=REQUEST_WITHIN_S,
            body_timeout=REQUEST_WITHIN_S,
            max_body_size=LONGEST_HEADER,
            max_buffer_size=4 * LONGEST_HEADER,
            chunk_size=LONGEST_HEADER,
        )
        self._remove = add_accept_handler(sock, self._accept)

    def _accept(self, connection: socket.socket, address: tuple[Any, ...]) -> None:
        host = str(address[0]).partition("%")[0]
        peer = ipaddress.ip_address(host)
        is_near = peer.is_link_local or any(peer in network for network in self._networks)
        if not is_near or not self._room.has_room_for(host):
            connection.close()
            return
        stream = IOStream(connection, max_buffer_size=4 * LONGEST_HEADER)
        self._room.admit(host, stream)
        self._server.handle_stream(stream, address)

    def close(self) -> None:
        """Listen no more; who is being answered still is."""
        self._remove()
        self._socket.close()


# What is answered ----------------------------------------------------------------------------


class _Handler(RequestHandler):
    portal: Portal

    def initialize(self, portal: Portal, **_: Any) -> None:
        self.portal = portal

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if len(self.request.headers.get_list("Host")) != 1:
            raise HTTPError(400)
        if not self.portal.is_ours(self.request.host):
            raise HTTPError(421)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {HTTPStatus(status_code).phrase}\n")

    def log_exception(self, *_: Any) -> None:
        """Nothing: what strangers send is not worth a line of the log."""

    def head(self) -> None:
        """Answer as to GET; the body is left out by the server."""
        self.get()

    def get(self) -> None:
        """Answer. To be overridden."""
        raise HTTPError(404)


class _NotFound(_Handler):
    pass


class _Page(_Handler):
    def initialize(self, portal: Portal, **rest: Any) -> None:
        super().initialize(portal)
        self._key: _Listening = rest["key"]

    def get(self) -> None:
        body = self.portal.page(self._key, self.request.host)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(body)


class _File(_Handler):
    def initialize(self, portal: Portal, **rest: Any) -> None:
        super().initialize(portal)
        self._body: bytes = rest["body"]
        self._kind: str = rest["kind"]

    def get(self) -> None:
        self.set_header("Content-Type", self._kind)
        self.finish(self._body)


def _file(name: str) -> bytes:
    return resources.files("sshvpn.lan").joinpath(name).read_bytes()


# Sockets -------------------------------------------------------------------------------------


def _listening(adapter: str, place: Place) -> socket.socket:
    """Return a socket that listens at ``place`` for what comes by ``adapter``. Raises OSError."""
    family = socket.AF_INET6 if place.is_ipv6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keep_to(sock, adapter)
        sock.bind((place.address, place.port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_free(adapter: str, host: str, port: int) -> bool:
    try:
        _listening(adapter, Place(host, port)).close()
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True

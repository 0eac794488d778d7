"""Small services that the tests talk to, one process each.

Run by `Machine` as `python -I -S _services.py KIND ADDRESS PORT [TITLE]`; ADDRESS may be the path
of a unix socket. Prints "ready PORT" when it listens. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import pathlib
import select
import socket
import socketserver
import struct
import sys
import urllib.parse
from typing import Any

CHUNK = 1 << 16
PKTINFO = struct.Struct("16si")


class Page(http.server.BaseHTTPRequestHandler):
    """The pages that `Machine.http_server` describes."""

    protocol_version = "HTTP/1.1"
    title = ""

    def _answer(self, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Answer /, /peer, /bytes/N; 404 for the rest."""
        path = urllib.parse.urlsplit(self.path).path
        if path == "/":
            html = f"<!doctype html><title>{self.title}</title><h1>{self.title}</h1>\n"
            self._answer(html.encode(), "text/html; charset=utf-8")
        elif path == "/peer":
            self._answer(str(self.client_address[0]).encode())
        elif path.startswith("/bytes/"):
            self._answer(bytes(int(path.removeprefix("/bytes/"))), "application/octet-stream")
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        """Answer with the hash of the body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(hashlib.sha256(body).hexdigest().encode())

    def log_message(self, *_: object) -> None:
        """Say nothing: standard error is a pipe that nobody may be reading."""


class Talk(socketserver.BaseRequestHandler):
    """One TCP conversation of the kind that `Machine.tcp_server` describes."""

    kind = "echo"

    def handle(self) -> None:
        """Hold the conversation to its end; a client that goes away ends it."""
        with contextlib.suppress(ConnectionError):
            getattr(self, self.kind)()

    def echo(self) -> None:
        """Send back what comes."""
        while data := self.request.recv(CHUNK):
            self.request.sendall(data)

    def hash(self) -> None:
        """Read to the end, then answer with the hash."""
        digest = hashlib.sha256()
        while data := self.request.recv(CHUNK):
            digest.update(data)
        self.request.sendall(digest.hexdigest().encode())

    def source(self) -> None:
        """Send until the client is gone."""
        while True:
            self.request.sendall(bytes(CHUNK))

    def sink(self) -> None:
        """Read to the end."""
        while self.request.recv(CHUNK):
            pass

    def mute(self) -> None:
        """Read nothing, and stay until the connection is reset."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        poll = select.poll()
        poll.register(self.request, 0)
        poll.poll()


class Echo(socketserver.BaseRequestHandler):
    """One UDP datagram, sent back."""

    def handle(self) -> None:
        """Send it back, from the address that it was sent to."""
        (data, told), sock = self.request
        sock.sendmsg([data], told, 0, self.client_address)


class TcpServer(socketserver.ThreadingTCPServer):
    """Many connections at once, in either family or on a unix socket."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 1024


class UdpServer(socketserver.UDPServer):
    """Datagrams of any size, with the address that each was sent to (ipv6(7), IPV6_PKTINFO)."""

    def server_bind(self) -> None:
        """Bind, and have the addresses told."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        super().server_bind()

    def get_request(self) -> tuple[Any, Any]:
        """Return a datagram, what was told with it, and who sent it."""
        data, told, _, sender = self.socket.recvmsg(CHUNK, socket.CMSG_SPACE(PKTINFO.size))
        # The adapter is not held to: an answer may have another way.
        there = [(*kind, PKTINFO.pack(PKTINFO.unpack(value)[0], 0)) for *kind, value in told]
        return ((data, there), self.socket), sender


class WebServer(TcpServer, http.server.HTTPServer):
    """The same, with the page's handler."""

    def server_bind(self) -> None:
        """Bind without the reverse lookup of the library's own."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]


def main() -> None:
    """Serve for ever."""
    kind, address, port, *title = sys.argv[1:]
    server: type[socketserver.BaseServer] = {"http": WebServer, "udp": UdpServer}.get(
        kind, TcpServer
    )
    where: object = (address, int(port))
    if address.startswith("/"):
        family = socket.AF_UNIX
        where = address
        pathlib.Path(address).unlink(missing_ok=True)
    else:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
    handler: type[socketserver.BaseRequestHandler]
    if kind == "http":
        handler, Page.title = Page, title[0]
    elif kind == "udp":
        handler = Echo
    else:
        handler, Talk.kind = Talk, kind
    kind_of_server = type("Server", (server,), {"address_family": family})
    with kind_of_server(where, handler) as running:
        bound = running.server_address
        print("ready", 0 if isinstance(bound, str) else bound[1], flush=True)  # noqa: T201
        running.serve_forever()


if __name__ == "__main__":
    main()

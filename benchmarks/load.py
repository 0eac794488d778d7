"""The load: a server and clients that cost the machine as little as the kernel allows.

Runs by itself inside a machine of the laboratory, with nothing but the standard library::

    load.py serve WHERE
    load.py push|pull WHERE BYTES     prints the seconds that BYTES took to or from the server
    load.py crowd WHERE COUNT BYTES   prints the seconds; COUNT connections, all open at once,
                                      each BYTES there and back; exit 1 where one byte is wrong

WHERE is a port of loopback, or ADDRESS:PORT.

A client says what it wants in nine bytes, a letter and a number (``!cQ``), and gets one byte
back; then the clock starts. Bulk data is sent by sendfile(2) from memory and thrown away by
recv(2) with MSG_TRUNC: neither end copies it, so what is measured is the tunnel.
"""

from __future__ import annotations

import hashlib
import os
import selectors
import socket
import struct
import sys
import threading
import time

CHUNK = 1 << 20
REQUEST = struct.Struct("!cQ")
READY = b"+"
TIMEOUT_S = 300.0


def main() -> int:
    """Do what the command line says."""
    verb, text, *numbers = sys.argv[1:]
    address, _, port = text.rpartition(":")
    where = (address or "127.0.0.1", int(port))
    if verb == "serve":
        serve(where)
    if verb == "crowd":
        return crowd(where, *map(int, numbers))
    print(transfer(verb, where, *map(int, numbers)))
    return 0


# The server ---------------------------------------------------------------------------------


def serve(where: tuple[str, int]) -> None:
    """Serve for ever; one thread a connection."""
    with socket.create_server(where, backlog=1024) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    """Do what one client wants."""
    with connection:
        verb, count = REQUEST.unpack(receive(connection, REQUEST.size))
        connection.sendall(READY)
        if verb == b"u":
            discard(connection, count)
            connection.sendall(READY)
            connection.recv(1)
        elif verb == b"l":
            send(connection, count)
            connection.recv(1)
        else:
            echo(connection)


def echo(connection: socket.socket) -> None:
    """Send back what comes, to the end, and then end too."""
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := connection.recv_into(buffer):
        connection.sendall(view[:count])
    connection.shutdown(socket.SHUT_WR)


# The clients --------------------------------------------------------------------------------


def transfer(verb: str, where: tuple[str, int], count: int) -> float:
    """Move ``count`` bytes, ``push`` to the server or ``pull`` from it; return the seconds."""
    with socket.create_connection(where, TIMEOUT_S) as connection:
        connection.sendall(REQUEST.pack(b"u" if verb == "push" else b"l", count))
        receive(connection, 1)
        connection.settimeout(None)  # a blocking socket needs one system call less a piece
        start = time.perf_counter()
        if verb == "push":
            send(connection, count)
            receive(connection, 1)
        else:
            discard(connection, count)
        return time.perf_counter() - start


def crowd(where: tuple[str, int], count: int, size: int) -> int:
    """Echo ``size`` random bytes over each of ``count`` connections, all at once.

    Each is half closed after the last byte, and must bring all of them back and then end.
    """
    begin = time.perf_counter()
    members = [Member(where, size) for _ in range(count)]
    for member in members:
        receive(member.socket, 1)
        member.socket.settimeout(0)
    wrong = 0
    with selectors.DefaultSelector() as selector:
        for member in members:
            selector.register(member.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, member)
        while selector.get_map():
            ready = selector.select(TIMEOUT_S)
            if not ready:
                print(f"nothing moves on {len(selector.get_map())} connections", file=sys.stderr)
                return 1
            for key, events in ready:
                wrong += key.data.advance(selector, events)
    print(time.perf_counter() - begin)
    if wrong:
        print(f"{wrong} of {count} connections were wrong", file=sys.stderr)
    return 1 if wrong else 0


class Member:
    """One of the crowd."""

    def __init__(self, where: tuple[str, int], size: int) -> None:
        self.socket = socket.create_connection(where, TIMEOUT_S)
        self.socket.sendall(REQUEST.pack(b"e", size))
        self._rest = memoryview(os.urandom(size))
        self._expected = hashlib.sha256(self._rest).digest()
        self._got = hashlib.sha256()

    def advance(self, selector: selectors.BaseSelector, events: int) -> int:
        """Send and receive what can be; return 1 when it has ended wrong, else 0."""
        try:
            if events & selectors.EVENT_WRITE:
                self._send(selector)
            data = self.socket.recv(CHUNK) if events & selectors.EVENT_READ else None
        except ConnectionError:
            data = b""
        if data is None:
            return 0
        if data:
            self._got.update(data)
            return 0
        selector.unregister(self.socket)
        self.socket.close()
        return int(bool(self._rest) or self._got.digest() != self._expected)

    def _send(self, selector: selectors.BaseSelector) -> None:
        self._rest = self._rest[self.socket.send(self._rest[:CHUNK]) :]
        if not self._rest:
            self.socket.shutdown(socket.SHUT_WR)
            selector.modify(self.socket, selectors.EVENT_READ, self)


# Bytes --------------------------------------------------------------------------------------


def receive(connection: socket.socket, count: int) -> bytes:
    """Return exactly ``count`` bytes. Raises EOFError where there are fewer."""
    data = connection.recv(count, socket.MSG_WAITALL)
    if len(data) != count:
        raise EOFError
    return data


def discard(connection: socket.socket, count: int) -> None:
    """Receive ``count`` bytes without copying them (tcp(7), MSG_TRUNC)."""
    nowhere = bytearray(CHUNK)
    while count:
        got = connection.recv_into(nowhere, min(count, CHUNK), socket.MSG_TRUNC)
        if not got:
            raise EOFError
        count -= got


def send(connection: socket.socket, count: int) -> None:
    """Send ``count`` bytes without copying them."""
    memory = os.memfd_create("load")
    try:
        os.truncate(memory, CHUNK)
        at = 0
        while count:
            sent = os.sendfile(connection.fileno(), memory, at, min(count, CHUNK - at))
            at = (at + sent) % CHUNK
            count -= sent
    finally:
        os.close(memory)


if __name__ == "__main__":
    sys.exit(main())

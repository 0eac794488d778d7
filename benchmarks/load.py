"""The load: a server and clients that cost the machine as little as the kernel allows.

Runs by itself inside a machine of the laboratory, with nothing but the standard library::

    load.py serve WHERE
    load.py push|pull WHERE BYTES     prints the seconds that BYTES took to or from the server
    load.py push-for|pull-for WHERE SECONDS    prints the bytes a second that got through
    load.py blast WHERE SECONDS BYTES   datagrams of BYTES to a UDP port, as fast as can be
    load.py count WHERE                 prints the datagrams a second that come, when they end
    load.py crowd WHERE COUNT BYTES   prints the seconds; COUNT connections, all open at once,
                                      each BYTES there and back; exit 1 where one byte is wrong

WHERE is a port of loopback, or ADDRESS:PORT; ``:::PORT`` serves IPv4 and IPv6.

A client says what it wants in nine bytes, a letter and a number (``!cQ``), and gets one byte
back; then the clock starts. Bulk data is sent by sendfile(2) from memory and thrown away by
recv(2) with MSG_TRUNC: neither end copies it, so what is measured is the tunnel.
"""

from __future__ import annotations

import contextlib
import ctypes
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
NUMBER = struct.Struct("!Q")
AT_ONCE = 64
ALL = 1 << 62
"""More than anybody moves."""
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
    if verb == "count":
        count(where)
        return 0
    if verb == "blast":
        blast(where, float(numbers[0]), int(numbers[1]))
        return 0
    if verb.endswith("-for"):
        print(transfer_for(verb, where, float(numbers[0])))
        return 0
    print(transfer(verb, where, *map(int, numbers)))
    return 0


# The server ---------------------------------------------------------------------------------


def serve(where: tuple[str, int]) -> None:
    """Serve for ever; one thread a connection."""
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    both = family == socket.AF_INET6
    with socket.create_server(where, backlog=1024, family=family, dualstack_ipv6=both) as listener:
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
        elif verb == b"U":
            connection.sendall(NUMBER.pack(discard(connection, ALL)))
        elif verb == b"L":
            with contextlib.suppress(OSError):  # the client goes when its time is over
                send(connection, ALL)
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


def transfer_for(verb: str, where: tuple[str, int], seconds: float) -> float:
    """Move what can be moved in ``seconds``, and return how much a second arrived.

    What is on its way when the time is over counts with the time that it takes to arrive.
    """
    is_push = verb == "push-for"
    with socket.create_connection(where, TIMEOUT_S) as connection:
        connection.sendall(REQUEST.pack(b"U" if is_push else b"L", 0))
        receive(connection, 1)
        connection.settimeout(None)
        start = time.perf_counter()
        if is_push:
            send(connection, ALL, start + seconds)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(TIMEOUT_S)
            (moved,) = NUMBER.unpack(receive(connection, NUMBER.size))
        else:
            moved = discard(connection, ALL, start + seconds)
        return float(moved / (time.perf_counter() - start))


def blast(where: tuple[str, int], seconds: float, size: int) -> None:
    """Send datagrams of ``size`` bytes as fast as the kernel takes them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(where)
        # As many with one call as the kernel takes (sendmmsg(2)): Python alone is no full blast.
        datagram = ctypes.create_string_buffer(size)
        piece = _Piece(ctypes.cast(datagram, ctypes.c_void_p), size)
        messages = (_Message * AT_ONCE)()
        for message in messages:
            message.pieces, message.count = ctypes.pointer(piece), 1
        sendmmsg = ctypes.CDLL(None).sendmmsg
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            sendmmsg(sock.fileno(), messages, AT_ONCE, 0)


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr, of a connected socket."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.POINTER(_Piece)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


def count(where: tuple[str, int]) -> None:
    """Count datagrams, from the first one until none has come for a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(where)
        print("ready", flush=True)
        sock.settimeout(30)
        buffer = bytearray(2048)
        number, start, last = 0, 0.0, 0.0
        with contextlib.suppress(TimeoutError):
            while True:
                sock.recv_into(buffer)
                if number == 0:
                    start = time.perf_counter()
                    sock.settimeout(1)
                number += 1
                if number % 64 == 0:
                    last = time.perf_counter()
        print(number / (last - start) if last > start else 0.0, flush=True)


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


def discard(connection: socket.socket, count: int, until: float = 0.0) -> int:
    """Receive ``count`` bytes without copying them (tcp(7), MSG_TRUNC); return how many.

    ``ALL`` is to the end, or ``until`` then. Raises EOFError where there are fewer.
    """
    nowhere = bytearray(CHUNK)
    left = count
    while left:
        got = connection.recv_into(nowhere, min(left, CHUNK), socket.MSG_TRUNC)
        if not got and count != ALL:
            raise EOFError
        left -= got
        if not got or (until and time.perf_counter() >= until):
            break
    return count - left


def send(connection: socket.socket, count: int, until: float = 0.0) -> None:
    """Send ``count`` bytes without copying them, or ``until`` then."""
    memory = os.memfd_create("load")
    try:
        os.truncate(memory, CHUNK)
        at = 0
        while count:
            sent = os.sendfile(connection.fileno(), memory, at, min(count, CHUNK - at))
            at = (at + sent) % CHUNK
            count -= sent
            if until and time.perf_counter() >= until:
                break
    finally:
        os.close(memory)


if __name__ == "__main__":
    sys.exit(main())

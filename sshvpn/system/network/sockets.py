"""Sockets of child processes: found through /proc, borrowed through pidfd_getfd(2).

The system's ssh holds its sockets itself; what it carries and where it listens is seen from
outside here. A borrowed socket is given back at once: while a duplicate is open, the death of
its process would not end the connection.

Needs ptrace rights over the process (a parent over its child under Yama, ptrace(2)) and Linux
5.6. Where the kernel says no, the functions here find nothing; they never raise OSError. What we
have connected ourselves needs none of that (:class:`OwnSocket`).
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sshvpn.model import TcpCounters
from sshvpn.system.network.tcp_timer import REPEATS, timer_of

T = TypeVar("T")

_SYS_PIDFD_GETFD = 438
"""The same number on every architecture that Linux calls have in common (since 5.0)."""

_TCP_ESTABLISHED = 1
_TCP_INFO_STATE = 0
_TCP_INFO_BACKOFF, _TCP_INFO_RTO, _TCP_INFO_LAST_SENT = 4, 8, 44
"""Where tcpi_backoff (repeats in vain), tcpi_rto (microseconds) and tcpi_last_data_sent
(milliseconds ago, repeats included) stand in it."""
_TCP_INFO_LAST_DATA_RECEIVED, _TCP_INFO_LAST_ACK_RECEIVED = 52, 56
"""Where tcpi_last_data_recv and tcpi_last_ack_recv stand there: milliseconds ago."""
_TCP_INFO_RTT = 68
"""Where tcpi_rtt stands in struct tcp_info (linux/tcp.h): microseconds, smoothed; 0: unknown."""
_TCP_INFO_BYTES = 120
"""Where tcpi_bytes_acked and tcpi_bytes_received stand in struct tcp_info (linux/tcp.h)."""
_TCP_INFO_LENGTH = 136


class ProcessSockets:
    """The inet sockets of one running process. Must be closed; twice is fine.

    A process that has ended, or that may not be looked into, has none; its number is not
    mistaken for that of a later process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = -1
        with suppress(OSError):
            self._pidfd = os.pidfd_open(pid)

    def close(self) -> None:
        """Let go of the process."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def descriptors(self) -> list[int]:
        """Return the numbers of the process's socket descriptors, lowest first."""
        found: list[int] = []
        with suppress(OSError):
            for link in Path(f"/proc/{self.pid}/fd").iterdir():
                with suppress(OSError):
                    if str(link.readlink()).startswith("socket:"):
                        found.append(int(link.name))
        return sorted(found)

    def borrow(self, descriptor: int) -> socket.socket | None:
        """Return a duplicate of one of the process's sockets, to be closed soon, or None.

        None where there is no such descriptor (any more), where it is no TCP socket, and where
        the kernel does not allow it.
        """
        duplicate = self._duplicate(descriptor)
        if duplicate is None:
            return None
        try:
            sock = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)
            return None
        if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
            return sock
        sock.close()
        return None

    def lends(self, descriptor: int) -> bool:
        """Whether the kernel hands out that descriptor, whatever it is."""
        duplicate = self._duplicate(descriptor)
        if duplicate is not None:
            os.close(duplicate)
        return duplicate is not None

    def _duplicate(self, descriptor: int) -> int | None:
        return _pidfd_getfd(self._pidfd, descriptor) if self._pidfd >= 0 else None

    def borrow_all(self) -> Iterator[tuple[int, socket.socket]]:
        """Yield each TCP socket with its number, lowest first; it is closed at the next one."""
        for descriptor in self.descriptors():
            sock = self.borrow(descriptor)
            if sock is not None:
                with closing(sock):
                    yield descriptor, sock


@functools.cache
def may_borrow() -> bool:
    """Whether the kernel lets us at the sockets of our children; asked once.

    One that is started for this alone is tried, which takes some milliseconds: whoever says no
    (Yama, a filter of system calls, an old kernel) has said so then.
    """
    words = ("/bin/sh", "-c", "read _")  # waits until its input ends, with this
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE) as child,
        closing(ProcessSockets(child.pid)) as process,
    ):
        return process.lends(0)


class TransportSocket:
    """The TCP connection that carries an SSH session, read from outside.

    Holds the process, not the socket: ssh's end is the connection's end. Close it when ssh
    has ended (twice is fine).
    """

    def __init__(self, process: ProcessSockets, descriptor: int, inode: int) -> None:
        self._process = process
        self._descriptor = descriptor
        self._inode = inode

    @classmethod
    def of_process(cls, pid: int) -> TransportSocket | None:
        """Find the TCP connection that the ssh process ``pid`` logged in over.

        Behind ProxyJump or ProxyCommand it belongs to a descendant: the nearest one with a
        connection is taken. Call it right after the login, before listeners open: a client of
        a forward holds a connection in the same process, told apart only by its port and by
        being later. None where there is none, or where the kernel does not allow to look.
        """
        for process_id in _descendants(pid):
            process = ProcessSockets(process_id)
            found = _first_connection(process)
            if found is not None:
                return cls(process, *found)
            process.close()
        return None

    def counters(self) -> TcpCounters | None:
        """Return what was carried so far, or None when the connection is gone. Never blocks."""
        return self._ask(counters_of)

    def silence_s(self) -> float | None:
        """Return for how long its peer has not been heard; None when the connection is gone."""
        return self._ask(silence_of)

    def peer(self) -> str | None:
        """Return the address at its other end, or None when the connection is gone."""
        return self._ask(lambda sock: str(sock.getpeername()[0]))

    def is_of(self, pid: int) -> bool:
        """Whether it is that process's own, and not one of a proxy below it."""
        return self._process.pid == pid

    def send_at_once(self) -> None:
        """Hold back nothing that is small until what was sent before is acknowledged (RFC 896)."""
        self._ask(lambda sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1))

    def acknowledge(self) -> None:
        """Acknowledge at once what has come and was read; of what comes later nothing is said.

        Who has nothing to send waits with that for up to 40 ms (RFC 1122, 4.2.3.2), and with it
        waits a peer that holds back what is small (TCP_QUICKACK of tcp(7)).
        """
        self._ask(lambda sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1))

    @contextmanager
    def borrowed(self) -> Iterator[socket.socket | None]:
        """Lend a duplicate of the socket, for a moment: None when the connection is gone."""
        sock = self._process.borrow(self._descriptor)
        if sock is None:
            yield None
            return
        with closing(sock):
            # The number may stand for another socket by now.
            yield sock if os.fstat(sock.fileno()).st_ino == self._inode else None

    def _ask(self, question: Callable[[socket.socket], T]) -> T | None:
        with self.borrowed() as sock, suppress(OSError):
            if sock is not None:
                return question(sock)
        return None

    def close(self) -> None:
        """Let go of the process."""
        self._process.close()


class OwnSocket(TransportSocket):
    """The same of a connection that we have made, and whose socket we keep beside ssh.

    Close it at ssh's end: until then the connection stands.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @contextmanager
    def borrowed(self) -> Iterator[socket.socket | None]:
        """Lend a duplicate of the socket, for a moment: None once it is closed."""
        if self._sock.fileno() < 0:
            yield None
            return
        try:
            sock = self._sock.dup()
        except OSError:  # no descriptor is left
            yield None
            return
        with sock:
            yield sock

    def is_of(self, pid: int) -> bool:
        """Return True: it was made for one process, which was handed it."""
        del pid
        return True

    def close(self) -> None:
        """Let go of the connection."""
        self._sock.close()


def counters_of(sock: socket.socket) -> TcpCounters:
    """Return what the TCP connection ``sock`` has carried (tcp(7), TCP_INFO). Raises OSError."""
    info = _tcp_info(sock)
    acked, received = struct.unpack_from("=QQ", info, _TCP_INFO_BYTES)
    (rtt_us,) = struct.unpack_from("=I", info, _TCP_INFO_RTT)
    (data_ms,) = struct.unpack_from("=I", info, _TCP_INFO_LAST_DATA_RECEIVED)
    left_s, unanswered_s = _repeats(sock, info)
    return TcpCounters(
        rx_bytes=received,
        tx_bytes=acked,
        rtt_s=rtt_us / 1e6 if rtt_us else None,
        repeats_in_s=left_s,
        silent_s=data_ms / 1e3,
        unanswered_s=unanswered_s,
    )


def _repeats(sock: socket.socket, info: bytes) -> tuple[float, float]:
    """Return in how long it repeats itself, and for how long it has done so, in seconds.

    Not counted is the probe of a lost tail, which goes before (RFC 8985, 7.2).
    """
    doubled = info[_TCP_INFO_BACKOFF]
    if not doubled:
        return 0.0, 0.0
    (rto_us,) = struct.unpack_from("=I", info, _TCP_INFO_RTO)
    rto_s = rto_us / 1e6
    timer = timer_of(sock)
    if timer is None:  # as it would be if all could leave this machine
        (sent_ms,) = struct.unpack_from("=I", info, _TCP_INFO_LAST_SENT)
        timer = REPEATS, max(0.0, rto_s - sent_ms / 1e3)
    kind, left_s = timer
    if kind != REPEATS:
        return 0.0, 0.0
    # Each of the waits before this one was half as long as the next (RFC 6298, 5.5).
    waited_s = rto_s * (1 - 0.5**doubled)
    return left_s, waited_s + max(0.0, rto_s - left_s)


def silence_of(sock: socket.socket) -> float:
    """Return for how many seconds ``sock`` has got neither data nor an acknowledgement.

    By the kernel's own clock, which a process that was stopped has not missed. Raises OSError.
    """
    info = _tcp_info(sock)
    (data_ms,) = struct.unpack_from("=I", info, _TCP_INFO_LAST_DATA_RECEIVED)
    (ack_ms,) = struct.unpack_from("=I", info, _TCP_INFO_LAST_ACK_RECEIVED)
    return float(min(data_ms, ack_ms) / 1000)


def is_listening(sock: socket.socket) -> bool:
    """Whether ``sock`` waits for connections."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def _first_connection(process: ProcessSockets) -> tuple[int, int] | None:
    """Return number and inode of the oldest connection that no listener here accepted."""
    listening: set[int] = set()
    connected: list[tuple[int, int, int]] = []
    for descriptor, sock in process.borrow_all():
        with suppress(OSError):
            local_port = sock.getsockname()[1]
            if is_listening(sock):
                listening.add(local_port)
            elif _tcp_info(sock)[_TCP_INFO_STATE] == _TCP_ESTABLISHED:
                connected.append((descriptor, os.fstat(sock.fileno()).st_ino, local_port))
    # The lowest number is the oldest: ssh opens its transport before it forwards anything.
    return next(((fd, inode) for fd, inode, port in connected if port not in listening), None)


def _descendants(pid: int) -> Iterator[int]:
    """Yield ``pid`` and all processes below it, nearest first."""
    waiting = deque([pid])
    while waiting:
        current = waiting.popleft()
        yield current
        waiting.extend(_children(current))


def _children(pid: int) -> list[int]:
    """Return the children of ``pid`` (proc(5), ``task/TID/children``); none if it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                words = (thread / "children").read_text(encoding="ascii").split()
                found += [int(word) for word in words]
    return sorted(found)


def _tcp_info(sock: socket.socket) -> bytes:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LENGTH)
    # An old kernel (before 4.1) knows fewer fields; what it does not say is zero.
    return info.ljust(_TCP_INFO_LENGTH, b"\0")


def _pidfd_getfd(pidfd: int, descriptor: int) -> int | None:
    """Return a duplicate (close-on-exec) of another process's descriptor, or None."""
    import ctypes

    duplicate = int(ctypes.CDLL(None).syscall(_SYS_PIDFD_GETFD, pidfd, descriptor, 0))
    return duplicate if duplicate >= 0 else None

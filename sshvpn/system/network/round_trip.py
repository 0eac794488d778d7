"""Whether an address answers, and how fast, found out without privilege.

::

    each second   ICMP echo ──► reply                             an answer
                  TCP SYN ────► SYN-ACK, RST                      an answer
                                ICMP error, from that address     an answer
                                ICMP error, from anybody else     no answer can come to this one

The echo goes over a ping socket (icmp(7)), where net.ipv4.ping_group_range lets this user have
one; the SYN to a port that is most likely closed, at once, or only where the echo is not answered.
All are heard until the first answer. An RST does not tell who sent it: a firewall that forges one
is taken for the address itself.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
import time
from contextlib import suppress
from typing import Any, ClassVar

from sshvpn.frozen import dataclass
from sshvpn.system.network.neighbours import DISCARD, keep_to_link
from sshvpn.waiting import within

_SPARED_S = 0.25
"""After this without an echo a SYN follows, where that is spared."""
_EVERY_S = 1.0
"""As ping(8) does. A SYN is sent again by the kernel after as long (RFC 6298, 2.1)."""
_NEVER = float("inf")
_PAYLOAD = bytes(56)
"""As long as that of ping(8), so that both measure the same."""

_ECHO_REQUEST, _ECHO_REQUEST6 = 8, 128
_ECHO_REPLY, _ECHO_REPLY6 = 0, 129
_SO_TIMESTAMPNS = 35
"""asm-generic/socket.h: the kernel's time of arrival, a timespec of CLOCK_REALTIME."""
_RECVERR = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
"""IP_RECVERR of ip(7), IPV6_RECVERR of ipv6(7)."""
_FROM_ICMP = (2, 3)
"""SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6 (linux/errqueue.h)."""
_OFFENDER = {socket.AF_INET: slice(20, 24), socket.AF_INET6: slice(24, 40)}
"""Where its address is: a sockaddr behind the 16 bytes of struct sock_extended_err."""
_ROOM = 512


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked, and how: from the address ``source``, or by the adapter's own link alone.

    ``is_sparing``: a SYN is sent only where an echo has not been enough.
    """

    address: str
    source: str | None = None
    interface: str | None = None
    is_sparing: bool = False

    @property
    def family(self) -> socket.AddressFamily:
        """The family of the address."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    @property
    def packed(self) -> bytes:
        """The address as it stands in a packet."""
        return ipaddress.ip_address(self.address).packed


async def round_trip_s(target: Target, timeout_s: float) -> float | None:
    """Return how long ``target`` took to answer, in seconds.

    None after ``timeout_s``, and as soon as no answer can come any more. Leaves no socket open,
    cancelled or not.
    """
    race = _Race(target)
    try:
        return await race.run(timeout_s)
    finally:
        race.close()


class _Try:
    """One packet on a socket of its own, until it is answered or ``is_over``."""

    kind: ClassVar[int]
    is_repeated: ClassVar[bool]
    """Whether the kernel sends it again, so that a late answer may be to a later packet."""

    def __init__(self, target: Target) -> None:
        """Open the socket. Raises OSError where the kernel does not give one."""
        self.target = target
        self.is_over = False
        self.sent_at = 0.0
        kind = self.kind | socket.SOCK_NONBLOCK
        self.sock = socket.socket(target.family, kind, self.protocol(target.family))
        try:
            self.sock.setsockopt(*_RECVERR[target.family], 1)
            if target.interface is not None:
                keep_to_link(self.sock, target.interface)
            if target.source is not None:
                self.sock.bind(_where(target.source, 0))
        except BaseException:
            self.sock.close()
            raise

    @staticmethod
    def protocol(family: socket.AddressFamily) -> int:
        """Return the protocol of the socket."""
        raise NotImplementedError

    def send(self) -> None:
        """Send the packet; what could not be sent at all is over."""
        raise NotImplementedError

    def read(self) -> float | None:
        """Return the time to the answer, if it is there by now. Never blocks."""
        offender = _offender(self.sock, self.target.family)
        if offender is None:
            return self.answer()
        self.is_over = True
        return self.elapsed() if offender == self.target.packed else None

    def answer(self) -> float | None:
        """Return the time to an answer that is no ICMP error, if it is there."""
        raise NotImplementedError

    def elapsed(self) -> float:
        """Return how long ago the packet was sent."""
        return time.monotonic() - self.sent_at


class _Echo(_Try):
    kind = socket.SOCK_DGRAM
    is_repeated = False

    @staticmethod
    def protocol(family: socket.AddressFamily) -> int:
        return socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP

    def send(self) -> None:
        is_ipv6 = self.target.family == socket.AF_INET6
        request = _ECHO_REQUEST6 if is_ipv6 else _ECHO_REQUEST
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.sent_at = time.monotonic()
        try:
            # The kernel fills in the identifier and the checksum.
            self.sock.sendto(bytes([request, *bytes(7)]) + _PAYLOAD, _where(self.target.address, 0))
        except OSError as error:
            # A queue that is full drops one packet, and may take the next.
            self.is_over = error.errno not in (errno.ENOBUFS, errno.EAGAIN)

    def answer(self) -> float | None:
        try:
            data, ancillary, _, peer = self.sock.recvmsg(_ROOM, _ROOM)
        except BlockingIOError:
            return None
        except OSError:
            self.is_over = True
            return None
        # A ping socket hears all replies that bear its identifier, whoever sends them.
        is_reply = data[:1] in (bytes([_ECHO_REPLY]), bytes([_ECHO_REPLY6]))
        if not is_reply or ipaddress.ip_address(peer[0]).packed != self.target.packed:
            return None
        self.is_over = True
        elapsed = self.elapsed()
        return elapsed - min(max(_age(ancillary), 0.0), elapsed)


class _Syn(_Try):
    kind = socket.SOCK_STREAM
    is_repeated = True

    @staticmethod
    def protocol(family: socket.AddressFamily) -> int:  # noqa: ARG004 - the same for both
        return socket.IPPROTO_TCP

    def send(self) -> None:
        # Should somebody accept it: end it by RST, and keep nothing of it in the kernel.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sent_at = time.monotonic()
        code = self.sock.connect_ex(_where(self.target.address, DISCARD))
        self.is_over = code not in (0, errno.EINPROGRESS)

    def answer(self) -> float | None:
        elapsed = self.elapsed()
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            try:
                self.sock.getpeername()
            except OSError:
                return None  # it is still on its way
        self.is_over = True
        # Since Linux 5.8 an ICMP error is in the queue of errors, so that this is an RST.
        return elapsed if code in (0, errno.ECONNREFUSED, errno.ECONNRESET) else None


class _Race:
    """All packets that may be answered. Must be closed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tries: list[_Try] = []
        self._has_news = asyncio.Event()
        self._late: float | None = None

    async def run(self, timeout_s: float) -> float | None:
        now = time.monotonic()
        deadline, next_round, syn_at = now + timeout_s, now, _NEVER
        while now < deadline:
            if now >= next_round:
                if self._late is not None:
                    break
                has_echo = self._send(_Echo)
                next_round = now + _EVERY_S
                syn_at = now + _SPARED_S if has_echo and self._target.is_sparing else now
            if now >= syn_at:
                self._send(_Syn)
                syn_at = _NEVER
            self._has_news.clear()
            answered = self._read()
            if answered is not None:
                return answered
            if self._tries:
                with suppress(asyncio.TimeoutError):
                    wait_s = min(deadline, next_round, syn_at) - time.monotonic()
                    await within(max(wait_s, 0.0), self._has_news.wait())
            elif syn_at < _NEVER:
                syn_at = now
            else:
                break
            now = time.monotonic()
        return self._late

    def _send(self, kind: type[_Try]) -> bool:
        """Send one packet; whether it is on its way."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # no ping sockets for this user, or not our address
            one = kind(self._target)
            self._tries.append(one)
            add = loop.add_writer if kind is _Syn else loop.add_reader
            one.send()
            add(one.sock, self._has_news.set)
            return not one.is_over
        return False

    def _read(self) -> float | None:
        """Return the time to an answer; what is over is let go."""
        for one in list(self._tries):
            elapsed = None if one.is_over else one.read()
            if elapsed is not None:
                if not one.is_repeated or elapsed < _EVERY_S:
                    return elapsed
                # It may be to the kernel's second packet: one that is certain is better.
                self._late = self._late or elapsed
            if one.is_over:
                self._drop(one)
        return None

    def _drop(self, one: _Try) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(one.sock)
        loop.remove_writer(one.sock)
        one.sock.close()
        self._tries.remove(one)

    def close(self) -> None:
        for one in list(self._tries):
            self._drop(one)


def _where(address: str, port: int) -> Any:
    """Return the sockaddr of a numeric address, with its zone if it has one."""
    found = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    return found[0][4]


def _age(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Return how many seconds ago the kernel received it; 0 where it does not say."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("@ll", data)
            return float(time.time_ns() - seconds * 1_000_000_000 - nanoseconds) / 1e9
    return 0.0


def _offender(sock: socket.socket, family: socket.AddressFamily) -> bytes | None:
    """Return who sent the ICMP error that waits for ``sock``, None where there is no error.

    Empty: the error was made by this machine without any packet.
    """
    try:
        _, ancillary, _, _ = sock.recvmsg(_ROOM, _ROOM, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) == _RECVERR[family]:
            return data[_OFFENDER[family]] if data[4] in _FROM_ICMP else b""
    return b""

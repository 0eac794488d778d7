"""The pump: packets between a tun and ssh's pipes, one process at each end of a connection.

::

    tun ──> FairQueue ──> frames ──> output ═══ ssh ═══> input ──> Decoder ──> tun
                ^ Window: no more than the path holds              (the other end's)

It is handed its descriptors and needs no privilege. It ends when its input ends, when the peer
says END, when the device goes, or when it is told to (its control pipe ends, SIGTERM).

Runs on the server too: Python 3.6, the standard library alone (see sshvpn.stream.program).
"""

import contextlib
import errno
import fcntl
import os
import select
import time
from typing import List, Optional, Sequence, Tuple, Union

from sshvpn.stream.device import (
    PumpError,
    set_offloads,
)
from sshvpn.stream.frames import (
    ANSWER,
    END,
    HEADER,
    HELLO,
    LARGEST_PACKET,
    PACKET,
    PROBE,
    TAKES_UDP_SEGMENTS,
    TOKEN,
    VIRTIO,
    Decoder,
    FrameError,
    Hello,
    Opening,
    OpeningError,
    frame,
    hello,
    packet_header,
    read_hello,
)
from sshvpn.stream.queues import FairQueue, Window

_F_SETPIPE_SZ = 1031
_PIPE_SIZE = 1 << 18
"""Of each of the two. A user may have 64 MiB of pipes (pipe-user-pages-soft of proc(5)): a hundred
tunnels; whatever has pipes after that gets two pages for each. And what stands in a pipe stands
before a ping: with a megabyte it takes a fifth longer."""
_HEADER_SIZE = HEADER.size
_PROBE_SIZE = HEADER.size + TOKEN.size
_SMALLEST_READ = VIRTIO.size + 20
_LARGEST_READ = VIRTIO.size + LARGEST_PACKET + 1
_AT_ONCE = 64
"""Packets that are read before anything is sent."""
_LOOKED_FOR = 4
"""After each of so many it is looked whether there is one more: a read that finds nothing costs
five times as much. Behind more than that there is most likely another one."""
_BATCH = 1 << 17
"""Bytes that are handed to ssh at once, about."""
_ARENA = _BATCH + _AT_ONCE * _PROBE_SIZE + _HEADER_SIZE + _LARGEST_READ
"""Bytes of one batch: as long as it is not full, there is room for one more packet."""
_MOST_PIECES = 1024
"""IOV_MAX: writev(2) takes no more."""
_MOST_CONTROLS = 4096
"""Answers that wait to be sent; a peer that makes more of them does not read."""


# The pump -----------------------------------------------------------------------------------


class Pump:
    """Moves packets until it ends. Owns the descriptors, which it makes non-blocking.

    ``nonce`` is that of the opening line to wait for, None where the peer begins with frames.
    Anything that can be read of ``controls``, or their end, means: say END, and stop.
    """

    def __init__(
        self,
        tun: int,
        source: int,
        sink: int,
        *,
        controls: Sequence[int] = (),
        nonce: Optional[str] = None,
    ) -> None:
        self._tun, self._source, self._sink = tun, source, sink
        self._opening = None if nonce is None else Opening(nonce)
        self._decoder = Decoder()
        self._queue = FairQueue()
        self._window = Window()
        self._unsent: List[Union[bytes, memoryview]] = []
        self._controls: List[bytes] = []
        self._arena = bytearray(_ARENA)
        self._arena_view = memoryview(self._arena)
        self._is_open = False
        self._is_blocked = False  # until poll(2) tells of room in the sink
        self.peer: Optional[Hello] = None
        for descriptor in (tun, source, sink):
            os.set_blocking(descriptor, False)
        for pipe in (source, sink):
            # No pipe, or this user has too many large ones: as it is then.
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_SIZE)
        reading = [(one, select.POLLIN) for one in (tun, source, *controls)]
        self._look = _poller([(tun, select.POLLIN)])
        self._idle = _poller(reading)
        self._waiting = _poller([*reading, (sink, select.POLLOUT)])

    def greet(self) -> None:
        """Say HELLO; the kernel's offloads are set as far as they are known to be taken."""
        knows_udp = set_offloads(self._tun, takes_udp=False)
        self._controls.append(hello(TAKES_UDP_SEGMENTS if knows_udp else 0))

    def say(self, line: bytes) -> None:
        """Send LINE before all else."""
        self._controls.append(line)

    def run(self) -> None:
        """Move packets; returns at an orderly end. Raises PumpError, FrameError, OpeningError."""
        while self.step():
            pass

    def step(self) -> bool:
        """Wait for something to do, do it, and return whether to go on."""
        try:
            return self._step()
        except PumpError as error:
            if error.code == "cut" and self._has_ended():
                return False
            raise

    def _has_ended(self) -> bool:
        """Whether the peer has said END: we may have been writing when it went away."""
        try:
            return not all(self._take_frames() for _ in range(_AT_ONCE))
        except (PumpError, FrameError, OpeningError):
            return False

    def _step(self) -> bool:
        if not self._is_blocked:
            self._send()
        poller = self._waiting if self._unsent else self._idle
        for descriptor, event in poller.poll():
            if descriptor == self._tun:
                continue
            if descriptor == self._source:
                if not self._take_frames():
                    return False
            elif descriptor != self._sink:
                self._say_end()
                return False
            elif event & (select.POLLERR | select.POLLHUP):
                raise PumpError("cut", "the connection takes nothing any more")
            else:
                self._is_blocked = False
        # Last, and always: what was just given to the kernel may be acknowledged already, and an
        # acknowledgement that goes with our answer costs ssh and sshd no packet of its own.
        self._take_packets()
        return True

    # To the peer ------------------------------------------------------------------------

    def _take_packets(self) -> None:
        """Read what the device has; where nothing waits, it need not go through the queue."""
        room = self._direct_room()  # whatever is found: the window learns how full it was by it
        found = self._look.poll(0)
        if not found:
            return
        try:
            if room > 0:
                self._read_to_send(room)
            else:
                self._read_to_queue()
        except BlockingIOError:
            if found[0][1] & (select.POLLERR | select.POLLHUP):
                raise PumpError("no_device", "the device has gone") from None
        except OSError as error:
            raise PumpError("no_device", f"the device: {error.strerror}") from error

    def _direct_room(self) -> int:
        """Return how many bytes may go past the queue: none where anything waits before them."""
        if not self._is_open or self._unsent or self._queue.size:
            return 0
        self._add_controls()
        return min(self._window.room(), _BATCH)

    def _read_to_send(self, room: int) -> None:
        """Read packets, framed, into the arena, one behind the other: they are one piece to send.

        It is theirs until nothing is unsent any more.
        """
        tun, arena, view, now = self._tun, self._arena, self._arena_view, time.monotonic()
        readv, look, note_sent = os.readv, self._look.poll, self._window.note_sent
        end = 0
        try:
            for number in range(_AT_ONCE):
                begin = end + _HEADER_SIZE
                count = readv(tun, [view[begin : begin + _LARGEST_READ]])
                if _SMALLEST_READ <= count < _LARGEST_READ:
                    arena[end:begin] = packet_header(count)
                    token = note_sent(_HEADER_SIZE + count, now)
                    room -= _HEADER_SIZE + count
                    end = begin + count
                    if token is not None:
                        arena[end : end + _PROBE_SIZE] = frame(PROBE, TOKEN.pack(token))
                        end += _PROBE_SIZE
                if room <= 0 or (number < _LOOKED_FOR and not look(0)):
                    return
        finally:
            if end:
                self._unsent.append(view[:end])

    def _read_to_queue(self) -> None:
        now = time.monotonic()
        read, tun, put, is_open = os.read, self._tun, self._queue.put, self._is_open
        look = self._look.poll
        for number in range(_AT_ONCE):
            data = read(tun, _LARGEST_READ)
            if is_open and _SMALLEST_READ <= len(data) < _LARGEST_READ:
                put(data, now)
            if number < _LOOKED_FOR and not look(0):
                return

    def _send(self) -> None:
        """Hand over to ssh what there is, as far as it may be and is taken."""
        while self._write():
            self._add_controls()
            if self._queue.size:
                self._add_packets()
            if not self._unsent:
                return

    def _add_controls(self) -> None:
        if self._controls:
            self._unsent += self._controls
            self._controls = []

    def _add_packets(self) -> None:
        room, now = min(self._window.room(), _BATCH), time.monotonic()
        take, note_sent, unsent = self._queue.take, self._window.note_sent, self._unsent
        while room > 0 and len(unsent) < 2 * _AT_ONCE:
            data = take(now)
            if data is None:
                break
            size = _HEADER_SIZE + len(data)
            room -= size
            unsent += (packet_header(len(data)), data)
            # Behind each packet, not each batch: a window that went with one probe would be
            # answered at once, and go at once again, and what it took would be its own length.
            token = note_sent(size, now)
            if token is not None:
                unsent.append(frame(PROBE, TOKEN.pack(token)))

    def _write(self) -> bool:
        """Write what is unsent; return whether nothing is any more."""
        unsent = self._unsent
        if not unsent:
            return True
        try:
            count = os.writev(self._sink, unsent[:_MOST_PIECES])
        except BlockingIOError:
            self._is_blocked = True
            return False
        except OSError as error:
            if self._opening is not None:  # it never began: why, stands in what it has said
                del unsent[:]
                return True
            raise PumpError("cut", f"the connection has gone: {error.strerror}") from error
        done = 0
        for piece in unsent:
            if count < len(piece):
                break
            count -= len(piece)
            done += 1
        del unsent[:done]
        if unsent and count:
            unsent[0] = memoryview(unsent[0])[count:]
        self._is_blocked = bool(unsent)
        return not unsent

    def _say_end(self) -> None:
        """Say END where that is possible at once: behind half a frame it is not."""
        if self._write():
            self._unsent = [frame(END)]
            self._write()

    # From the peer ----------------------------------------------------------------------

    def _take_frames(self) -> bool:
        room = self._decoder.room()
        if self._opening is not None:
            room = room[:4096]  # what follows the line must fit, whatever comes before it
        try:
            count = os.readv(self._source, [room])
        except BlockingIOError:
            return True
        except OSError as error:
            raise PumpError("cut", f"the connection has gone: {error.strerror}") from error
        if not count:
            raise self._cut()
        if self._opening is not None:
            rest = self._opening.feed(bytes(room[:count]))
            if rest is None:
                return True
            self._opening = None
            count = len(rest)
            self._decoder.room()[:count] = rest
        return self._take(count)

    def _cut(self) -> Exception:
        if self._opening is not None:
            return self._opening.cut()
        if self._decoder.is_between:
            return PumpError("cut", "the other end went away without a word")
        return FrameError("the connection was cut in the middle of a frame")

    def _take(self, count: int) -> bool:
        tun, write, packet = self._tun, os.write, PACKET
        for kind, body in self._decoder.feed(count):
            if kind == packet:
                try:
                    write(tun, body)
                except OSError as error:
                    self._excuse(error)
            elif kind == PROBE:
                self._controls.append(frame(ANSWER, bytes(body)))
                if len(self._controls) > _MOST_CONTROLS:
                    raise FrameError("more probes than are answered")
            elif kind == ANSWER:
                (token,) = TOKEN.unpack(body)
                if not self._window.note_answer(token, time.monotonic()):
                    raise FrameError("an answer to nothing")
            elif kind == HELLO:
                self._begin(read_hello(body))
            else:
                return False
        return True

    def _begin(self, peer: Hello) -> None:
        set_offloads(self._tun, takes_udp=bool(peer.features & TAKES_UDP_SEGMENTS))
        self._is_open = True
        self.peer = peer

    @staticmethod
    def _excuse(error: OSError) -> None:
        """Raise PumpError, but not for a packet that the kernel does not want.

        EIO: the device is not up yet. EINVAL: a header that only this kernel does not like.
        """
        if error.errno in (errno.EBADF, errno.EBADFD, errno.ENODEV):
            raise PumpError("no_device", "the device has gone") from error

    def account(self) -> str:
        """Return what it has not carried, and how the path was, for a log."""
        window = self._window
        return (
            f"{self._queue.dropped} dropped, {self._decoder.refused} refused, "
            f"window {window.limit} bytes, "
            f"round trip {window.round_trip_s * 1e3:.1f} ms, at least {window.base_s * 1e3:.1f}"
        )


def _poller(descriptors: List[Tuple[int, int]]) -> select.poll:
    poller = select.poll()
    for descriptor, events in descriptors:
        poller.register(descriptor, events)
    return poller

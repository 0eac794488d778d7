"""Pumps between sockets: a seqpacket socket stands for the tun, and refuses all offloads.

::

    here ── pump ── pipe ══ pipe ── pump ── there
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from sshvpn.stream import frames
from sshvpn.stream.device import PumpError
from sshvpn.stream.frames import Decoder, FrameError, OpeningError
from sshvpn.stream.pump import Pump
from tests.unit.stream.packets import ip4, udp, virtio

NONCE = "0123456789abcdef"
PLAIN = virtio() + ip4(17, udp(b"hello"))


class End:
    """A pump that runs in a thread of its own, and the machine behind its tun."""

    def __init__(self, source: int, sink: int, *, nonce: str | None = None) -> None:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.machine, self._tun = pair
        for sock in pair:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.machine.settimeout(10)
        control, self._control = os.pipe()
        self.descriptors = [source, sink, control]
        self.pump = Pump(self._tun.fileno(), source, sink, nonce=nonce, controls=[control])
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.pump.greet()
        self._thread.start()

    def _run(self) -> None:
        try:
            self.pump.run()
        except (PumpError, FrameError, OpeningError) as error:
            self.error = error
        for descriptor in self.descriptors[:2]:  # as the end of its process does
            os.close(descriptor)

    def stop(self) -> None:
        """Tell it to end."""
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def wait(self) -> Exception | None:
        """Wait for its end, and return the error that it ended with."""
        self._thread.join(10)
        assert not self._thread.is_alive(), "it hangs"
        return self.error

    def close(self) -> None:
        self.stop()
        self.wait()
        self._tun.close()
        self.machine.close()
        os.close(self.descriptors[2])


class Pair:
    """Two ends, and what lies between them: pipes."""

    def __init__(self) -> None:
        there_in, here_out = os.pipe()
        here_in, there_out = os.pipe()
        self.here = End(here_in, here_out, nonce=NONCE)
        self.there = End(there_in, there_out)
        self.there.pump.say(b"Welcome!\n" + frames.opening(NONCE))
        for end in (self.here, self.there):
            end.start()
        for end in (self.here, self.there):  # what comes before the other's HELLO is dropped
            assert eventually(lambda pump=end.pump: pump.peer is not None)  # type: ignore[misc]


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


class Peer:
    """An end made by hand: what it writes the pump reads."""

    def __init__(self, *, nonce: str | None = None, hello: bool = True) -> None:
        source, self.out = os.pipe()
        self.back, sink = os.pipe()
        self.end = End(source, sink, nonce=nonce)
        self.end.start()
        if hello:
            self.say(frames.hello(0))

    def say(self, data: bytes) -> None:
        os.write(self.out, data)

    def hear(self, kind: int) -> bytes:
        """Return the body of the next frame of KIND, once: what came with it is lost."""
        return next(self.bodies(kind))

    def bodies(self, kind: int) -> Iterator[bytes]:
        """Yield the body of each frame of KIND that comes, from HELLO on."""
        decoder = Decoder()
        while True:
            count = os.readv(self.back, [decoder.room()])
            assert count, "it said nothing more"
            for found, body in decoder.feed(count):
                if found == kind:
                    yield bytes(body)

    def ended(self) -> str:
        error = self.end.wait()
        self.close()
        return "" if error is None else str(error)

    def close(self) -> None:
        for descriptor in (self.out, self.back):
            os.close(descriptor)
        self.end.close()

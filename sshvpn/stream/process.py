"""The pump as a process, one at each end: what it is told, what it tells, and its end.

Runs on the server too: Python 3.6, the standard library alone (see sshvpn.stream.program).
"""

import contextlib
import os
import signal
import sys

from sshvpn.stream.device import PumpError, clear_offloads, flags_of, give_back, open_tun
from sshvpn.stream.frames import FrameError, OpeningError, opening, refusal
from sshvpn.stream.pump import Pump

_LONGEST_LINE = 64


def serve(nonce: str, queues: str) -> int:
    """Be the server's end: frames on the standard input and output; return the exit code.

    A line goes before them that names the device. QUEUES is ``many`` where it has several.
    """
    device = _line(0).decode("ascii", "replace")
    if not device:
        return 1
    flags = flags_of(device)
    try:
        tun = open_tun(device, is_many=queues == "many")
    except PumpError as error:
        os.write(1, refusal(nonce, error.code, str(error)))
        return 1
    pump = Pump(tun, 0, 1, controls=[_signals()])
    pump.say(opening(nonce))
    try:
        text = _run(pump)
    finally:
        give_back(device, tun, flags)
    if text:
        sys.stderr.write(text + "\n")
    return 1 if text else 0


def pump_local(tun: int, source: int, sink: int, nonce: str) -> int:
    """Be this machine's end; what becomes of it is told in lines on the standard output.

    ``ready`` once packets are carried, ``account TEXT`` and ``end``, or ``error CODE TEXT``,
    at last. It begins with a line on the standard input that names the server's device, and the
    end of that ends it. Returns the exit code.
    """
    device = _line(0)
    if not device:
        return 0
    os.set_blocking(sink, True)  # the program may still stand in the pipe, and fill it
    with contextlib.suppress(BrokenPipeError):  # what came of it is told by the other pipe
        os.write(sink, device + b"\n")
    pump = Pump(tun, source, sink, nonce=nonce, controls=[0, _signals()])
    text = _run(pump, is_local=True)
    clear_offloads(tun)
    _tell("account " + pump.account())
    _tell("error " + text if text else "end")
    return 1 if text else 0


def _line(descriptor: int) -> bytes:
    """Return the next line, byte by byte: what is behind it is not ours. b"" at the end."""
    line = b""
    while len(line) <= _LONGEST_LINE:
        piece = os.read(descriptor, 1)
        if piece == b"\n":
            return line
        if not piece:
            break
        line += piece
    return b""


def _run(pump: Pump, *, is_local: bool = False) -> str:
    """Run it to its end, and return "CODE TEXT", or nothing where it ended as it should."""
    _be_patient()
    try:
        pump.greet()
        while pump.peer is None:
            if not pump.step():
                return ""
        if is_local:
            _tell("ready")
        pump.run()
    except PumpError as error:
        return f"{error.code} {error}"
    except FrameError as error:
        return f"frame {error}"
    except OpeningError as error:
        return "{} {}".format(error.code or "noise", error)
    return ""


def _be_patient() -> None:
    """Take no core from ssh, or whoever else works, just because there is something to read.

    Where all cores are busy the pump would be woken for each 32 KiB that sshd has taken of its
    pipe, to find room for one packet. So it finds room for several; and where a core is idle it
    is woken at once all the same (sched(7), SCHED_BATCH).
    """
    with contextlib.suppress(OSError):  # the sandbox of a service does not let it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # else it is somebody's choice
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _signals() -> int:
    """Return a descriptor that can be read once somebody wants this process to end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return reading


def _tell(line: str) -> None:
    text = "".join(letter if letter.isprintable() else "?" for letter in line)
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(1, text.encode("utf-8", "replace") + b"\n")

"""What is delivered to a server runs on the old Pythons that this machine has, if it has any."""

from __future__ import annotations

import functools
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from sshvpn.stream import program

OLDER = range(program.OLDEST_PYTHON[1], 10)

# Two pumps, each with a socket for its tun, joined by pipes; 3.6 has to understand it.
TALK = """
import os, socket, sys, threading, time
def pair():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
there_in, here_out = os.pipe()
here_in, there_out = os.pipe()
here, here_tun = pair()
there, there_tun = pair()
stop_reading, stop = os.pipe()
nonce = "0123456789abcdef"
ours = Pump(here_tun.fileno(), here_in, here_out, nonce=nonce, controls=[stop_reading])
theirs = Pump(there_tun.fileno(), there_in, there_out)
theirs.say(b"Welcome!\\n" + opening(nonce))
threads = [threading.Thread(target=one.run) for one in (ours, theirs)]
for pump, thread in zip((ours, theirs), threads):
    pump.greet()
    thread.start()
while ours.peer is None or theirs.peer is None:
    time.sleep(0.001)
header = bytes(10)
ipv4 = bytes([0x45]) + bytes(8) + bytes([17]) + bytes(2) + bytes([10, 0, 0, 1, 10, 0, 0, 2])
for number in range(500):
    data = header + ipv4 + os.urandom(4 + 97 * (number % 14))
    total = len(data) - len(header)
    data = data[:12] + bytes([total >> 8, total & 255]) + data[14:]
    for sender, receiver in ((here, there), (there, here)):
        sender.send(data)
        assert receiver.recv(1 << 17) == data, number
os.close(stop)
for thread in threads:
    thread.join(10)
    assert not thread.is_alive()
print("ok", sys.version_info[1])
"""


@functools.cache
def python(minor: int) -> str | None:
    """Return a Python 3.MINOR that runs."""
    known = Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python")
    for path in (shutil.which(f"python3.{minor}"), *map(str, sorted(known))):
        if path is not None:
            words = [path, "-ISc", "import sys; print(*sys.version_info[:2])"]
            told = subprocess.run(words, capture_output=True, text=True, check=False)
            if told.stdout == f"3 {minor}\n":
                return path
    return None


@pytest.mark.parametrize("minor", OLDER)
def test_packets_cross_between_two_pumps_of_an_old_python(minor: int) -> None:
    found = python(minor)
    if found is None:
        pytest.skip(f"no Python 3.{minor} here")
    text = zlib.decompress(program.delivery()).decode()
    done = subprocess.run(
        [found, "-IS", "-"],
        input=text + TALK,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"ok {minor}\n", "")

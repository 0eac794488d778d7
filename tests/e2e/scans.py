"""What a machine reaches of others: scans of ports by TCP and UDP, and how thorough they were."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Final

from tests.e2e.vpn import counted
from tests.lab import LabMachine

TCP: Final = "tcp"
UDP: Final = "udp"
BOTH: Final = (TCP, UDP)
PORTS: Final = (22, 53, 80, 7000, 7001, 7002, 7100, 8000, 8080, 8888)
EVERY_PORT: Final = 65_535
"""How many ports there are; none is 0."""

Place = tuple[str, int, str]
"""Address, port, protocol."""
Places = set[Place]

_SCAN: Final = """
import contextlib, errno, itertools, json, select, socket, sys, time
addresses, ports, wait = json.loads(sys.argv[1])
targets = list(itertools.product(addresses, ports))
found, pending, poll = [], {}, select.poll()
asking = {}
for family in (socket.AF_INET, socket.AF_INET6):
    sock = asking[family == socket.AF_INET6] = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
def ask():
    for target in targets:
        with contextlib.suppress(OSError):
            asking[":" in target[0]].sendto(b"anybody there?", target)
ask()
for target in targets:
    sock = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
    sock.setblocking(False)
    if sock.connect_ex(target) in (0, errno.EINPROGRESS):
        pending[sock.fileno()] = sock, target
        poll.register(sock, select.POLLOUT)
ask()
deadline = time.monotonic() + wait
while pending and (left := deadline - time.monotonic()) > 0:
    for number, _ in poll.poll(left * 1000):
        sock, target = pending.pop(number)
        poll.unregister(sock)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            found.append((*target, "tcp"))
time.sleep(max(0, deadline - time.monotonic()))
for sock in asking.values():
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append((*sock.recvfrom(100)[1][:2], "udp"))
print(json.dumps(found))
"""
_WAIT_S: Final = 0.5

# A SYN from a socket that the kernel knows nothing of: what is answered, it resets.
_SCAN_EVERY_PORT: Final = """
import contextlib, json, socket, struct, sys, time
addresses, rate, rounds, wait, burst = json.loads(sys.argv[1])
found = []
def words(data):
    return sum(struct.unpack(f"!{len(data) // 2}H", data))
def collect():
    with contextlib.suppress(BlockingIOError):
        while True:
            data, (host, *_) = sock.recvfrom(100)
            port, _, _, _, flags = struct.unpack_from("!HHIIH", data, header)
            if host == address and port in silent:
                silent.remove(port)
                if flags & 0x12 == 0x12:
                    found.append((host, port, "tcp"))
def ask():
    began = time.monotonic()
    for count, port in enumerate(list(silent), 1):
        total = base + port
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        syn = struct.pack("!HHIIHHHH", mine, port, 0, 0, 0x5002, 0xffff, ~total & 0xffff, 0)
        with contextlib.suppress(PermissionError, BlockingIOError):
            sock.sendto(syn, (address, 0))
        if not count % burst:
            collect()
            time.sleep(max(0, began + count / rate - time.monotonic()))
    deadline = time.monotonic() + wait
    while silent and time.monotonic() < deadline:
        time.sleep(0.01)
        collect()
for address in addresses:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    header = 20 if family == socket.AF_INET else 0
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect((address, 9))
        source = asked.getsockname()[0]
    ends = [socket.inet_pton(family, one) for one in (source, address)]
    mine = 1024 + time.monotonic_ns() % 60000
    base = sum(map(words, ends)) + socket.IPPROTO_TCP + 20 + mine + 0x5002 + 0xffff
    silent = set(range(1, 1 << 16))
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        for _ in range(rounds):
            ask()
print(json.dumps(found))
"""
_ROUNDS: Final = 3
"""What is lost on the way is sent again; who drops it all gets all of it."""
_FAST: Final = 1_000_000
_THROUGH_A_TUNNEL: Final = 25_000
"""SYNs a second, of which a tunnel loses none."""
_BURST: Final = 100


def at(addresses: Sequence[str], *ports: int, by: Sequence[str] = BOTH) -> Places:
    """Return each of PORTS at each of ADDRESSES."""
    return set(itertools.product(addresses, ports, by))


def scan(machine: LabMachine, addresses: Sequence[str]) -> Places:
    """Return where MACHINE can connect to, or is answered a datagram, of ADDRESSES and PORTS.

    Something answers datagrams only where a test lets it.
    """
    words = json.dumps([list(addresses), PORTS, _WAIT_S])
    return _places(machine.python(_SCAN, words))


def scan_every_port(
    machine: LabMachine, addresses: Sequence[str], *, rate: int = _FAST, rounds: int = _ROUNDS
) -> Places:
    """Return where MACHINE can connect to by TCP, of ADDRESSES and all their ports.

    It sends RATE SYNs a second, and ROUNDS times to whoever says nothing.
    """
    words = json.dumps([list(addresses), rate, rounds, _WAIT_S, _BURST])
    return _places(machine.python(_SCAN_EVERY_PORT, words, user="root", timeout=60))


def scan_past(guard: LabMachine, device: str, machine: LabMachine, address: str) -> Places:
    """Return what `scan_every_port` does; every SYN is seen to come to GUARD, by DEVICE.

    A busy machine may lose some on the way: then it is scanned again.
    """
    kind = "ip6" if ":" in address else "ip"
    rule = f'iifname "{device}" {kind} daddr {address} tcp flags syn'
    found: Places = set()
    for _ in range(_ROUNDS):
        with counted(guard, "prerouting", rule) as came:
            found |= scan_every_port(machine, [address], rate=_THROUGH_A_TUNNEL, rounds=1)
        if came == [EVERY_PORT]:
            return found
    raise AssertionError(f"of {EVERY_PORT} to {address} came {came}")


def _places(printed: str) -> Places:
    return {(address, port, protocol) for address, port, protocol in json.loads(printed)}

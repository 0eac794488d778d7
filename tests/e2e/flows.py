"""Flows that outlive an outage: bulk transfers whose bytes are checked, a kernel's websocket.

Both ends of a transfer are the same program here: it sends what a seed gives, at a pace, and
reports what the kernel knows of the flow (tcp(7), TCP_INFO).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

from tests.lab import Child, LabMachine
from tests.lab.process import read_line

_TRANSFER: Final = """
import hashlib, json, random, select, socket, struct, sys, threading, time

way, role, host, port, seed, count = sys.argv[1:3] + [sys.argv[3], *map(int, sys.argv[4:7])]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
if way == "listen":
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
        print("ready", flush=True)
        sock, _ = listener.accept()
else:
    sock = socket.create_connection((host, port), 20)
    sock.settimeout(None)
    print("connected", flush=True)
CHUNK, EVERY = 16384, 0.01
seen = {"sent": 0, "rto_ms": 0, "backoff": 0, "retransmits": 0, "arrivals": [],
        "repeats": []}
digest = hashlib.sha256()

def watch():
    repeated = 0
    while True:
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        except OSError:
            return
        seen["rto_ms"] = max(seen["rto_ms"], struct.unpack_from("=I", info, 8)[0] / 1000)
        seen["backoff"] = max(seen["backoff"], info[4])
        seen["retransmits"] = max(seen["retransmits"], info[2])
        (total,) = struct.unpack_from("=I", info, 100)
        if total != repeated:
            seen["repeats"].append(time.time())
        repeated = total
        time.sleep(0.1)

threading.Thread(target=watch, daemon=True).start()
if role == "send":
    source = random.Random(seed)
    while seen["sent"] != count and not select.select([sys.stdin], [], [], EVERY)[0]:
        piece = source.randbytes(CHUNK if count < 0 else min(CHUNK, count - seen["sent"]))
        digest.update(piece)
        sock.sendall(piece)
        seen["sent"] += len(piece)
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)
else:
    while piece := sock.recv(1 << 18):
        digest.update(piece)
        seen["arrivals"].append(time.time())
print(json.dumps({"sha256": digest.hexdigest(), **seen}), flush=True)
"""

BYTES_PER_S: Final = 16384 / 0.01
"""The pace at most: bulk, and not what fills a machine that others use, too."""


class Transfer:
    """Bytes on their way from one machine to another, as seen from both."""

    def __init__(
        self,
        client: LabMachine,
        server: LabMachine,
        address: str,
        port: int,
        *,
        up: bool,
        size: int | None = None,
    ) -> None:
        """Let CLIENT connect to SERVER's ADDRESS; UP: the client sends, else the server does.

        SIZE is in bytes; None: until `finish`.
        """
        self._seed = port
        self._size = size
        roles = ("send", "receive") if up else ("receive", "send")
        words = [sys.executable, "-u", "-c", _TRANSFER]
        rest = [address, str(port), str(self._seed), str(-1 if size is None else size)]
        self._server = server.popen([*words, "listen", roles[1], *rest], stdin=subprocess.PIPE)
        assert read_line(self._server, 10) == "ready\n"
        self._client = client.popen([*words, "connect", roles[0], *rest], stdin=subprocess.PIPE)
        assert read_line(self._client, 20) == "connected\n"
        self._sender = self._client if up else self._server
        self._receiver = self._server if up else self._client

    @property
    def is_going_on(self) -> bool:
        """Whether neither end has ended."""
        return self._client.poll() is None and self._server.poll() is None

    def finish(self, timeout: float = 120) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the sender and the receiver report, once every byte has been compared."""
        import random

        reports = []
        if self._size is None and self._sender.stdin is not None:
            self._sender.stdin.close()
            self._sender.stdin = None
        for child in (self._receiver, self._sender):
            out, err = child.communicate(timeout=timeout)
            assert child.returncode == 0, err
            reports.append(json.loads(out))
        source = random.Random(self._seed)  # noqa: S311 -- the bytes that were sent
        digest, left = hashlib.sha256(), reports[1]["sent"]
        assert left == self._size or self._size is None
        while left:
            piece = source.randbytes(min(16384, left))
            digest.update(piece)
            left -= len(piece)
        assert [report["sha256"] for report in reports] == [digest.hexdigest()] * 2
        return reports[1], reports[0]

    def end(self) -> None:
        """End both programs; twice is fine."""
        for child in (self._client, self._server):
            child.end()


_KERNEL: Final = """
import json, socket, sys, time, urllib.request, uuid, websocket

base, token, count, every = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
headers = {"Authorization": f"token {token}"}
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
request = urllib.request.Request(f"{base}api/kernels", data=b"{}", headers=headers, method="POST")
kernel = json.load(opener.open(request, timeout=20))["id"]
stream = websocket.create_connection(
    f"ws{base.removeprefix('http')}api/kernels/{kernel}/channels", header=headers, timeout=None,
    # This library gives up a silent connection after a minute; a browser does not.
    sockopt=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)],
)
code = f"for n in range({count}): print(n, flush=True), time.sleep({every})"
code = f"import time\\n{code}"
header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex,
          "msg_type": "execute_request", "version": "5.3"}
content = {"code": code, "silent": False, "store_history": False, "user_expressions": {},
           "allow_stdin": False, "stop_on_error": True}
stream.send(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content,
                        "channel": "shell", "buffers": []}))
while True:
    message = json.loads(stream.recv())
    kind, said = message["msg_type"], message["content"]
    if kind == "stream":
        for line in said["text"].split():
            print(line, time.time(), flush=True)
    if kind == "execute_reply":
        print(said["status"], time.time(), flush=True)
        break
stream.close()
"""


class Kernel:
    """A kernel of Jupyter that counts, seen over one websocket that is never opened again."""

    def __init__(
        self, machine: LabMachine, url: str, token: str, count: int, every_s: float
    ) -> None:
        """Let MACHINE start it at URL; it has printed its first number when this returns."""
        self._count = count
        words = [sys.executable, "-u", "-c", _KERNEL, url, token, str(count), str(every_s)]
        self._child = machine.popen(words)
        assert read_line(self._child, 40).split()[0] == "0", self._child.communicate()

    def finish(self, timeout: float = 120) -> list[float]:
        """Return when each number came, once all have, in order, and the kernel said ok."""
        out, err = self._child.communicate(timeout=timeout)
        assert self._child.returncode == 0, err
        lines = [line.split() for line in out.splitlines()]
        assert [word for word, _ in lines] == [*map(str, range(1, self._count)), "ok"]
        return [float(at) for _, at in lines]

    def end(self) -> None:
        """End the client; twice is fine."""
        self._child.end()


_CAPTURE: Final = """
import ipaddress, socket, struct, sys
but, networks = sys.argv[1], [ipaddress.ip_network(text) for text in sys.argv[2:]]
OUTGOING, EVERYTHING, SOL_PACKET, STATISTICS = 4, 3, 263, 6
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERYTHING)) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    print("ready", flush=True)
    while True:
        packet, (adapter, protocol, kind, *_) = sock.recvfrom(65535)
        if kind != OUTGOING or adapter == but:
            continue
        if protocol == 0x0800:
            target = ipaddress.ip_address(packet[16:20])
        elif protocol == 0x86DD:
            target = ipaddress.ip_address(packet[24:40])
        else:
            continue
        if any(target.version == one.version and target in one for one in networks):
            _, lost = struct.unpack("=II", sock.getsockopt(SOL_PACKET, STATISTICS, 8))
            if lost:
                print("and", lost, "packets were not seen")
            print(adapter, target, flush=True)
"""

# By packet(7), beside routing and the firewall, which would not let it go; to nobody's address.
_LEAK: Final = """
import ipaddress, pathlib, socket, sys
for path in pathlib.Path("/sys/class/net").iterdir():
    if path.name in ("lo", sys.argv[1]) or (path / "operstate").read_text().strip() != "up":
        continue
    for network in map(ipaddress.ip_network, sys.argv[2:]):
        target = network[-2]
        if target.version == 4:
            kind, packet = 0x0800, bytes([0x45, 0, 0, 20, 0, 1, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0])
        else:
            kind, packet = 0x86DD, bytes([0x60, 0, 0, 0, 0, 0, 59, 64]) + bytes(16)
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
            sock.sendto(packet + target.packed, (path.name, kind, 0, 0, bytes([2, 0, 0, 0, 0, 0])))
        print(path.name, target)
"""


@contextlib.contextmanager
def captured(machine: LabMachine, but: str, *networks: str) -> Iterator[list[str]]:
    """Capture what MACHINE sends to NETWORKS by any adapter but one (packet(7)).

    "ADAPTER ADDRESS" for each such packet, at the end. Then one to each of NETWORKS is let go by
    each other adapter that is up, and awaited: this capture would have seen it, and has read all.
    """
    words = [sys.executable, "-u", "-c", _CAPTURE, but, *networks]
    child: Child = machine.popen(words, user="root")
    found: list[str] = []
    try:
        assert read_line(child, 10) == "ready\n"
        yield found
        awaited = machine.python(_LEAK, but, *networks, user="root").splitlines()
        assert len(awaited) >= len(networks)
        while awaited:
            line = read_line(child, 10).strip()
            assert line, "the capture has ended"
            (awaited.remove if line in awaited else found.append)(line)
    finally:
        child.kill()
        child.communicate(timeout=10)

"""What crosses a link, and traffic of every kind to cross it. Runs inside a machine.

::

    _wire.py watch ADAPTER              until its input ends; then a line of JSON: how many packets
                                        came in, the largest ones (of IPv4, IPv6, and UDP), how
                                        many with checksums that were still to be filled in, and
                                        those that were wrong
    _wire.py send HOST TCP UDP SIZE     talk to the echo services; "ok", or what went wrong
    _wire.py flows HOST PORT FLOWS      numbered datagrams, in bursts, in so many flows
    _wire.py order PORT                 take them until the input ends; then a line of JSON: how
                                        many of each flow came, and which came too late
    _wire.py offloads ADAPTER no|tx|all  checksums and segmentation by the adapter (ethtool): none,
                                        of what is sent, or all
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import sys
import time

ALL, AUXDATA, SOL_PACKET, OUTGOING = 3, 8, 263, 4
NOT_READY = 0x8
"""The adapter is still to fill the checksum in (packet(7), TP_STATUS_CSUMNOTREADY)."""
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
EXTENSIONS = {0, 43, 60}
FRAGMENT = 44


def sum_of(data: bytes) -> int:
    """Return the Internet checksum of DATA, 0 where it holds its own (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total ^ 0xFFFF)


def fault(packet: bytes, *, is_ready: bool) -> str:
    """Return what is wrong with an IP packet, "" for nothing."""
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        total, _, fragment = struct.unpack_from("!HHH", packet, 2)
        if sum_of(packet[:size]):
            return "header"
        if fragment & 0x3FFF:
            return ""
        protocol, addresses, packet = packet[9], packet[12:20], packet[:total]
    else:
        size, protocol, addresses = 40, packet[6], packet[8:40]
        while protocol in EXTENSIONS:
            protocol, size = packet[size], size + (packet[size + 1] + 1) * 8
        if protocol == FRAGMENT:
            return ""
    upper = packet[size:]
    if not is_ready or protocol not in (TCP, UDP, ICMP, ICMP6):
        return ""
    if protocol == UDP and upper[6:8] == b"\0\0" and len(addresses) == 8:
        return ""
    pseudo = b"" if protocol == ICMP else addresses + struct.pack("!II", len(upper), protocol)
    return f"protocol {protocol}" if sum_of(pseudo + upper) else ""


def watch(adapter: str) -> None:
    """Look at all that comes in."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL)) as sock:
        sock.setsockopt(SOL_PACKET, AUXDATA, 1)
        sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        sock.bind((adapter, ALL))
        print("ready", flush=True)
        count, unready, wrong = 0, 0, []
        largest = {"4": 0, "6": 0, "udp": 0}
        while True:
            ready, _, _ = select.select([sock, sys.stdin], [], [])
            if sock not in ready:
                break
            data, more, _, address = sock.recvmsg(1 << 17, 256)
            if address[2] == OUTGOING or data[0] >> 4 not in (4, 6):
                continue
            status = next(struct.unpack_from("=I", value)[0] for _, _, value in more)
            is_ready = not status & NOT_READY
            count, unready = count + 1, unready + (not is_ready)
            is_4 = data[0] >> 4 == 4
            for kind in ("4" if is_4 else "6", *["udp"] * (data[9 if is_4 else 6] == UDP)):
                largest[kind] = max(largest[kind], len(data))
            if bad := fault(data, is_ready=is_ready):
                wrong.append([bad, data[:80].hex()])
    print(json.dumps({"count": count, "largest": largest, "unready": unready, "wrong": wrong}))


def send(host: str, tcp: int, udp: int, size: int) -> None:
    """Send SIZE bytes by TCP and have them back, then datagrams of all kinds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    echo(host, tcp, os.urandom(size))
    level, options = {
        socket.AF_INET: (socket.IPPROTO_IP, [(4, b"\1\1\1\0"), (4, b"\7\7\4" + bytes(4) + b"\0")]),
        # Destination options with padding only; then nothing.
        socket.AF_INET6: (socket.IPPROTO_IPV6, [(59, b"\0\0\1\4" + bytes(4)), (59, b"")]),
    }[family]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.connect((host, udp))
        for length in (1, 2, 100, 548, 1231, 1432, 1472, 1473, 3000, 20000, 60000):
            ask(sock, length)
        for name, value in options:
            sock.setsockopt(level, name, value)
            ask(sock, 333)
        sock.setsockopt(level, options[0][0], b"")
        sock.setsockopt(socket.IPPROTO_UDP, 103, 500)  # UDP_SEGMENT
        sock.send(os.urandom(5000))
        got = sum(len(sock.recv(65535)) for _ in range(10))
        assert got == 5000, f"{got} bytes of 5000 in datagrams"
    print("ok")


def ask(sock: socket.socket, length: int) -> None:
    """Have a datagram sent back."""
    data = os.urandom(length)
    for _ in range(3):
        sock.send(data)
        try:
            got = sock.recv(65535)
        except OSError:  # too long for the path, says a router: once more
            continue
        assert got == data, f"another datagram than that of {length} bytes"
        return
    raise AssertionError(f"no answer to {length} bytes")


def echo(host: str, port: int, data: bytes) -> None:
    """Send DATA, and have it back."""
    with socket.create_connection((host, port), 10) as sock:
        sock.setblocking(False)  # noqa: FBT003
        rest, got = memoryview(data), bytearray()
        while len(got) < len(data):
            writing = [sock] if rest else []
            readable, writable, _ = select.select([sock], writing, [], 20)
            assert readable or writable, f"{len(got)} bytes came back, then none"
            if writable:
                rest = rest[sock.send(rest[: 1 << 18]) :]
            if readable:
                got += sock.recv(1 << 18)
        assert bytes(got) == data, "other bytes came back"


def flows(host: str, port: int, count: int) -> None:
    """Send 2000 of 600 bytes in each of COUNT flows."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socks = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(count)]
    for sock in socks:
        sock.connect((host, port))
    for number in range(2000):
        for sock in socks:
            sock.send(struct.pack("!I", number) + bytes(596))
        if number % 8 == 7:
            time.sleep(0.004)


def order(port: int) -> None:
    """Tell of each flow how many came, and those that came behind a later one."""
    last: dict[str, int] = {}
    came: dict[str, int] = {}
    late = []
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        sock.bind(("::", port))
        print("ready", flush=True)
        while sock in select.select([sock, sys.stdin], [], [])[0]:
            data, address = sock.recvfrom(2000)
            flow, (number,) = f"{address[0]} {address[1]}", struct.unpack_from("!I", data)
            came[flow] = came.get(flow, 0) + 1
            if number < last.get(flow, -1):
                late.append([flow, number, last[flow]])
            last[flow] = number
    print(json.dumps({"came": came, "late": late}))


def offloads(adapter: str, which: str) -> None:
    """Switch what the adapter does for the kernel: checksums, TSO, GSO, and GRO."""
    import array

    with socket.socket() as sock:
        for command in (0x17, 0x1F, 0x24, 0x2C):
            is_on = which == "all" or (which == "tx" and command != 0x2C)
            value = array.array("I", [command, is_on])
            request = struct.pack("16sP16x", adapter.encode(), value.buffer_info()[0])
            fcntl.ioctl(sock, 0x8946, request)


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "watch":
        watch(words[0])
    elif what == "send":
        send(words[0], *map(int, words[1:]))
    elif what == "flows":
        flows(words[0], *map(int, words[1:]))
    elif what == "order":
        order(int(words[0]))
    else:
        offloads(*words)

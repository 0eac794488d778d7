"""What goes through both engines arrives whole, both ways, however the two sides behave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket

from sshvpn.model import TcpEndpoint
from tests.contract.site import (
    Site,
    dial,
    digest,
    echo,
    eventually,
    exchange,
    hang_up,
    local,
    target,
)
from tests.contract.sshd import free_port

MB = 1 << 20
SELECT_LIMIT = 1024


def noise(size: int, seed: int) -> bytes:
    """Return bytes that do not repeat."""
    return random.Random(seed).randbytes(size)  # noqa: S311 (no secret)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_what_the_server_answers_after_the_clients_end_arrives(site: Site) -> None:
    data = noise(8 * MB, 1)
    async with site.forwarded(digest) as where:
        assert (await exchange(where, data)).decode() == sha(data)


async def test_what_the_client_sends_after_the_servers_end_arrives(site: Site) -> None:
    data = noise(8 * MB, 2)
    found: asyncio.Queue[bytes] = asyncio.Queue()

    async def talks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.write_eof()
        await found.put(await reader.read(-1))
        await hang_up(writer)

    async with site.forwarded(talks_first) as where:
        reader, writer = await dial(where)
        assert sha(await reader.read(-1)) == sha(data)
        writer.write(data)
        writer.write_eof()
        assert sha(await found.get()) == sha(data)
        await hang_up(writer)


async def test_large_streams_both_ways_at_once(site: Site) -> None:
    data = noise(24 * MB, 3)
    async with site.forwarded(echo) as where:
        reader, writer = await dial(where)

        async def send() -> None:
            for at in range(0, len(data), MB):
                writer.write(data[at : at + MB])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert sha(await reader.read(-1)) == sha(data)
        await sending
        await hang_up(writer)


async def test_single_bytes_are_not_held_back(site: Site) -> None:
    async with site.forwarded(echo) as where:
        reader, writer = await dial(where)
        for number in range(100):
            writer.write(bytes([number]))
            assert await reader.readexactly(1) == bytes([number])
        await hang_up(writer)


async def test_two_hundred_connections_at_once_each_a_megabyte_both_ways(
    site: Site, many_files: None
) -> None:
    del many_files
    blocks = [noise(MB, seed) for seed in range(8)]

    async def one(where: TcpEndpoint, number: int) -> bool:
        data = blocks[number % len(blocks)]
        return sha(await exchange(where, data)) == sha(data)

    async with site.forwarded(echo) as where:
        assert all(await asyncio.gather(*(one(where, number) for number in range(200))))


async def test_keys_are_exchanged_anew_while_connections_come_and_go(site: Site) -> None:
    site.config["RekeyLimit"] = "1M"
    data = noise(300_000, 6)

    async def churn(where: TcpEndpoint) -> None:
        for _ in range(6):
            assert await exchange(where, data) == data

    async with site.forwarded(echo) as where:
        await asyncio.gather(*(churn(where) for _ in range(10)))


async def test_descriptors_past_those_that_select_sees(site: Site, many_files: None) -> None:
    del many_files
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(SELECT_LIMIT)]
    try:
        async with site.forwarded(digest) as where:
            data = noise(MB, 4)
            found = await asyncio.gather(*(exchange(where, data) for _ in range(20)))
            assert {one.decode() for one in found} == {sha(data)}
    finally:
        for descriptor in spare:
            os.close(descriptor)


async def test_a_slow_reader_stalls_only_itself(site: Site) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"?":
            await exchange_back(writer)
            return
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(MB))
                await writer.drain()

    async def exchange_back(writer: asyncio.StreamWriter) -> None:
        writer.write(b"!" * 4 * MB)
        await hang_up(writer)

    async with site.forwarded(endless) as where:
        stalled = []
        for _ in range(5):
            sock = socket.create_connection((where.host, where.port))
            sock.sendall(b"x")  # and never reads
            stalled.append(sock)
        for _ in range(5):
            assert len(await exchange(where, b"?")) == 4 * MB
        for sock in stalled:
            sock.close()


async def test_a_target_that_takes_nothing_stalls_only_its_own_client(site: Site) -> None:
    release = asyncio.Event()

    async def choosy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"?":
            await echo(reader, writer)
            return
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()
        writer.transport.abort()

    async with site.forwarded(choosy) as where:
        _, stuck = await dial(where)
        stuck.write(b"x" + bytes(32 * MB))
        for _ in range(5):
            assert len(await exchange(where, b"?" + bytes(MB))) == MB
        release.set()
        stuck.transport.abort()


async def test_a_target_that_refuses_closes_the_client_and_the_forward_lives(site: Site) -> None:
    nobody = TcpEndpoint("127.0.0.1", free_port())
    async with target(echo) as there, site.connected() as connection:
        dead = await connection.open_listener(local(nobody))
        alive = await connection.open_listener(local(there))
        for _ in range(3):
            reader, writer = await dial(dead)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(-1) == b""
            await hang_up(writer)
        assert await exchange(alive, b"x") == b"x"


async def test_a_target_that_is_gone_in_the_middle_closes_the_client(site: Site) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    async with site.forwarded(rude) as where:
        reader, writer = await dial(where)
        writer.write(b"x")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(-1) == b""
        await hang_up(writer)


async def test_a_client_that_is_gone_in_the_middle_ends_the_targets_side(site: Site) -> None:
    ended = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(MB))
                await writer.drain()
        ended.set()
        await hang_up(writer)

    async with site.forwarded(endless) as where:
        reader, writer = await dial(where)
        await reader.readexactly(MB)
        writer.transport.abort()
        await ended.wait()


async def test_traffic_is_counted_and_open_flows_too(site: Site) -> None:
    data = noise(4 * MB, 5)
    async with target(echo) as there, site.connected() as connection:
        where = await connection.open_listener(local(there))
        before = connection.traffic()
        reader, writer = await dial(where)
        writer.write(b"x")
        await reader.readexactly(1)
        await eventually(lambda: connection.traffic().connections == 1, "the flow is not counted")
        await hang_up(writer)
        assert await exchange(where, data) == data
        await eventually(lambda: connection.traffic().connections == 0, "a flow is left")
        after = connection.traffic()
    for name in ("rx_bytes", "tx_bytes"):
        was, now = getattr(before, name), getattr(after, name)
        if was is not None and now is not None:
            assert len(data) <= now - was <= 2 * len(data)


async def test_the_round_trip_is_known(site: Site) -> None:
    async with site.connected() as connection:
        rtt_s = connection.traffic().rtt_s
        assert rtt_s is not None
        assert 0 < rtt_s < 5
    assert connection.traffic().rtt_s is None


async def test_many_short_connections_in_a_row(site: Site) -> None:
    async with site.forwarded(echo) as where:
        for number in range(40):
            data = str(number).encode()
            assert await exchange(where, data) == data

"""The portal as strangers meet it: names, methods, headers, and those who only take places."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from sshvpn.lan import portal as portal_module
from sshvpn.lan.portal import LONGEST_HEADER, MOST_OF_ONE, Portal
from sshvpn.presence import Adapter, Place, Presence, Shown

HERE = Adapter("lo", 1, ("127.0.0.1/8",))
PRESENCE = Presence(
    label="gpu-box",
    state="running",
    since="2026-11-25T20:00:00.000Z",
    adapters=(HERE,),
    services=(Shown("http", "127.0.0.1:8888", (Place("127.0.0.1", 9999),)),),
    networks=(),
    has_names=True,
)
NAMES = ("gpu-box.local",)


def with_portal(
    test: Callable[[Portal], Awaitable[None]], presence: Presence = PRESENCE, port: int = 0
) -> None:
    """Run TEST with a portal that shows PRESENCE."""

    async def run() -> None:
        portal = Portal(port or free_port(), lambda: NAMES)
        portal.show(presence)
        try:
            await test(portal)
        finally:
            portal.show(None)

    asyncio.run(run())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@asynccontextmanager
async def connected(
    portal: Portal,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", portal.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(portal: Portal, head: str) -> str:
    """Send HEAD, and return all that comes back until the end."""
    async with connected(portal) as (reader, writer):
        writer.write(head.replace("\n", "\r\n").encode())
        try:
            answer = await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:
            return ""
    return answer.decode()


async def get(portal: Portal, path: str = "/", host: str | None = None, method: str = "GET") -> str:
    where = f"127.0.0.1:{portal.port}" if host is None else host
    return await ask(portal, f"{method} {path} HTTP/1.1\nHost: {where}\n\n")


def code(answer: str) -> int:
    return int(answer.split()[1])


def test_it_is_served_with_its_style_and_its_script_under_a_strict_policy() -> None:
    async def test(portal: Portal) -> None:
        for path, words in (
            ("/", "<h1>gpu-box</h1>"), ("/portal.css", "color-scheme"), ("/portal.js", "fetch("),
        ):  # fmt: skip
            answer = await get(portal, path)
            assert code(answer) == 200
            assert words in answer
            for header in (
                "Content-Security-Policy: default-src 'none'; script-src 'self'; ",
                "frame-ancestors 'none'",
                "X-Content-Type-Options: nosniff",
                "Referrer-Policy: no-referrer",
                "Connection: close",
                "Server: sshvpn\r\n",
            ):
                assert header in answer
            assert "Set-Cookie" not in answer

    with_portal(test)


@pytest.mark.parametrize("name", ["gpu-box.local", "GPU-Box.local", "gpu-box.local."])
def test_it_is_there_under_its_own_name(name: str) -> None:
    async def test(portal: Portal) -> None:
        answer = await get(portal, host=f"{name}:{portal.port}")
        assert code(answer) == 200
        assert "gpu-box.local" in answer.partition("\r\n\r\n")[2]

    with_portal(test)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "localhost:{port}",
        "gpu-box.local",  # another port's page
        "127.0.0.1",
        "127.0.0.2:{port}",
        "gpu-box.local.evil.example:{port}",
        "gpu-box.local:{port}@evil.example",
        "127.0.0.1:{port},evil.example",
    ],
)
def test_another_name_is_refused(host: str) -> None:
    async def test(portal: Portal) -> None:
        answer = await get(portal, host=host.format(port=portal.port))
        assert code(answer) in (400, 421)
        assert "gpu-box" not in answer.partition("\r\n\r\n")[2]

    with_portal(test)


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.0\n\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: b\n\n",
        "GET http://evil.example/ HTTP/1.1\nHost: evil.example\n\n",
        "nonsense\n\n",
        "GET / HTTP/1.1\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked\n\n",
    ],
)
def test_what_is_no_good_request_gets_no_page(head: str) -> None:
    async def test(portal: Portal) -> None:
        answer = await ask(portal, head)
        assert "gpu-box" not in answer
        assert answer == "" or code(answer) in (400, 421)

    with_portal(test)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_only_reads(method: str) -> None:
    async def test(portal: Portal) -> None:
        assert code(await get(portal, method=method)) == 405

    with_portal(test)


def test_what_is_not_there_is_not_there_and_head_has_no_body() -> None:
    async def test(portal: Portal) -> None:
        assert code(await get(portal, "/../../etc/passwd")) == 404
        assert code(await get(portal, "/x<script>")) == 404
        assert "<script>" not in await get(portal, "/x<script>")
        head = await get(portal, method="HEAD")
        assert code(head) == 200
        assert head.partition("\r\n\r\n")[2] == ""

    with_portal(test)


def test_a_header_without_an_end_is_cut_off() -> None:
    async def test(portal: Portal) -> None:
        answer = await ask(portal, "GET / HTTP/1.1\n" + f"X: {'x' * LONGEST_HEADER}\n" * 4)
        assert "gpu-box" not in answer

    with_portal(test)


def test_those_who_say_nothing_take_no_place_from_others_and_are_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portal_module, "REQUEST_WITHIN_S", 0.5)
    monkeypatch.setattr(portal_module, "MOST_CONNECTIONS", 2 * MOST_OF_ONE)

    async def test(portal: Portal) -> None:
        slow = [
            await asyncio.open_connection("127.0.0.1", portal.port, local_addr=("127.0.0.7", 0))
            for _ in range(3 * MOST_OF_ONE)
        ]
        for _, writer in slow:
            writer.write(b"GET / HT")
        assert code(await get(portal)) == 200, "another has its own places"
        for reader, writer in slow:
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
        assert code(await get(portal)) == 200

    with_portal(test)


def test_who_is_not_of_the_network_is_not_answered() -> None:
    narrow = replace(PRESENCE, adapters=(Adapter("lo", 1, ("127.0.0.1/30",)),))

    async def test(portal: Portal) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", portal.port, local_addr=("127.0.0.9", 0)
        )
        writer.write(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{portal.port}\r\n\r\n".encode())
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert code(await get(portal)) == 200

    with_portal(test, narrow)


def test_a_port_that_is_taken_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        async def test(portal: Portal) -> None:
            assert portal.places == ()
            assert "no portal on 127.0.0.1" in caplog.text
            assert portal.retry()
            other.close()
            assert not portal.retry()
            assert code(await get(portal)) == 200

        with_portal(test, port=int(other.getsockname()[1]))


def test_the_usual_port_gives_way_to_one_that_is_free_and_unpublished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        usual = int(other.getsockname()[1])
        monkeypatch.setattr(portal_module, "USUAL_PORT", usual)
        taken = Shown("http", "127.0.0.1:1", (Place("127.0.0.1", usual + 1),))

        async def run() -> None:
            portal = Portal(0, lambda: NAMES)
            portal.show(replace(PRESENCE, services=(taken,)))
            assert portal.port is not None
            assert portal.port > usual + 1
            portal.show(None)
            assert portal.places == ()

        asyncio.run(run())

"""Listeners of both engines open and close one by one, where they were told to and only there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshvpn.errors import (
    ForwardingRefusedError,
    PrivilegeError,
    RefusedError,
    TakenError,
    UsageError,
)
from sshvpn.model import (
    Direction,
    Endpoint,
    ForwardSpec,
    Listener,
    TcpEndpoint,
    UnixEndpoint,
)
from tests.contract.site import Site, dial, echo, exchange, hang_up, local, target
from tests.contract.sshd import free_port

ABILITIES = {
    "openssh": {"remote", "dynamic", "unix target"},
    "sshtunnel": set[str](),
}
"""What one engine can and the other leaves to it; all else both can."""


def spec(direction: Direction, target: Endpoint | None, text: str) -> ForwardSpec:
    return ForwardSpec(direction, None, 0, target, text)


SPECS = {
    "remote": spec(Direction.REMOTE, TcpEndpoint("localhost", 80), "0:80"),
    "dynamic": spec(Direction.DYNAMIC, None, "1080"),
    "unix target": spec(Direction.LOCAL, UnixEndpoint("/run/b.sock"), "0:/run/b.sock"),
}


def is_refused(where: TcpEndpoint) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection((where.host, where.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def taken() -> Iterator[TcpEndpoint]:
    """Hold a port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield TcpEndpoint("127.0.0.1", holder.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.0.0.2"])
async def test_a_listener_is_at_its_address_and_no_other(site: Site, host: str) -> None:
    port = free_port()
    async with target(echo) as there, site.connected() as connection:
        wanted = TcpEndpoint(host, port)
        assert await connection.open_listener(local(there, wanted)) == wanted
        assert await exchange(wanted, b"here") == b"here"
        for other in {"127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"} - {host}:
            assert is_refused(TcpEndpoint(other, port))


async def test_every_address_means_both_families(site: Site) -> None:
    port = free_port()
    async with target(echo) as there, site.connected() as connection:
        for host in ("0.0.0.0", "::"):
            await connection.open_listener(local(there, TcpEndpoint(host, port)))
        for host in ("127.0.0.1", "127.0.0.2", "::1"):
            assert await exchange(TcpEndpoint(host, port), b"here") == b"here"


async def test_the_wildcard_of_ipv6_is_not_that_of_ipv4(site: Site) -> None:
    port = free_port()
    async with target(echo) as there, site.connected() as connection:
        await connection.open_listener(local(there, TcpEndpoint("::", port)))
        assert is_refused(TcpEndpoint("127.0.0.1", port))


async def test_port_zero_is_any_port_and_it_is_told(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        where = await connection.open_listener(local(there))
        assert isinstance(where, TcpEndpoint)
        assert where.port > 0
        assert await exchange(where, b"x") == b"x"


async def test_several_listeners_serve_their_own_targets(site: Site) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(-1)).upper())
        await hang_up(writer)

    async with target(echo) as one, target(shout) as two, site.connected() as connection:
        first = await connection.open_listener(local(one))
        second = await connection.open_listener(local(two))
        assert await exchange(first, b"a") == b"a"
        assert await exchange(second, b"a") == b"A"


async def test_a_taken_port_is_told_and_the_connection_lives_on(
    site: Site, taken: TcpEndpoint
) -> None:
    async with target(echo) as there, site.connected() as connection:
        with pytest.raises(TakenError) as caught:
            await connection.open_listener(local(there, taken))
        assert str(taken.port) in caught.value.message
        assert caught.value.exit_code == 7
        where = await connection.open_listener(local(there))
        assert await exchange(where, b"x") == b"x"


async def test_a_port_that_was_taken_can_be_had_when_it_is_free(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            with pytest.raises(TakenError):
                await connection.open_listener(local(there, TcpEndpoint("127.0.0.1", port)))
        where = await connection.open_listener(local(there, TcpEndpoint("127.0.0.1", port)))
        assert await exchange(where, b"x") == b"x"


async def test_an_address_of_another_machine_is_a_mistake(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        with pytest.raises(UsageError) as caught:
            await connection.open_listener(local(there, TcpEndpoint("192.0.2.1", 0)))
        assert caught.value.exit_code == 2


@pytest.mark.skipif(os.getuid() == 0, reason="root may listen anywhere")
async def test_a_privileged_port_needs_privilege(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        with pytest.raises(PrivilegeError):
            await connection.open_listener(local(there, TcpEndpoint("127.0.0.1", 1)))


async def test_a_closed_listener_is_gone_and_the_others_are_not(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        first, second = local(there), local(there, TcpEndpoint("127.0.0.2", 0))
        gone, stays = await connection.open_listener(first), await connection.open_listener(second)
        reader, writer = await dial(gone)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        await connection.close_listener(first)
        assert isinstance(gone, TcpEndpoint)
        assert is_refused(gone)
        assert await exchange(stays, b"x") == b"x"
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b", "what is open lives on"
        await hang_up(writer)


async def test_a_closed_listener_can_be_opened_again(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        listener = local(there, TcpEndpoint("127.0.0.1", free_port()))
        for _ in range(3):
            where = await connection.open_listener(listener)
            assert await exchange(where, b"x") == b"x"
            await connection.close_listener(listener)


async def test_closing_what_is_not_open_does_nothing(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        await connection.close_listener(local(there))


async def test_ports_are_free_after_the_end(site: Site) -> None:
    port = free_port()
    for _ in range(2):
        async with target(echo) as there, site.connected() as connection:
            where = await connection.open_listener(local(there, TcpEndpoint("127.0.0.1", port)))
            assert await exchange(where, b"x") == b"x"
    assert is_refused(TcpEndpoint("127.0.0.1", port))


async def test_a_name_as_a_target_is_resolved_by_the_server(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        assert isinstance(there, TcpEndpoint)
        where = await connection.open_listener(local(TcpEndpoint("localhost", there.port)))
        assert await exchange(where, b"x") == b"x"


async def test_a_listener_of_an_adapter_takes_what_comes_by_it(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        listener = Listener(Direction.LOCAL, TcpEndpoint("127.0.0.1", 0), there, "lo")
        where = await connection.open_listener(listener)
        assert await exchange(where, b"x") == b"x"
        await connection.close_listener(listener)
        assert isinstance(where, TcpEndpoint)
        assert is_refused(where)


async def test_a_listener_of_an_adapter_that_is_not_there_is_a_mistake_or_said(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        listener = Listener(Direction.LOCAL, TcpEndpoint("127.0.0.1", 0), there, "nosuch0")
        # The system's ssh listens before it can be told of the adapter: there it is a warning.
        with contextlib.suppress(UsageError):
            await connection.open_listener(listener)
            assert site.engine.name == "openssh"


# Unix sockets ---------------------------------------------------------------------------------


async def test_a_unix_listener_is_this_users_alone_and_goes_with_its_close(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "listener"
    async with target(echo) as there, site.connected() as connection:
        listener = local(there, UnixEndpoint(str(path)))
        assert await connection.open_listener(listener) == UnixEndpoint(str(path))
        assert path.stat().st_mode & 0o077 == 0
        assert await exchange(UnixEndpoint(str(path)), b"x") == b"x"
        await connection.close_listener(listener)
        assert not path.exists()
        await connection.open_listener(listener)
    assert not path.exists()


async def test_a_unix_listener_replaces_a_dead_one_but_nothing_else(
    site: Site, tmp_path: Path
) -> None:
    dead, file = tmp_path / "dead", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as forgotten:
        forgotten.bind(str(dead))
    file.write_text("precious")
    async with target(echo) as there, site.connected() as connection:
        where = await connection.open_listener(local(there, UnixEndpoint(str(dead))))
        assert await exchange(where, b"x") == b"x"
        for path in (dead, file):
            with pytest.raises(TakenError):
                await connection.open_listener(local(there, UnixEndpoint(str(path))))
    assert file.read_text() == "precious"


# What only one can ----------------------------------------------------------------------------


@pytest.mark.parametrize("ability", SPECS)
async def test_what_an_engine_cannot_carry_names_the_other(
    site: Site, other_engine: str, ability: str
) -> None:
    profile = site.profile(SPECS[ability])
    if ability in ABILITIES[site.engine.name]:
        await site.engine.check(profile)
        return
    with pytest.raises(UsageError) as caught:
        await site.engine.check(profile)
    assert f"--engine {other_engine}" in caught.value.hint


@pytest.fixture
def able(site: Site, request: pytest.FixtureRequest) -> Site:
    """Skip the engine that does not have the ability that the test is marked with."""
    ability = str(request.param)
    if ability not in ABILITIES[site.engine.name]:
        pytest.skip(f"{site.engine.name} leaves it to the other engine")
    return site


@pytest.mark.parametrize("able", ["unix target"], indirect=True)
async def test_a_unix_socket_as_a_target(able: Site, tmp_path: Path) -> None:
    path = tmp_path / "target"
    async with target(echo, path) as there, able.connected() as connection:
        where = await connection.open_listener(local(there))
        assert await exchange(where, b"x") == b"x"


@pytest.mark.parametrize("able", ["remote"], indirect=True)
async def test_a_listener_at_the_server(able: Site) -> None:
    async with target(echo) as there, able.connected() as connection:
        listener = local(there, TcpEndpoint("localhost", 0), Direction.REMOTE)
        where = await connection.open_listener(listener)
        assert isinstance(where, TcpEndpoint)
        assert where.port > 0
        assert await exchange(TcpEndpoint("127.0.0.1", where.port), b"x") == b"x"
        await connection.close_listener(listener)
        assert is_refused(TcpEndpoint("127.0.0.1", where.port))


@pytest.mark.parametrize("able", ["remote"], indirect=True)
async def test_a_port_that_is_taken_at_the_server(able: Site, taken: TcpEndpoint) -> None:
    async with target(echo) as there, able.connected() as connection:
        with pytest.raises((TakenError, ForwardingRefusedError, RefusedError)):
            await connection.open_listener(local(there, taken, Direction.REMOTE))


@pytest.mark.parametrize("able", ["dynamic"], indirect=True)
async def test_a_socks_proxy(able: Site) -> None:
    async with target(echo) as there, able.connected() as connection:
        assert isinstance(there, TcpEndpoint)
        listener = Listener(Direction.DYNAMIC, TcpEndpoint("127.0.0.1", 0), None)
        where = await connection.open_listener(listener)
        reader, writer = await dial(where)
        writer.write(b"\x05\x01\x00")  # RFC 1928: version 5, one method: none
        assert await reader.readexactly(2) == b"\x05\x00"
        writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + there.port.to_bytes(2, "big"))
        assert (await reader.readexactly(10))[:2] == b"\x05\x00"
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await hang_up(writer)

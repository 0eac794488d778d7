"""However a connection ends, both engines notice, say why, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sshvpn.boundary import Connection
from sshvpn.errors import ConnectionLostError, Retry, SshvpnError
from sshvpn.model import TcpEndpoint
from tests.contract.site import (
    Site,
    dial,
    echo,
    eventually,
    exchange,
    hang_up,
    local,
    target,
)

MB = 1 << 20


def descriptors() -> dict[str, str]:
    """Return this process's open files, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (its own is closed when it returns)
        with contextlib.suppress(OSError):
            found[name] = str(Path(f"/proc/self/fd/{name}").readlink())
    return found


def children() -> list[str]:
    """Return the child processes of this one."""
    found: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found += (task / "children").read_text().split()
    return found


def threads() -> list[str]:
    """Return the threads but those of the event loop's pool, which belongs to the caller."""
    return [one.name for one in threading.enumerate() if not one.name.startswith("asyncio_")]


def nothing_new(before: tuple[dict[str, str], list[str], list[str]]) -> Callable[[], bool]:
    """Return whether there is no file, child or thread that was not there ``before``."""
    files, running, busy = before

    def check() -> bool:
        return (
            set(descriptors()) <= set(files)
            and set(children()) <= set(running)
            and not Counter(threads()) - Counter(busy)
        )

    return check


def now() -> tuple[dict[str, str], list[str], list[str]]:
    return descriptors(), children(), threads()


async def lost(site: Site, break_it: Callable[[], None]) -> SshvpnError:
    """Return what a connection that stands says when it is broken."""
    async with site.connected() as connection:
        await settled(connection)
        waiting = asyncio.create_task(connection.wait_closed())
        await asyncio.sleep(0)
        assert not waiting.done()
        break_it()
        return await waiting


async def settled(connection: Connection) -> None:
    """Wait until the server's last process for this login is there: it forks after the login."""
    async with target(echo) as there:
        listener = local(there)
        assert await exchange(await connection.open_listener(listener), b"x") == b"x"
        await connection.close_listener(listener)


async def test_a_server_that_is_killed_is_noticed_at_once(site: Site) -> None:
    error = await lost(site, site.sshd.kill_sessions)
    assert isinstance(error, ConnectionLostError)
    assert (error.retry, error.exit_code) == (Retry.FOREVER, 6)


async def test_a_server_that_ends_in_good_order_is_noticed_at_once(site: Site) -> None:
    error = await lost(site, lambda: site.sshd.signal_sessions(signal.SIGTERM))
    assert error.retry is Retry.FOREVER


async def test_a_server_that_is_frozen_is_noticed(site: Site) -> None:
    site.config |= {"ServerAliveInterval": "1", "ServerAliveCountMax": "1"}
    error = await lost(site, lambda: site.sshd.signal_sessions(signal.SIGSTOP))
    assert isinstance(error, ConnectionLostError)


async def test_an_idle_connection_that_answers_lives_on(site: Site) -> None:
    site.config |= {"ServerAliveInterval": "1", "ServerAliveCountMax": "1"}
    async with target(echo) as there, site.connected() as connection:
        where = await connection.open_listener(local(there))
        waiting = asyncio.create_task(connection.wait_closed())
        done, _ = await asyncio.wait({waiting}, timeout=4)
        assert not done
        assert await exchange(where, b"x") == b"x"
        waiting.cancel()


async def test_when_the_connection_is_lost_its_clients_see_an_end(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        where = await connection.open_listener(local(there))
        reader, writer = await dial(where)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        site.sshd.kill_sessions()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(-1) == b""
        await connection.wait_closed()
        await hang_up(writer)


async def test_a_lost_connection_opens_no_listener(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        await settled(connection)
        site.sshd.kill_sessions()
        await connection.wait_closed()
        with pytest.raises(SshvpnError):
            await connection.open_listener(local(there))


async def test_a_lost_connection_is_made_again(site: Site) -> None:
    for _ in range(3):
        async with target(echo) as there, site.connected() as connection:
            where = await connection.open_listener(local(there))
            assert await exchange(where, b"x") == b"x"
            site.sshd.kill_sessions()
            await connection.wait_closed()


async def test_wait_closed_tells_everybody_who_waits(site: Site) -> None:
    async with site.connected() as connection:
        await settled(connection)
        waiting = [asyncio.create_task(connection.wait_closed()) for _ in range(3)]
        await asyncio.sleep(0)
        site.sshd.kill_sessions()
        errors = await asyncio.gather(*waiting)
    assert {type(error) for error in errors} == {type(await connection.wait_closed())}


async def test_waiting_may_be_given_up_without_harm(site: Site) -> None:
    async with target(echo) as there, site.connected() as connection:
        where = await connection.open_listener(local(there))
        waiting = asyncio.create_task(connection.wait_closed())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert await exchange(where, b"x") == b"x"


async def test_close_ends_the_waiting(site: Site) -> None:
    async with site.connected() as connection:
        waiting = asyncio.create_task(connection.wait_closed())
        await asyncio.sleep(0)
        await connection.close()
        assert isinstance(await waiting, SshvpnError)


async def test_close_twice_and_at_once_is_fine(site: Site) -> None:
    async with site.connected() as connection:
        await asyncio.gather(connection.close(), connection.close())
        await connection.close()


async def test_close_leaves_nothing_though_flows_are_open(site: Site) -> None:
    async with target(echo) as there:
        async with site.connected():
            pass  # what is loaded once stays
        before = now()
        connection = await site.engine.connect(site.profile(), None)
        wheres = [
            await connection.open_listener(local(there, TcpEndpoint(host, 0)))
            for host in ("127.0.0.1", "::1")
        ]
        flows = [await dial(where) for where in wheres for _ in range(5)]
        for reader, writer in flows:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        _, stuck = flows[0]
        stuck.write(bytes(32 * MB))  # whose echo nobody reads
        await connection.close()
        for _, writer in flows:
            writer.transport.abort()
        await eventually(nothing_new(before), f"left: {now()}, before: {before}")


async def test_a_lost_connection_leaves_nothing_once_it_is_closed(site: Site) -> None:
    async with target(echo) as there:
        async with site.connected():
            pass
        before = now()
        async with site.connected() as connection:
            where = await connection.open_listener(local(there))
            reader, writer = await dial(where)
            writer.write(b"x")
            await reader.readexactly(1)
            site.sshd.kill_sessions()
            await connection.wait_closed()
            writer.transport.abort()
        await eventually(nothing_new(before), f"left: {now()}, before: {before}")


@pytest.mark.parametrize("fault", ["key", "host key", "server"])
async def test_a_login_that_fails_leaves_nothing(site: Site, fault: str) -> None:
    async with site.connected():
        pass
    before = now()
    if fault == "key":
        (site.sshd.directory / "authorized_keys").write_text("")
    elif fault == "host key":
        site.known_hosts.write_text("")
    else:
        site.config["ProxyCommand"] = "exit 1"
    with pytest.raises(SshvpnError):
        async with site.connected():
            pass
    await eventually(nothing_new(before), f"left: {now()}, before: {before}")


async def test_a_proxy_ends_with_the_connection(site: Site) -> None:
    async with site.connected():
        pass
    before = now()
    jump = "".join(f"  {key} {value}\n" for key, value in site.config.items())
    site.more_config = f"  ProxyJump jump\nHost jump\n{jump}"
    async with site.connected():
        assert len(children()) > len(before[1])
    await eventually(nothing_new(before), f"left: {now()}, before: {before}")


def test_the_event_loop_may_be_another_at_the_next_connection(site: Site) -> None:
    async def once() -> None:
        async with target(echo) as there, site.connected() as connection:
            where = await connection.open_listener(local(there))
            assert await exchange(where, b"x") == b"x"

    for _ in range(2):
        asyncio.run(once())

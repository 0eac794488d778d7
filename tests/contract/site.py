"""What the contract tests of the engines share: a server, a user with a key, and the world behind.

::

    client ── listener [engine under test] ══ SSH ══ sshd ── target
                 (this process or the system's ssh)      (asyncio, this process)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from sshvpn.boundary import Connection, ForwardEngine, Prompter
from sshvpn.model import (
    Destination,
    Direction,
    Endpoint,
    ForwardProfile,
    ForwardSpec,
    Listener,
    SshOptions,
    TcpEndpoint,
    UnixEndpoint,
)
from tests.contract.sshd import Sshd, make_key

DEADLINE_S = 20.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Person:
    """A prompter who answers by the words of the question; counts what was asked."""

    def __init__(self, **answers: str | None) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self.told: list[str] = []

    def is_there(self) -> bool:
        """Be there."""
        return True

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        """Answer by the first key that the prompt holds."""
        del echo
        self.asked.append(prompt)
        return next((said for key, said in self._answers.items() if key in prompt), None)

    async def tell(self, text: str) -> None:
        """Listen."""
        self.told.append(text)


class Site:
    """A server and a user's ssh configuration for it, called ``box``."""

    def __init__(self, directory: Path, engine: ForwardEngine, sshd: Sshd) -> None:
        self.directory = directory
        self.engine = engine
        self.sshd = sshd
        self.key = make_key(directory / "id_user")
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.write_text(sshd.known_hosts())
        self.config = {
            "HostName": "127.0.0.1",
            "Port": str(sshd.port),
            "IdentityFile": str(self.key),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "none",
        }
        self.more_config = ""

    def profile(self, *specs: ForwardSpec) -> ForwardProfile:
        """Return a profile for the host ``box`` as the configuration is now."""
        file = self.directory / "ssh_config"
        lines = "".join(f"  {key} {value}\n" for key, value in self.config.items())
        file.write_text(f"Host box\n{lines}{self.more_config}")
        file.chmod(0o600)
        options = SshOptions(config_file=str(file))
        return ForwardProfile("box", "box", Destination("box"), specs or (A_SPEC,), ssh=options)

    @contextlib.asynccontextmanager
    async def connected(self, prompter: Prompter | None = None) -> AsyncIterator[Connection]:
        """Log in; the connection is closed at the end."""
        connection = await self.engine.connect(self.profile(), prompter)
        try:
            yield connection
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def forwarded(self, serve: Serve) -> AsyncIterator[TcpEndpoint]:
        """Forward a port to a target that does ``serve``, and return where to connect."""
        async with target(serve) as there, self.connected() as connection:
            where = await connection.open_listener(local(there))
            assert isinstance(where, TcpEndpoint)
            yield where


def through_a_proxy(site: Site) -> dict[str, str]:
    """Return the configuration that leads to SITE's server by a ProxyCommand."""
    port = site.sshd.port
    proxy = site.directory / "proxy"
    proxy.write_text(
        "import socket, sys, threading, shutil\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "t = threading.Thread(target=shutil.copyfileobj, args=(s.makefile('rb', 0),"
        " open(1, 'wb', 0)), daemon=True)\n"
        "t.start()\n"
        "shutil.copyfileobj(open(0, 'rb', 0), s.makefile('wb', 0))\n"
    )
    return {
        "HostName": "box.invalid",
        "Port": "9",
        "HostKeyAlias": f"[127.0.0.1]:{port}",
        "ProxyCommand": f"python3 {proxy} 127.0.0.1 {port} # %h %p",
    }


A_SPEC = ForwardSpec(Direction.LOCAL, None, 0, TcpEndpoint("localhost", 80), "0:80")


def local(
    target: Endpoint, listen: Endpoint | None = None, direction: Direction = Direction.LOCAL
) -> Listener:
    """Return a listener for ``target``, on any port of 127.0.0.1 unless said otherwise."""
    return Listener(direction, listen or TcpEndpoint("127.0.0.1", 0), target)


@contextlib.asynccontextmanager
async def target(serve: Serve, path: Path | None = None) -> AsyncIterator[Endpoint]:
    """Serve on a port of 127.0.0.1, or on a unix socket; nothing of it outlives the block."""
    serving: set[asyncio.Task[None]] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # what nobody takes would keep it open
            raise
        finally:
            await hang_up(writer)
            serving.discard(task)

    if path is not None:
        server: asyncio.Server = await asyncio.start_unix_server(served, path)
        where: Endpoint = UnixEndpoint(str(path))
    else:
        server = await asyncio.start_server(served, "127.0.0.1", 0, backlog=512, limit=1 << 20)
        where = TcpEndpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield where
    finally:
        server.close()
        left = list(serving)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def dial(where: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a listener."""
    if isinstance(where, UnixEndpoint):
        return await asyncio.open_unix_connection(where.path, limit=1 << 20)
    return await asyncio.open_connection(where.host, where.port, limit=1 << 20)


async def exchange(where: Endpoint, data: bytes) -> bytes:
    """Send ``data``, end it, and return all that comes back."""
    reader, writer = await dial(where)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read(-1)
    finally:
        await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close, and wait until it is closed, whatever the other side did."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, as it comes."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    await hang_up(writer)


async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the hash of all, once the client has ended."""
    with contextlib.suppress(OSError):
        found = hashlib.sha256(await reader.read(-1)).hexdigest()
        writer.write(found.encode())
    await hang_up(writer)


async def eventually(is_so: Callable[[], bool], what: str) -> None:
    """Wait until ``is_so``; fail with ``what`` when the deadline has passed."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def agent(directory: Path, keys: Sequence[Path]) -> Iterator[Path]:
    """Run an ssh-agent that holds ``keys``, and return its socket."""
    path = directory / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        subprocess.run(["ssh-add", "-q", *keys], env=environment, check=True)
        yield path
    finally:
        process.terminate()
        process.wait()

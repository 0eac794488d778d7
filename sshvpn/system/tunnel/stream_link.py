"""One stream: a pump here, a pump at the server, and the session of ssh between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from sshvpn.errors import ConnectionLostError, SshvpnError, TunnelRefusedError
from sshvpn.frozen import dataclass
from sshvpn.stream import device, program
from sshvpn.system.tunnel.pump_process import PumpEndError, PumpProcess

_READY_S = 10.0
_BUSY_S = 2.0
_POLL_S = 0.05
_LAST_WORDS_S = 1.0
_NOT_FOUND = 127
"""How a shell ends that does not find its command."""


class StreamRefusedError(TunnelRefusedError):
    """The server, or this machine, cannot do what the stream transport needs.

    ``is_certain``: it says so itself; else a connection that ends may be why.
    """

    is_certain: ClassVar[bool] = True


class StreamHinderedError(StreamRefusedError):
    """It cannot just now, or this machine cannot: nothing to be remembered of the server."""

    is_lasting = False


class StreamUnclearError(StreamHinderedError):
    """The server's pump does not begin, in no words of ours."""

    is_certain = False


@dataclass(frozen=True, slots=True)
class Session:
    """The session that runs the server's pump: how it is waited for, and ended.

    ``said`` returns the last line that it wrote on its stderr, ``status`` how it has ended.
    """

    wait: Callable[[], Awaitable[Any]]
    close: Callable[[], Awaitable[None]]
    said: Callable[[], str] = str
    status: Callable[[], int | None] = lambda: None


Starter = Callable[[int, int], Awaitable[Session]]
"""Runs the command on the server, with these as standard input and output of its session."""


class StreamLink:
    """Carries packets between the tun ``local`` here and one at the server.

    ``mark`` is in the remote process's command line. Close it; twice is fine.
    """

    def __init__(self, local: str, *, is_many: bool, mark: str) -> None:
        self._local = local
        self._is_many = is_many
        self._nonce = secrets.token_hex(16)
        self.command = program.command(self._nonce, is_many=is_many, mark=mark)
        self._pump = PumpProcess()
        self._session: Session | None = None

    async def begin(self, start: Starter) -> None:
        """Start both pumps: they load. The device here is there, the server's need not be yet.

        Raises StreamRefusedError, or why the stream has broken.
        """
        tun = await _open_tun(self._local, is_many=self._is_many)
        descriptors = [tun, *os.pipe(), *os.pipe()]
        _, theirs_in, ours_out, ours_in, theirs_out = descriptors
        delivering = asyncio.ensure_future(_deliver(ours_out, program.delivery()))
        try:
            starting = asyncio.ensure_future(self._pump.start(tun, ours_in, ours_out, self._nonce))
            try:
                self._session = await start(theirs_in, theirs_out)
            finally:
                await starting
            # Where the server takes nothing, the pump will tell.
            await asyncio.wait({delivering}, timeout=_READY_S)
        finally:
            delivering.cancel()
            try:  # the loop watches the pipe until that has ended
                await asyncio.gather(delivering, return_exceptions=True)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    async def carry(self, remote: str) -> None:
        """Return once packets are carried to the server's tun ``remote``. Raises as begin()."""
        assert self._session is not None  # noqa: S101 (it has begun)
        self._pump.name_peer(remote)
        await self._wait_ready(self._session)

    async def _wait_ready(self, session: Session) -> None:
        ended = asyncio.ensure_future(session.wait())
        ready, gone = self._pump.ready, self._pump.gone
        try:
            waiting: set[asyncio.Future[Any]] = {ready, gone, ended}
            await asyncio.wait(waiting, timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not ready.done():  # what it said is on its way through the pump
                await asyncio.wait({gone}, timeout=_LAST_WORDS_S)
            if gone.done():
                await asyncio.wait({ended}, timeout=_LAST_WORDS_S)
                raise _refusal(gone.result(), session)
            if not ready.done():
                # It has not said that it cannot: a slow link is no reason for another transport.
                raise ConnectionLostError("the pump at the server does not begin")
        finally:
            ended.cancel()

    async def wait_closed(self) -> SshvpnError:
        """Wait until it carries nothing any more, and return why."""
        why = await asyncio.shield(self._pump.gone)
        return ConnectionLostError(f"the stream has ended: {why}")

    async def close(self) -> None:
        """End both pumps."""
        await self._pump.close()
        if self._session is not None:
            await self._session.close()


async def _deliver(pipe: int, data: bytes) -> None:
    """Write all of it, as soon as it is taken: a pipe holds 64 KiB, or two pages.

    The kernel gives a user whose pipes are many, or large, no more for the next one (pipe(7)).
    Cancelled: the rest is not written.
    """
    loop = asyncio.get_running_loop()
    os.set_blocking(pipe, False)
    room = asyncio.Event()
    with contextlib.suppress(BrokenPipeError):  # why, is told by the session's end
        while data:
            try:
                data = data[os.write(pipe, data) :]
            except BlockingIOError:  # noqa: PERF203 (it waits)
                room.clear()
                loop.add_writer(pipe, room.set)
                try:
                    await room.wait()
                finally:
                    loop.remove_writer(pipe)


async def _open_tun(name: str, *, is_many: bool) -> int:
    """Return a descriptor; one that a pump just leaves is waited for a moment."""
    tries = round(_BUSY_S / _POLL_S)
    while True:
        try:
            return device.open_tun(name, is_many=is_many)
        except device.PumpError as error:
            tries -= 1
            if not tries:
                raise StreamHinderedError(f"cannot open {error}") from error
        await asyncio.sleep(_POLL_S)


def _refusal(why: PumpEndError, session: Session) -> SshvpnError:
    """Return what the end of a pump means that has carried nothing."""
    hint = "install python3 (3.6 or newer) on the server, or --transport w"
    match why.code:
        case "python":
            return StreamRefusedError(f"the server's Python is too old: {why}", hint)
        case "noise" if session.status() == _NOT_FOUND:
            return StreamRefusedError("the server has no python3", hint)
        case "noise":
            said = session.said() or str(why)
            return StreamUnclearError(f"our pump does not run at the server: {said}", hint)
        case "busy":
            return StreamHinderedError(f"the server's tun is taken: {why}")
        case "no_tun" | "no_device":
            return StreamRefusedError(f"the login may not open the server's tun: {why}")
        case _:
            return ConnectionLostError(f"the stream has ended: {why}")

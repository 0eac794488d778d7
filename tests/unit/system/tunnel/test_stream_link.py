"""The pump's program on its way to the server, where the kernel gives small pipes only."""

from __future__ import annotations

import asyncio
import fcntl
import os

import pytest

from sshvpn.errors import ConnectionLostError, SshvpnError, UnreachableError
from sshvpn.stream import program
from sshvpn.system.tunnel import stream_link
from sshvpn.system.tunnel.pump_process import PumpEndError
from sshvpn.system.tunnel.stream_link import (
    Session,
    StreamHinderedError,
    StreamLink,
    StreamRefusedError,
    StreamUnclearError,
)

SMALLEST_PIPE = 4096


async def _no_tun(_: str, *, is_many: bool) -> int:  # noqa: ARG001
    return os.open("/dev/null", os.O_RDWR)


def _small_pipe() -> tuple[int, int]:
    """Return what a user gets who has as many pipes as pipe-user-pages-soft allows."""
    ends = _pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    return ends


_pipe = os.pipe


@pytest.fixture
def small_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_link, "_open_tun", _no_tun)
    monkeypatch.setattr("sshvpn.system.tunnel.stream_link.os.pipe", _small_pipe)


@pytest.mark.usefixtures("small_pipes")
def test_a_pipe_that_holds_two_pages_stops_nobody() -> None:
    assert len(program.delivery()) > SMALLEST_PIPE

    async def story() -> tuple[bytes, bytes]:
        reader = -1

        async def start(theirs_in: int, theirs_out: int) -> Session:  # noqa: ARG001
            nonlocal reader
            reader = os.dup(theirs_in)
            return Session(wait=asyncio.Event().wait, close=_nothing)

        link = StreamLink("tun0", is_many=False, mark="mark")
        beginning = asyncio.ensure_future(link.begin(start))
        got = b""
        while len(got) < len(program.delivery()):
            await asyncio.sleep(0)  # the loop goes on, whatever is not taken
            if reader >= 0:
                got += await asyncio.to_thread(os.read, reader, 1000)
        await asyncio.wait_for(beginning, 10)
        link._pump.name_peer("tun5600")
        line = await asyncio.to_thread(os.read, reader, len(b"tun5600\n"))
        await link.close()
        os.close(reader)
        return got, line

    got, line = asyncio.run(asyncio.wait_for(story(), 30))
    assert got == program.delivery()
    assert line == b"tun5600\n"


@pytest.mark.usefixtures("small_pipes")
def test_a_session_that_takes_nothing_leaves_the_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_link, "_READY_S", 0.1)

    async def story() -> None:
        async def start(theirs_in: int, theirs_out: int) -> Session:  # noqa: ARG001
            return Session(wait=asyncio.Event().wait, close=_nothing)

        link = StreamLink("tun0", is_many=False, mark="mark")
        await asyncio.wait_for(link.begin(start), 20)
        await link.close()

    asyncio.run(asyncio.wait_for(story(), 30))


@pytest.mark.usefixtures("small_pipes")
def test_a_pump_that_says_nothing_may_say_something_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_link, "_READY_S", 0.1)

    async def story() -> None:
        async def start(theirs_in: int, theirs_out: int) -> Session:
            held.extend([os.dup(theirs_in), os.dup(theirs_out)])
            return Session(wait=asyncio.Event().wait, close=_nothing)

        held: list[int] = []
        link = StreamLink("tun0", is_many=False, mark="mark")
        await asyncio.wait_for(link.begin(start), 20)
        with pytest.raises(UnreachableError):
            await link.carry("tun5600")
        await link.close()
        for descriptor in held:
            os.close(descriptor)

    asyncio.run(asyncio.wait_for(story(), 30))


async def _nothing() -> None:
    return None


@pytest.mark.parametrize(
    ("code", "text", "status", "kind"),
    [
        ("python", "3.5.2", 0, StreamRefusedError),
        ("noise", "it ended without a word", 127, StreamRefusedError),
        ("no_tun", "/dev/net/tun: Permission denied", 1, StreamRefusedError),
        ("no_device", "tun8: Operation not permitted", 1, StreamRefusedError),
        ("busy", "tun8: Device or resource busy", 1, StreamHinderedError),
        ("noise", "bash: fork: retry: Resource temporarily unavailable", 254, StreamUnclearError),
        ("cut", "the other end went away without a word", 0, ConnectionLostError),
    ],
)
def test_only_what_the_server_cannot_do_is_lasting(
    code: str, text: str, status: int, kind: type[SshvpnError]
) -> None:
    session = Session(asyncio.Event().wait, _nothing, status=lambda: status)
    error = stream_link._refusal(PumpEndError(code, text), session)
    assert type(error) is kind
    assert getattr(error, "is_lasting", False) == (kind is StreamRefusedError)


def test_that_the_tun_here_is_taken_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_link, "_BUSY_S", 0.1)
    with pytest.raises(StreamHinderedError, match="cannot open"):
        asyncio.run(stream_link._open_tun("absent0", is_many=False))

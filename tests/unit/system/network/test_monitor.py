"""Hearing that the other end of a socket has been closed, and nothing else of it."""

from __future__ import annotations

import asyncio
import socket

from sshvpn.system.network.monitor import HangUp


def test_the_other_ends_close_is_heard_once_and_what_came_before_is_left_to_be_read() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        heard = asyncio.Event()
        hang_up = HangUp(ours.fileno(), heard.set)
        theirs.send(b"words")
        await asyncio.sleep(0)
        assert not heard.is_set()
        theirs.close()
        await asyncio.wait_for(heard.wait(), 5)
        assert ours.recv(100) == b"words"
        ours.close()
        hang_up.close()

    asyncio.run(story())


def test_who_has_closed_it_hears_nothing_more() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        heard: list[bool] = []
        hang_up = HangUp(ours.fileno(), lambda: heard.append(True))
        hang_up.close()
        hang_up.close()
        theirs.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert heard == []
        ours.close()

    asyncio.run(story())

"""The client's half of the agent's conversation, over its pipes: what a server may make it do."""

from __future__ import annotations

import asyncio
import os
import re

from sshvpn.remote.protocol import Mode, encode
from sshvpn.system.remote_agent.conversation import RemoteAgent
from tests.unit.remote.test_protocol import HELLO

BEAT_S = 0.02
BEATS = 5


def say(agent: RemoteAgent, *lines: str) -> None:
    """Let the server say LINES."""
    nonce = agent.command.split()[-4]
    os.write(agent.output_fd, encode([f"{nonce} {line}" for line in lines]))


def _beats(said: bytes) -> int:
    return len(re.findall(rb"beat [0-9]", said))


def test_a_server_that_tells_of_changes_all_the_time_is_heard_once_a_beat() -> None:
    async def story() -> None:
        agent = RemoteAgent(Mode.SERVE, "label", "alice@server", beat_s=BEAT_S)
        await agent.begin()
        os.set_blocking(agent.input_fd, False)
        said = b""
        times = 0
        say(agent, "changed", *HELLO.splitlines(), "ready", "changed")
        await agent.facts
        while _beats(said) < BEATS:
            say(agent, *["changed"] * 100)
            await asyncio.sleep(0.001)
            if agent.changed.is_set():
                times += 1
                agent.changed.clear()
            try:
                said += os.read(agent.input_fd, 1 << 16)
            except BlockingIOError:
                continue
        assert 1 <= times <= _beats(said)
        agent.close()
        await asyncio.sleep(0)  # its transport lets go

    asyncio.run(story())

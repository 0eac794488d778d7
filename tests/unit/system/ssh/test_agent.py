"""The agent's keys, asked of a real ssh-agent."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshvpn.system.ssh.agent import AgentMemory, agent_socket, held_keys


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        yield path
        process.terminate()


def ssh_add(agent: str, *words: str) -> None:
    subprocess.run(
        ["ssh-add", "-q", *words], env={**os.environ, "SSH_AUTH_SOCK": agent}, check=True
    )


def test_an_agent_holds_what_was_added(agent: str, key: Path) -> None:
    assert held_keys(agent) == frozenset()
    ssh_add(agent, str(key))
    (held,) = held_keys(agent)
    assert held.startswith(b"\0\0\0\x0bssh-ed25519")


def test_where_no_agent_is_no_keys_are(tmp_path: Path) -> None:
    assert held_keys(None) == frozenset()
    assert held_keys(str(tmp_path / "nowhere")) == frozenset()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0\0\1\x05",
        b"\0\0\0\5\x0c\0\0\0\1",
        b"\xff\xff\xff\xff\x0c\0\0\0\0",
        b"\0\0\0\x0a\x0c\0\0\0\1\xff\xff\xff\xff\0",
    ],
)
def test_what_is_no_agent_has_no_keys(tmp_path: Path, answer: bytes) -> None:
    path = str(tmp_path / "odd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        keys = held_keys(path)
        thread.join()
    assert not any(keys)


def memory_of_lost(agent: str, key: Path) -> AgentMemory:
    """Return what remembers a key that has gone, and has seen that."""
    ssh_add(agent, str(key))
    memory = AgentMemory()
    memory.note(agent)
    assert not memory.has_lost()
    ssh_add(agent, "-D")
    assert memory.has_lost()
    return memory


def test_a_key_that_went_is_missed_until_it_is_back(agent: str, key: Path) -> None:
    memory = memory_of_lost(agent, key)

    async def story() -> None:
        back = asyncio.create_task(memory.wait_back())
        await asyncio.sleep(0)
        assert not back.done()
        await asyncio.to_thread(ssh_add, agent, str(key))
        await asyncio.wait_for(back, 20)

    asyncio.run(story())


def test_a_key_that_is_back_before_anybody_waits_is_back(agent: str, key: Path) -> None:
    memory = memory_of_lost(agent, key)
    ssh_add(agent, str(key))
    asyncio.run(asyncio.wait_for(memory.wait_back(), 20))


def test_who_did_not_look_before_misses_what_is_gone_now(agent: str, key: Path) -> None:
    memory = memory_of_lost(agent, key)

    async def story() -> None:
        ssh_add(agent, str(key))
        await asyncio.wait_for(memory.wait_back(), 20)
        # It was there, and something else was wrong: nothing is missing that could come back.
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(memory.wait_back(), 0.5)
        ssh_add(agent, "-D")
        back = asyncio.create_task(memory.wait_back())
        await asyncio.wait({back}, timeout=0.5)
        assert not back.done()
        ssh_add(agent, str(key))
        await asyncio.wait_for(back, 20)

    asyncio.run(story())


def test_the_agent_is_the_one_that_ssh_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/one")
    monkeypatch.setenv("OTHER", "/run/two")
    assert agent_socket({}) == "/run/one"
    assert agent_socket({"identityagent": ("none",)}) is None
    assert agent_socket({"identityagent": ("$OTHER",)}) == "/run/two"
    assert agent_socket({"identityagent": ("/run/three",)}) == "/run/three"

"""The ssh agent: which keys it holds (draft-miller-ssh-agent, 3.5).

One request is asked of it, by hand: paramiko could, and would cost the openssh engine, which
needs nothing else of it, half as much memory again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

_REQUEST_IDENTITIES = 11
_IDENTITIES_ANSWER = 12
_TIMEOUT_S = 2.0
_LONGEST = 256 * 1024  # what ssh-agent itself takes
_POLL_S = 2.0


class AgentMemory:
    """What the agent held when a login worked, so that it can be told when it is gone or back.

    All but :meth:`wait_back` block as :func:`held_keys` does.
    """

    def __init__(self) -> None:
        self._path: str | None = None
        self._keys: frozenset[bytes] = frozenset()
        self._lost: frozenset[bytes] = frozenset()

    def note(self, path: str | None) -> None:
        """Remember the keys that the agent at ``path`` holds now: a login has just worked."""
        self._path, self._keys = path, held_keys(path)

    def has_lost(self) -> bool:
        """Whether a key is not there any more: removed, locked, or the agent is gone."""
        self._lost = self._missing()
        return bool(self._lost)

    def what_is_missing(self, *, needs_person: bool) -> str | None:
        """Return, for a message, what a refused login lacks that an earlier one had."""
        if self.has_lost():
            return "the ssh agent has not got its key any more"
        return "a password or code is wanted" if needs_person else None

    async def wait_back(self) -> None:
        """Return when a key is there again that was gone; for ever where none was.

        Gone when :meth:`has_lost` looked, if it has since the last wait, else now.
        """
        lost, self._lost = self._lost, frozenset()
        missing = lost or await asyncio.to_thread(self._missing)
        while missing <= await asyncio.to_thread(self._missing):  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(_POLL_S)

    def _missing(self) -> frozenset[bytes]:
        return self._keys - held_keys(self._path)


def agent_socket(config: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the path of the agent that ssh would use; ``config`` is what ``ssh -G`` resolved."""
    named = config.get("identityagent", ("SSH_AUTH_SOCK",))[0]
    if named.lower() == "none":
        return None
    if named == "SSH_AUTH_SOCK":
        return os.environ.get(named) or None
    if named.startswith("$"):
        return os.environ.get(named[1:].strip("{}")) or None
    return str(Path(named).expanduser())


def held_keys(path: str | None) -> frozenset[bytes]:
    """Return the public keys that the agent at ``path`` holds now; none where it is not there.

    Blocks for two seconds at most. A locked agent (``ssh-add -x``) says that it holds none.
    """
    if path is None:
        return frozenset()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(_TIMEOUT_S)
        try:
            agent.connect(path)
            agent.sendall(struct.pack(">IB", 1, _REQUEST_IDENTITIES))
            (length,) = struct.unpack(">I", _exactly(agent, 4))
            return _keys(_exactly(agent, min(length, _LONGEST)))
        except (OSError, ValueError, struct.error):
            return frozenset()


def _exactly(agent: socket.socket, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        piece = agent.recv(count - len(taken))
        if not piece:
            raise ValueError("the agent went away")
        taken += piece
    return taken


def _keys(answer: bytes) -> frozenset[bytes]:
    kind, count = struct.unpack_from(">BI", answer)
    if kind != _IDENTITIES_ANSWER:
        return frozenset()
    at, keys = 5, []
    for _ in range(count):
        for is_key in (True, False):  # the key, then its comment
            (length,) = struct.unpack_from(">I", answer, at)
            if is_key:
                keys.append(answer[at + 4 : at + 4 + length])
            at += 4 + length
    return frozenset(keys)

"""Follows all sessions at once over their control sockets: for a view that goes on.

Synchronous and never waits for one session: one that hangs holds up no other. Whoever draws
calls :meth:`Watcher.look` once a second and :meth:`Watcher.wait` in between.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sshvpn.control import VERSION, is_alive, session_dirs

MUTE_AFTER_S: Final = 3.0
"""A session that lives, was asked, and has not answered for so long, hangs."""
_MOST_BUFFERED: Final = 4 << 20
_PIECE: Final = 1 << 16


class Watcher:
    """The sessions of ``runtimes``, as they last told. ``clock`` is time.monotonic()."""

    def __init__(
        self, runtimes: Iterable[Path], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtimes = tuple(runtimes)
        self._clock = clock
        self._talks: dict[Path, Talk] = {}
        self._selector = selectors.DefaultSelector()

    def look(self) -> None:
        """Find new sessions, and ask all for their figures."""
        for directory in session_dirs(self._runtimes):
            if directory not in self._talks and (talk := Talk.begin(directory, self._clock())):
                self._talks[directory] = talk
                self._selector.register(talk.socket, selectors.EVENT_READ, talk)
        for talk in list(self._talks.values()):
            if not talk.ask():
                self._end(talk)

    def wait(self, seconds: float) -> bool:
        """Wait for news, at most so long; return whether there were any."""
        has_news = False
        for key, _ in self._selector.select(max(seconds, 0.0)):
            talk: Talk = key.data
            messages = talk.hear(self._clock())
            has_news |= messages is None or any("snapshot" in message for message in messages)
            if messages is None:
                self._end(talk)
        return has_news

    def snapshots(self) -> list[dict[str, Any]]:
        """Return what the sessions last told of themselves."""
        return [talk.snapshot for talk in self._talks.values() if talk.snapshot is not None]

    def mute(self) -> list[str]:
        """Return those that do not answer, each by its name, or by that of its directory."""
        now = self._clock()
        return [
            talk.snapshot["name"] if talk.snapshot else talk.directory.name
            for talk in self._talks.values()
            if now - talk.heard_at > MUTE_AFTER_S and is_alive(talk.directory)
        ]

    def close(self) -> None:
        """End all conversations."""
        for talk in list(self._talks.values()):
            self._end(talk)
        self._selector.close()

    def _end(self, talk: Talk) -> None:
        self._selector.unregister(talk.socket)
        talk.socket.close()
        del self._talks[talk.directory]


class Talk:
    """One conversation that never waits: with the session of ``directory``, which is watched.

    ``snapshot`` is the last one that came, ``heard_at`` when anything did.
    """

    def __init__(self, directory: Path, connected: socket.socket, now: float) -> None:
        self.directory = directory
        self.socket = connected
        self.snapshot: dict[str, Any] | None = None
        self.heard_at = now
        self._buffer = b""

    @classmethod
    def begin(cls, directory: Path, now: float = 0.0) -> Talk | None:
        """Return a conversation; None where nobody answers, or where it has no room for one."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.setblocking(False)  # noqa: FBT003
        try:
            connected.connect(str(directory / "control"))
        except OSError:
            connected.close()
            return None
        talk = cls(directory, connected, now)
        talk._say("watch")
        return talk

    def ask(self) -> bool:
        """Ask for a snapshot; return whether anybody is there."""
        return self._say("status")

    def _say(self, command: str) -> bool:
        try:
            self.socket.sendall(json.dumps({"v": VERSION, "cmd": command}).encode() + b"\n")
        except BlockingIOError:
            return True  # it hangs, and has been asked often enough
        except OSError:
            return False
        return True

    def hear(self, now: float = 0.0) -> list[dict[str, Any]] | None:
        """Return the messages that have come; None at the end."""
        try:
            piece = self.socket.recv(_PIECE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._buffer = (self._buffer + piece).split(b"\n")
        if not piece or len(self._buffer) > _MOST_BUFFERED:
            return None
        self.heard_at = now
        return [message for line in lines if (message := self._understood(line))]

    def _understood(self, line: bytes) -> dict[str, Any] | None:
        with suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                if isinstance(message.get("snapshot"), dict):
                    self.snapshot = message["snapshot"]
                else:
                    message.pop("snapshot", None)
                return message
        return None

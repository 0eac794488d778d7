"""The control socket, the session's side (docs/control-protocol.md).

JSON lines, versioned. A message that is unknown, malformed or too long is answered with an
error and never ends the session. Clients may watch, and may attach: an attached client is a
person at a terminal, and is asked what ssh wants to know.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from sshvpn.control import LONGEST_LINE, VERSION
from sshvpn.errors import SshvpnError
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.control")

_MOST_BUFFERED = 1 << 20
_LAST_WORDS_S = 1.0

Request = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class _Peer:
    """One client. What it is sent is buffered; one that does not read is let go."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.watches = False
        self.is_attached = False
        self.questions: dict[int, asyncio.Future[str | None]] = {}

    def send(self, message: Mapping[str, Any]) -> None:
        if self.writer.is_closing():
            return
        if self.writer.transport.get_write_buffer_size() > _MOST_BUFFERED:
            self.writer.transport.abort()
            return
        self.writer.write(json.dumps({"v": VERSION, **message}).encode() + b"\n")

    def leave(self) -> None:
        for question in self.questions.values():
            if not question.done():
                question.set_result(None)
        self.questions.clear()


class ControlServer:
    """Serves one session. Implements boundary.Prompter by asking an attached client.

    ``commands`` maps a command's name to what is called for it; ``requests`` to what takes a
    while: it gets the message and returns what the reply holds. ``on_attach`` is called when a
    client attaches.
    """

    def __init__(
        self,
        snapshot: Callable[[], dict[str, Any]],
        commands: Mapping[str, Callable[[], None]],
        requests: Mapping[str, Request] | None = None,
        *,
        on_attach: Callable[[], None] = lambda: None,
    ) -> None:
        self._snapshot = snapshot
        self._commands = commands
        self._requests = requests or {}
        self._on_attach = on_attach
        self._peers: set[_Peer] = set()
        self._server: asyncio.Server | None = None
        self._next_question = 1
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path) -> None:
        """Listen at ``path``, for this user and root alone."""
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, path, limit=LONGEST_LINE)
        finally:
            os.umask(before)

    async def adopt(
        self, connected: socket.socket, on_end: Callable[[], None], *, can_answer: bool
    ) -> None:
        """Take ``connected`` as a client that watches from the start, and may be asked.

        ``on_end`` is called when it goes away.
        """
        reader, writer = await asyncio.open_unix_connection(sock=connected, limit=LONGEST_LINE)
        peer = _Peer(writer)
        peer.watches, peer.is_attached = True, can_answer
        self._peers.add(peer)

        async def run() -> None:
            await self._converse(peer, reader)
            on_end()

        self._keep(run())

    async def close(self, error: SshvpnError | None = None) -> None:
        """Tell those who watch that this is the end and why, and stop listening."""
        if self._server is not None:
            self._server.close()
        end = {
            "event": "end",
            "exit_code": error.exit_code if error else 0,
            "error": error.as_record() if error else None,
            "message": str(error) if error else "",
            "hint": error.hint if error else "",
        }
        for peer in list(self._peers):
            if peer.watches:
                peer.send(end)
            peer.leave()
            try:
                await within(_LAST_WORDS_S, peer.writer.drain())
                peer.writer.close()
            except (OSError, asyncio.TimeoutError):  # it does not read, and never will
                peer.writer.transport.abort()

    def publish(self, snapshot: Mapping[str, Any]) -> None:
        """Send ``snapshot`` to those who watch."""
        self._tell_watchers({"event": "snapshot", "snapshot": dict(snapshot)})

    def notice(self, level: str, text: str) -> None:
        """Send a line of the log to those who watch."""
        self._tell_watchers({"event": "notice", "level": level, "text": text})

    def _tell_watchers(self, message: Mapping[str, Any]) -> None:
        for peer in list(self._peers):
            if peer.watches:
                peer.send(message)

    # boundary.Prompter ------------------------------------------------------------------

    def is_there(self) -> bool:
        """Whether a client is attached."""
        return any(peer.is_attached for peer in self._peers)

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        """Ask the client that is attached; None where there is none, or it goes away."""
        peer = next((peer for peer in self._peers if peer.is_attached), None)
        if peer is None:
            return None
        number, self._next_question = self._next_question, self._next_question + 1
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        peer.questions[number] = answer
        peer.send({"event": "prompt", "id": number, "prompt": prompt, "echo": echo})
        try:
            return await answer
        finally:
            peer.questions.pop(number, None)

    async def tell(self, text: str) -> None:
        """Show a line to the clients that are attached."""
        for peer in list(self._peers):
            if peer.is_attached:
                peer.send({"event": "tell", "text": text})

    # One client -------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _Peer(writer)
        if not _may_speak(writer):
            writer.close()
            return
        self._peers.add(peer)
        await self._converse(peer, reader)

    async def _converse(self, peer: _Peer, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    peer.send(_error("too_long", f"a line has at most {LONGEST_LINE} bytes"))
                    break
                if not line:
                    break
                self._take(peer, line)
                await peer.writer.drain()
        except OSError:
            pass  # it went away
        finally:
            self._peers.discard(peer)
            peer.leave()
            peer.writer.close()

    def _take(self, peer: _Peer, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            peer.send(_error("malformed", "a message is one JSON object on one line"))
            return
        if message.get("v") != VERSION:
            peer.send(_error("version", f"this speaks version {VERSION}"))
            return
        command = message.get("cmd")
        if command == "status":
            peer.send({"ok": True, "snapshot": self._snapshot()})
        elif command in ("watch", "attach"):
            peer.watches = True
            peer.is_attached = command == "attach"
            peer.send({"event": "snapshot", "snapshot": self._snapshot()})
            if peer.is_attached:
                self._on_attach()
        elif command == "answer":
            self._take_answer(peer, message)
        elif isinstance(command, str) and command in self._commands:
            self._commands[command]()
            peer.send({"ok": True})
        elif isinstance(command, str) and command in self._requests:
            self._keep(self._answer(peer, self._requests[command], message))
        else:
            peer.send(_error("unknown", "there is no such command"))

    async def _answer(self, peer: _Peer, request: Request, message: Mapping[str, Any]) -> None:
        try:
            peer.send({"ok": True, **await request(message)})
        except SshvpnError as error:
            told = {"message": str(error), "hint": error.hint, "exit_code": error.exit_code}
            peer.send({"ok": False, "error": {"code": error.code, **told}})
        except (ValueError, KeyError, TypeError, AttributeError):
            peer.send(_error("malformed", "the message does not hold what this command needs"))
        except Exception as bug:
            log.debug("unexpected", exc_info=True)
            peer.send(_error("failed", f"something unexpected: {type(bug).__name__}: {bug}"))

    def _keep(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _take_answer(peer: _Peer, message: Mapping[str, Any]) -> None:
        number, text = message.get("id"), message.get("text")
        question = peer.questions.get(number) if isinstance(number, int) else None
        if question is None or question.done() or not isinstance(text, str | None):
            peer.send(_error("no_question", "nothing of that number was asked"))
            return
        question.set_result(text)


def _error(code: str, message: str) -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": message}}


def _may_speak(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer is this user or root (unix(7), SO_PEERCRED)."""
    connected = writer.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the mode of the socket and of its directory say so
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return uid in (0, os.getuid())

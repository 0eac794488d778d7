"""Waits at a terminal for a session that another process runs, and answers its questions."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import click

from sshvpn import wiring
from sshvpn.control import Client
from sshvpn.errors import LoginNeededError, SshvpnError, UnreachableError, exit_code_of

Snapshot = dict[str, Any]


class Ended(SshvpnError):  # noqa: N818 (the other side's error, whatever it was)
    """The session is not running, for the reason that it tells."""

    def __init__(self, code: str, exit_code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code  # type: ignore[misc]
        self.code = code  # type: ignore[misc]

    @classmethod
    def of_end(cls, message: dict[str, Any]) -> Ended:
        """Return what an ``end`` event tells."""
        return cls(
            (message.get("error") or {}).get("code", "failed"),
            message.get("exit_code") or SshvpnError.exit_code,
            message.get("message") or "it has ended",
            message.get("hint") or "",
        )

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> Ended:
        """Return the last error of a session that has failed or waits."""
        error = _last_error(snapshot) or {"code": "failed", "message": "it has failed"}
        message, _, hint = error["message"].partition("; ")
        return cls(error["code"], exit_code_of(error["code"]), message, hint)


def follow_start(client: Client, *, verbose: bool = False) -> Snapshot:
    """Return the first snapshot that is running; show warnings, answer prompts meanwhile.

    ``verbose``: show all that is logged. Raises Ended where it does not come to that.
    """
    return _Follower(client, verbose=verbose).follow(None)


def rejoin(
    directory: Path, snapshot: Snapshot, *, timeout_s: float | None, verbose: bool
) -> Snapshot:
    """Return the next snapshot that is running of a session that is up, but is not running.

    At a terminal its questions are answered. What waits, or has failed, is tried again now.
    ``timeout_s`` bounds the wait (None: no bound), prompts not counted. Raises Ended,
    UnreachableError after that time; the session stays as it is.
    """
    can_answer = wiring.terminal_prompter() is not None
    if _needs_login(snapshot) and not can_answer:
        raise Ended.of_snapshot(snapshot)
    client = Client.connect(directory)
    try:
        client.send({"cmd": "attach" if can_answer else "watch"})
        if not can_answer and snapshot["state"] != "starting":
            client.send({"cmd": "wake"})
        return _Follower(client, verbose=verbose).follow(timeout_s)
    finally:
        client.close()


class _Follower:
    def __init__(self, client: Client, *, verbose: bool) -> None:
        self._client = client
        self._verbose = verbose
        self._deadline: float | None = None
        self._has_tried = False
        self._last: Snapshot = {}

    def follow(self, timeout_s: float | None) -> Snapshot:
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            message = self._receive()
            match message.get("event"):
                case "snapshot":
                    if self._is_running(message["snapshot"]):
                        return self._last
                case "notice":
                    if self._verbose or message["level"] not in ("info", "debug"):
                        click.echo(f"sshvpn: {message['text']}", err=True)
                case "tell":
                    click.echo(message["text"], err=True)
                case "prompt":
                    self._answer(message)
                case "end":
                    raise Ended.of_end(message)
                case _:
                    pass

    def _receive(self) -> dict[str, Any]:
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.001)
        self._client.wait_at_most(left)
        try:
            message = self._client.receive()
        except TimeoutError:
            error = _last_error(self._last) or {"message": "the server does not answer"}
            raise UnreachableError(
                f"it is up, and still waits: {error['message'].partition('; ')[0]}",
                "sshvpn status shows how it goes on",
            ) from None
        if message is None:
            raise SshvpnError("the background process has ended", "sshvpn logs may tell why")
        return message

    def _is_running(self, snapshot: Snapshot) -> bool:
        self._last = snapshot
        state = snapshot["state"]
        # The first snapshots may be from before the attempt that our coming has brought about.
        self._has_tried = self._has_tried or state == "starting"
        if self._has_tried and (state == "failed" or _needs_login(snapshot)):
            raise Ended.of_snapshot(snapshot)
        return bool(state == "running")

    def _answer(self, message: dict[str, Any]) -> None:
        asked_at = time.monotonic()
        text = wiring.ask_at_terminal(message["prompt"], echo=bool(message["echo"]))
        if self._deadline is not None:
            self._deadline += time.monotonic() - asked_at
        with contextlib.suppress(OSError):  # it has ended meanwhile, and the next message tells why
            self._client.send({"cmd": "answer", "id": message["id"], "text": text})


def _last_error(snapshot: Snapshot) -> dict[str, str] | None:
    records = snapshot.get("records") or [{}]
    error: dict[str, str] | None = records[0].get("last_error")
    return error


def _needs_login(snapshot: Snapshot) -> bool:
    error = _last_error(snapshot) or {}
    return snapshot["state"] == "backoff" and error.get("code") == LoginNeededError.code

"""Waits at a terminal for a session that another process runs, and answers its questions."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from sshvpn.cli.hosts import START_WITHIN_S
from sshvpn.cli.told import is_told
from sshvpn.control import AlreadyUpError, Client, is_alive, request
from sshvpn.errors import LoginNeededError, SshvpnError, UnreachableError, exit_code_of
from sshvpn.model import ForwardProfile, TunnelProfile
from sshvpn.wire import profile_to_json
from sshvpn.wiring import places, terminal

Snapshot = dict[str, Any]

CHANGE = "change"
"""The level of a notice that is a command: a change to one of the machines, as it is made."""
DETAIL = "detail"
"""The level of a notice for the log, which nobody who looks on would miss."""
QUIET = ("debug", CHANGE, "info", DETAIL)
"""The levels of notices that are shown only to who wants to know more."""
_ANSWER_WITHIN_S = 5.0
_UNDONE_WITHIN_S = 10.0
_POLL_S = 0.05
_TOLD_WITHIN_S = 3.0
"""A name that is another's takes two attempts."""


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
    def of_refusal(cls, error: dict[str, Any]) -> Ended:
        """Return what a reply says that is not ok."""
        exit_code = error.get("exit_code") or SshvpnError.exit_code
        return cls(error["code"], exit_code, error["message"], error.get("hint") or "")

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> Ended:
        """Return the last error of a session that has failed or waits."""
        error = _last_error(snapshot) or {"code": "failed", "message": "it has failed"}
        message, _, hint = error["message"].partition("; ")
        return cls(error["code"], exit_code_of(error["code"]), message, hint)


def follow_start(launched: socket.socket, hidden: Collection[str]) -> Snapshot | None:
    """Return the first snapshot that is running; show notices, answer prompts meanwhile.

    ``launched`` is the socket to a process that was just started, and is closed in the end;
    notices of the levels ``hidden`` are not shown. None: another process has the session.
    Raises Ended where it does not come to ``running``; all that it made is undone then.
    """
    client = Client(launched)
    follower = _Follower(client, hidden)
    try:
        return follower.follow(None)
    except BaseException as error:
        # It may run since this very moment, and who gives up does not want it; or it ran for a
        # moment, and would be kept for who mends it.
        with contextlib.suppress(OSError):
            client.send({"cmd": "down"})
            # Its end is told when all is undone: that it has failed, before that.
            follower.hear_out(_UNDONE_WITHIN_S, shows=isinstance(error, KeyboardInterrupt))
        client.wait_end(_UNDONE_WITHIN_S)
        if isinstance(error, Ended) and error.code == AlreadyUpError.code:
            return None
        raise
    finally:
        client.close()


def join(
    profile: ForwardProfile | TunnelProfile, others: SshvpnError, hidden: Collection[str]
) -> Snapshot:
    """Return a snapshot that is running of the session that is up as ``profile`` is called.

    Where it waits, it is tried again now, and at a terminal its questions are answered.
    Raises ``others`` where it is up with other wishes (a bare name wishes nothing), and what
    :func:`_rejoin` does.
    """
    directory = places.session_path(profile)
    snapshot = snapshot_of(profile.name, directory)
    if not profile.is_met_by(snapshot["wanted"]):
        raise others
    if snapshot["state"] == "running":
        return snapshot
    return _rejoin(directory, snapshot, timeout_s=profile.timeout_s, hidden=hidden)


def restart(
    directory: Path,
    profile: ForwardProfile | TunnelProfile | None,
    hidden: Collection[str],
    within_s: float | None = None,
) -> Snapshot:
    """Let a session make a new connection, with ``profile`` (None: as it is); return it running.

    ``within_s`` bounds the wait; None: what the profile says of a start. Its questions are
    answered at a terminal. Raises Ended with what is wrong with the profile (the session goes on
    as before), UnreachableError where it does not run in time.
    """
    client = Client.connect(directory)
    try:
        client.send({"cmd": "attach" if terminal.prompter() is not None else "watch"})
        plain = None if profile is None else profile_to_json(profile)
        client.send({"cmd": "restart", "profile": plain})
        timeout_s = within_s or (profile and profile.timeout_s) or START_WITHIN_S
        return _Follower(client, hidden).reply(timeout_s)
    finally:
        client.close()


def snapshot_of(name: str, directory: Path) -> Snapshot:
    """Return how a session stands; one that is just starting answers in a moment."""
    deadline = time.monotonic() + _ANSWER_WITHIN_S
    while is_alive(directory) and time.monotonic() < deadline:
        reply = request(directory, "status")
        if reply is not None:
            snapshot: Snapshot = reply["snapshot"]
            return snapshot
        time.sleep(_POLL_S)
    raise SshvpnError(f"{name} is up and does not answer", "try again, or see: sshvpn status")


def wait_told(
    profile: ForwardProfile | TunnelProfile, directory: Path, snapshot: Snapshot
) -> Snapshot:
    """Return ``snapshot`` once the local network is told what ``profile`` wants, or in a while.

    A name takes a second (nobody else must have it), which only a person waits for; a portal is
    waited for by everybody who asked for one. What was there before is said at once.
    """
    wishes = profile.wishes
    is_awaited = wishes.portal is not None or (wishes.announce and is_terminal())
    is_shared = bool(snapshot["records"][0].get("lan", profile.lan))
    if not (is_awaited and is_shared):
        return snapshot

    def holds(said: Snapshot) -> bool:
        portal = wishes.portal is not None
        return is_told(said["records"][0], announce=wishes.announce, portal=portal)

    return wait_for(profile.name, directory, holds, _TOLD_WITHIN_S)


def is_terminal() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout is not None and sys.stdout.isatty()


def wait_for(
    name: str,
    directory: Path,
    condition: Callable[[Snapshot], bool],
    within_s: float = _ANSWER_WITHIN_S,
) -> Snapshot:
    """Return how a session stands once ``condition`` holds, or in a while."""
    deadline = time.monotonic() + within_s
    while True:
        snapshot = snapshot_of(name, directory)
        if condition(snapshot) or time.monotonic() > deadline:
            return snapshot
        time.sleep(_POLL_S)


def _rejoin(
    directory: Path, snapshot: Snapshot, *, timeout_s: float | None, hidden: Collection[str]
) -> Snapshot:
    """Return the next snapshot that is running of a session that is up, but is not running.

    ``timeout_s`` bounds the wait (None: no bound), prompts not counted. Raises Ended,
    UnreachableError after that time; the session stays as it is.
    """
    can_answer = terminal.prompter() is not None
    if _needs_login(snapshot) and not can_answer:
        raise Ended.of_snapshot(snapshot)
    client = Client.connect(directory)
    try:
        client.send({"cmd": "attach" if can_answer else "watch"})
        if not can_answer and snapshot["state"] != "starting":
            client.send({"cmd": "wake"})
        return _Follower(client, hidden).follow(timeout_s)
    finally:
        client.close()


class _Follower:
    def __init__(self, client: Client, hidden: Collection[str]) -> None:
        self._client = client
        self._hidden = hidden
        self._deadline: float | None = None
        self._has_tried = False
        self._last: Snapshot = {}

    def follow(self, timeout_s: float | None) -> Snapshot:
        """Return the first snapshot that is running."""
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            message = self._receive()
            if message.get("event") == "snapshot":
                if self._is_running(message["snapshot"]):
                    return self._last
            else:
                self._take(message)

    def reply(self, timeout_s: float | None) -> Snapshot:
        """Return the snapshot in the reply to the one request that was sent."""
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            message = self._receive()
            if message.get("event") == "snapshot":
                self._last = message["snapshot"]
            elif "snapshot" in message:
                snapshot: Snapshot = message["snapshot"]
                return snapshot
            elif "ok" in message and not message["ok"]:
                raise Ended.of_refusal(message["error"])
            else:
                self._take(message)

    def hear_out(self, seconds: float, *, shows: bool) -> None:
        """Hear, and show, what is said until the end, or for so long; nothing is answered."""
        self._deadline = time.monotonic() + seconds
        with contextlib.suppress(SshvpnError):
            while (message := self._receive()).get("event") != "end":
                if shows and message.get("event") == "notice":
                    self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        match message.get("event"):
            case "notice":
                if message["level"] not in self._hidden:
                    mark = "" if message["level"] == CHANGE else "sshvpn: "
                    click.echo(f"{mark}{message['text']}", err=True)
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
        text = terminal.ask(message["prompt"], echo=bool(message["echo"]))
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

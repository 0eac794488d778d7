"""What a service manager is told of a session: when it is ready, and how it stands in one line.

::

    starting, backoff ── STATUS ──>     running ── READY, STATUS ──>     stopping ── STOPPING ──>
                                          └── HUP ── RELOADING ── … running ── READY

READY is said in ``running``: what a service manager calls started is a tunnel through which a
packet has come back. It also ends a reload that only a person can go on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sshvpn.boundary import Manager
from sshvpn.errors import FileOwnerError, SshvpnError


class Readiness:
    """Tells ``manager`` of one session, once a change."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._is_ready = False
        self._is_reloading = False
        self._last = ""

    def take(self, snapshot: Mapping[str, Any]) -> None:
        """Tell what is new in ``snapshot``."""
        status = status_line(snapshot)
        news: dict[str, str] = {}
        is_over = self._is_reloading and _waits_for_a_person(snapshot)
        if (snapshot["state"] == "running" or is_over) and not self._is_ready:
            self._is_ready = True
            self._is_reloading = False
            news["READY"] = "1"
        if status != self._last:
            self._last = status
            news["STATUS"] = status
        if snapshot["state"] == "stopping":
            news["STOPPING"] = "1"
        if news:
            self._manager.say(**news)

    def reloading(self) -> None:
        """Tell that a new connection is being made; the next ``running`` ends it."""
        if self._is_ready:
            self._is_ready = False
            self._is_reloading = True
            self._last = "a new connection was asked for"
            self._manager.say_reloading(self._last)

    def is_for_manager(self, snapshot: Mapping[str, Any]) -> bool:
        """Whether it has failed of where its manager has put it: another process may do better."""
        error = snapshot["records"][0]["last_error"]
        is_owner = error is not None and error["code"] == FileOwnerError.code
        return snapshot["state"] == "failed" and is_owner and self._manager.hides_owners

    def failed(self, error: SshvpnError) -> None:
        """Tell why the session has ended: the last words."""
        self._manager.say(STOPPING="1", STATUS=f"failed: {_told(error.as_record())}")


def status_line(snapshot: Mapping[str, Any]) -> str:
    """Return in one line how a session stands, with why and what to do where it does not run."""
    records = snapshot["records"]
    state = str(snapshot["state"])
    error = next((record["last_error"] for record in records if record["last_error"]), None)
    if state == "running":
        return f"running: {', '.join(filter(None, map(_where, records)))}"
    if error is None or state == "stopping":
        return state
    retry_at = records[0]["retry_at"]
    # An instant to the second; the fractions are for programs.
    when = f"; next try at {retry_at[:19]}Z" if retry_at else ""
    return f"{state}: {_told(error)}{when}"


def _waits_for_a_person(snapshot: Mapping[str, Any]) -> bool:
    state, retry_at = snapshot["state"], snapshot["records"][0]["retry_at"]
    return state == "failed" or (state == "backoff" and retry_at is None)


def _told(error: Mapping[str, str]) -> str:
    return error["message"]


def _where(record: Mapping[str, Any]) -> str:
    if "listen" in record:
        return " ".join([*record["listen"], f"-> {record['host']}"])
    routes = [f"routes {' '.join(record['routes'])}"] if record["routes"] else []
    return " ".join([str(record["host"]), "is", str(record["remote_address"]), *routes])

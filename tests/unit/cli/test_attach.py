"""Who waits at a terminal for a session that another process runs."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from sshvpn.cli import attach


class FakeClient:
    """A session that has been made anew; it notes how long it is waited for."""

    waits: list[float | None]

    def __init__(self) -> None:
        FakeClient.waits = []

    @classmethod
    def connect(cls, _: Path) -> FakeClient:
        return cls()

    def send(self, message: dict[str, Any]) -> None:
        """Hear it."""

    def wait_at_most(self, seconds: float | None) -> None:
        self.waits.append(seconds)

    def receive(self) -> dict[str, Any]:
        return {"ok": True, "snapshot": {"state": "running"}}

    def close(self) -> None:
        """End."""


@pytest.mark.parametrize(("within_s", "waited_s"), [(None, 30), (120.0, 120)])
def test_a_restart_is_waited_for_as_long_as_is_said(
    monkeypatch: pytest.MonkeyPatch, within_s: float | None, waited_s: float
) -> None:
    monkeypatch.setattr(attach, "Client", FakeClient)
    monkeypatch.setattr("sshvpn.wiring.terminal.prompter", lambda: None)
    assert attach.restart(Path("/x"), None, (), within_s)["state"] == "running"
    assert FakeClient.waits == [pytest.approx(waited_s, abs=5)]


@pytest.mark.parametrize("is_kept", [True, False], ids=["ran for a moment", "gave up"])
def test_a_start_that_fails_leaves_no_session(is_kept: bool) -> None:
    """One that ran for a moment would be kept, for who mends what it failed of."""
    ours, theirs = socket.socketpair()
    error = {"code": "tunnel_refused", "message": "no", "hint": ""}
    snapshot = {"state": "failed", "records": [{"last_error": error}]}
    lines = [{"event": "snapshot", "snapshot": {**snapshot, "state": "starting"}},
             {"event": "snapshot", "snapshot": snapshot}]  # fmt: skip
    heard: list[str] = []

    def session() -> None:
        with theirs:
            theirs.sendall("".join(f"{json.dumps(line)}\n" for line in lines).encode())
            if is_kept:
                heard.append(theirs.recv(1 << 16).decode())
                # Who hangs up now does not see that all is undone.
                theirs.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    theirs.recv(1)
                theirs.sendall(b'{"event": "end"}\n')

    thread = threading.Thread(target=session)
    thread.start()
    with pytest.raises(attach.Ended, match="no") as ended:
        attach.follow_start(ours, ())
    thread.join(5)
    assert thread.is_alive() is False
    assert ended.value.exit_code == 5
    assert [json.loads(text)["cmd"] for text in heard] == (["down"] if is_kept else [])

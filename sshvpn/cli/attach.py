"""Waits at a terminal for a session that another process runs, and answers its questions."""

from __future__ import annotations

from typing import Any

import click

from sshvpn.control import Client
from sshvpn.errors import SshvpnError


class Ended(SshvpnError):  # noqa: N818 (the other side's error, whatever it was)
    """The session has ended before it was running, with the error that it tells."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(message.get("message") or "it has ended", message.get("hint") or "")
        self.exit_code = int(message.get("exit_code") or 1)  # type: ignore[misc]
        error = message.get("error") or {}
        self.code = str(error.get("code", "failed"))  # type: ignore[misc]


def follow_start(client: Client, *, verbose: bool = False) -> dict[str, Any]:
    """Return the first snapshot that is running; show warnings, answer prompts meanwhile.

    ``verbose``: show all that is logged.

    Raises Ended where it does not come to that.
    """
    client.wait_forever()
    while True:
        message = client.receive()
        if message is None:
            raise SshvpnError("the background process has ended", "sshvpn logs may tell why")
        match message.get("event"):
            case "snapshot":
                if message["snapshot"]["state"] == "running":
                    snapshot: dict[str, Any] = message["snapshot"]
                    return snapshot
            case "notice":
                if verbose or message["level"] not in ("info", "debug"):
                    click.echo(f"sshvpn: {message['text']}", err=True)
            case "prompt":
                _answer(client, message)
            case "end":
                raise Ended(message)
            case _:
                pass


def _answer(client: Client, message: dict[str, Any]) -> None:
    from sshvpn import wiring

    text = wiring.ask_at_terminal(message["prompt"], echo=bool(message["echo"]))
    client.send({"cmd": "answer", "id": message["id"], "text": text})

"""An SSH server in this process, for logins that a real one would need users and PAM for."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import paramiko

HOST_KEY = paramiko.ECDSAKey.generate()


@dataclass
class Policy:
    """What a login needs: each of ``steps`` in turn."""

    steps: Sequence[str]
    password: str = "tulip"
    questions: dict[str, str] = field(default_factory=lambda: {"Code: ": "123456"})
    key: Any = None
    seen: list[str] = field(default_factory=list)


class Server(paramiko.ServerInterface):  # type: ignore[misc]
    """Lets in whoever satisfies the policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._left = list(policy.steps)
        self._was_asked = False

    def get_allowed_auths(self, username: str) -> str:
        del username
        return self._left[0] if self._left else "none"

    def _result(self, method: str, *, is_right: bool) -> int:
        self._policy.seen.append(f"{method} {'right' if is_right else 'wrong'}")
        if not is_right or method != self._left[0]:
            return int(paramiko.AUTH_FAILED)
        self._left.pop(0)
        return int(paramiko.AUTH_PARTIALLY_SUCCESSFUL if self._left else paramiko.AUTH_SUCCESSFUL)

    def check_auth_password(self, username: str, password: str) -> int:
        del username
        return self._result("password", is_right=password == self._policy.password)

    def check_auth_publickey(self, username: str, key: Any) -> int:
        # Called twice: when the client asks whether the key would do, and when it signs.
        del username
        self._was_asked = not self._was_asked
        if self._was_asked and key == self._policy.key:
            return int(paramiko.AUTH_SUCCESSFUL)
        return self._result("publickey", is_right=key == self._policy.key)

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        del username, submethods
        query = paramiko.InteractiveQuery("", "")
        for question in self._policy.questions:
            query.add_prompt(question, False)  # noqa: FBT003 (no echo)
        return query

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        is_right = list(responses) == list(self._policy.questions.values())
        return self._result("keyboard-interactive", is_right=is_right)


class RunningServer:
    """A server on one end of a socketpair; ``sock`` is the other. Close it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.sock, theirs = socket.socketpair()
        self._transport = paramiko.Transport(theirs)
        self._transport.add_server_key(HOST_KEY)
        self._transport.start_server(event=threading.Event(), server=Server(policy))

    def close(self) -> None:
        """End it; the client sees the end at once."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._transport.close()
        self._transport.join()
        self.sock.close()

"""A terminal in a machine that holds what is drawn on it, as a person sees it: tmux."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from tests.lab.machine import Machine
from tests.lab.process import wait_until

_SOCKET: Final = "/tmp/lab-screen"  # noqa: S108 -- each machine has its own


class Screen:
    """ARGV of a person of MACHINE at a terminal of COLUMNS x LINES; one at a time."""

    def __init__(
        self,
        machine: Machine,
        argv: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        columns: int = 120,
        lines: int = 50,
    ) -> None:
        """Start it; what was seen stays when it ends, until `close`."""
        self._machine = machine
        size = ["-x", str(columns), "-y", str(lines)]
        settings = ["set", "-g", "remain-on-exit", "on", ";", "set", "-g", "status", "off", ";"]
        self._tmux(*settings, "new-session", "-d", *size, shlex.join(argv), env=env)
        machine._undo.callback(self.close)

    def wait(self, pattern: str, timeout: float = 30) -> str:
        """Return what is seen once PATTERN is found in it; `.` is the end of a line, too."""

        def seen() -> str:
            text = self.text()
            return text if re.search(pattern, text, re.DOTALL) else ""

        try:
            return wait_until(seen, timeout, every=0.1)
        except TimeoutError as error:
            raise TimeoutError(f"not on the screen: {pattern}\n{self.text()}") from error

    def text(self) -> str:
        """Return the characters that are seen."""
        return self._tmux("capture-pane", "-p")

    def coloured(self) -> str:
        """Return the same with their colours, as escape sequences."""
        return self._tmux("capture-pane", "-p", "-e", "-N")

    def press(self, *keys: str) -> None:
        """Press KEYS, by tmux's names (C-c)."""
        self._tmux("send-keys", *keys)

    def close(self) -> None:
        """End it, and what runs there; twice is fine."""
        self._tmux("kill-server", check=False)
        self._machine.host_path(_SOCKET).unlink(missing_ok=True)

    def _tmux(
        self, *words: str, env: Mapping[str, str | None] | None = None, check: bool = True
    ) -> str:
        argv = ["tmux", "-f", "/dev/null", "-S", _SOCKET, *words]
        return self._machine.run(argv, env=env, check=check).stdout

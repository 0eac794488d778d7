"""A browser at a machine of the laboratory, from outside (the other side: `_visit.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Final

from tests.lab.machine import CHECKOUT, Machine
from tests.lab.process import LabError, read_line

PHONE: Final = (390, 844)
TABLET: Final = (820, 1180)
DESKTOP: Final = (1280, 800)
_STARTS_WITHIN_S = 60


class Browser:
    """A Chromium at MACHINE, until the end of the `with` block.

    With RUNNING it is the one whose debugger is at that address, and as it is.
    """

    def __init__(self, machine: Machine, running: str | None = None) -> None:
        """Start it, or take it over."""
        argv = [sys.executable, "-m", "tests.lab._visit", *([running] if running else [])]
        self._machine = machine
        # Without a run-time directory it leaves nothing there.
        nowhere = {"XDG_RUNTIME_DIR": None}
        self._child = machine.popen(argv, env=nowhere, stdin=subprocess.PIPE, cwd=str(CHECKOUT))

    def open(self, url: str, size: tuple[int, int] = DESKTOP, *, is_dark: bool = False) -> str:
        """Load URL on a screen of SIZE, and return the page's title."""
        width, height = size
        order = {"open": url, "width": width, "height": height,
                 "is_phone": size in (PHONE, TABLET), "is_dark": is_dark}  # fmt: skip
        return str(self._do(order))

    def script(self, code: str) -> Any:
        """Return what the JavaScript CODE returns on the page."""
        return self._do({"script": code})

    def picture(self) -> bytes:
        """Return the page as a PNG."""
        path = f"{self._machine.users[0].home}/page.png"
        self._do({"shot": path})
        file = self._machine.host_path(path)
        taken = file.read_bytes()
        file.unlink()
        return taken

    def complaints(self) -> list[str]:
        """Return what the browser has complained of: a broken policy, a script's error."""
        return [str(entry["message"]) for entry in self._do({"log": True})]

    def _do(self, order: dict[str, Any]) -> Any:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        line = read_line(self._child, timeout=_STARTS_WITHIN_S)
        if not line:
            raise LabError(f"the browser has ended: {self._child.communicate()[1]}")
        said = json.loads(line)
        if "error" in said:
            raise LabError(said["error"])
        return said["result"]

    def __enter__(self) -> Browser:  # noqa: PYI034 (Self is younger than Python 3.10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.stdin = None
        try:
            self._child.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._child.end()

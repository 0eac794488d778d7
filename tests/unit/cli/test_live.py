"""What a terminal shows of the live view: a small terminal stands at its other end."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import termios
from typing import Any

import pytest
from rich.console import Console

from sshvpn.cli.live import LiveView
from tests.unit.cli.test_frame import NOW, record, session

PATTERN = re.compile(
    r"(?P<up>\x1b\[(\d+)A)|(?P<eol>\x1b\[K)|(?P<below>\x1b\[J)|(?P<style>\x1b\[[\d;]*m)"
    r"|(?P<link>\x1b\]8;[^\x1b]*\x1b\\)|(?P<cr>\r)|(?P<lf>\n)|(?P<text>[^\x1b\r\n]+)|(?P<bad>.)"
)


class Terminal(io.StringIO):
    """Interprets what is written, as a terminal that is high enough would."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]
        self.row = self.column = 0
        self.written = ""

    def write(self, text: str) -> int:
        self.written = text
        for found in PATTERN.finditer(text):
            kind = found.lastgroup
            assert kind is not None
            assert kind != "bad", text
            getattr(self, f"_{kind}")(found)
        return len(text)

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines]

    def _up(self, found: re.Match[str]) -> None:
        self.row = max(self.row - int(found[2]), 0)

    def _eol(self, _: object) -> None:
        self.lines[self.row] = self.lines[self.row][: self.column]

    def _below(self, _: object) -> None:
        self._eol(None)
        del self.lines[self.row + 1 :]

    def _style(self, _: object) -> None: ...

    def _link(self, _: object) -> None: ...

    def _cr(self, _: object) -> None:
        self.column = 0

    def _lf(self, _: object) -> None:
        self.row += 1
        self.column = 0
        if self.row == len(self.lines):
            self.lines.append("")

    def _text(self, found: re.Match[str]) -> None:
        line = self.lines[self.row].ljust(self.column)
        end = self.column + len(found[0])
        self.lines[self.row] = line[: self.column] + found[0] + line[end:]
        self.column = end


def snapshot(rx: int = 0, **changes: Any) -> list[dict[str, Any]]:
    return [session(record(**changes), traffic={"rx_bytes": rx, "tx_bytes": 0, "connections": 0})]


@pytest.fixture
def terminal() -> Terminal:
    found = Terminal()
    found.write("$ sshvpn forward\n")
    return found


def view_on(terminal: io.StringIO, *, width: int = 80, **options: Any) -> LiveView:
    console = Console(
        file=terminal, force_terminal=True, width=width, height=24, color_system="256", **options
    )
    times = iter(range(1000))
    return LiveView(console, lambda: NOW + next(times))


def test_it_is_drawn_over_the_last_picture(terminal: Terminal) -> None:
    view = view_on(terminal)
    view.start()
    view.update(snapshot(state="starting", listen=[], url=None))
    for number in range(5):
        view.update(snapshot(rx=number * 1_000_000))
    assert terminal.shown() == [
        "$ sshvpn forward",
        terminal.shown()[1],
        "  http://localhost:9999/  → localhost:8888",
        "  ↓  4.0 MB  500 kB/s   ↑     0 B     0 B/s   0 connections",
        "  Ctrl-C ends it",
        "",
    ]
    assert terminal.shown()[1].startswith("● gpu-box  running since")


def test_nothing_is_drawn_before_the_start(terminal: Terminal) -> None:
    view = view_on(terminal)
    view.update(snapshot())
    assert terminal.shown() == ["$ sshvpn forward", ""]


def test_a_prompt_has_the_terminal_for_itself(terminal: Terminal) -> None:
    view = view_on(terminal)
    view.start()
    view.update(snapshot(state="starting"))
    view.pause()
    assert terminal.shown() == ["$ sshvpn forward", ""]
    terminal.write("Password: ")
    view.update(snapshot(state="starting"))
    view.pause()
    view.resume()
    assert terminal.shown()[-1] == "Password:"
    terminal.write("\n")
    view.resume()
    view.update(snapshot())
    assert terminal.shown()[:2] == ["$ sshvpn forward", "Password:"]
    assert sum(line.startswith("●") for line in terminal.shown()) == 1


def test_it_is_a_line_where_it_would_push_out_what_a_camera_has_to_see(
    terminal: Terminal,
) -> None:
    # Of 24, and the cursor's own line; the last is with a warning.
    for above, height, warned in ((19, 4, 2), (20, 1, 2), (22, 1, 5), (23, 4, 5)):
        view = view_on(terminal, width=100)
        view.start()
        view.pause()
        view.keep_above(above)
        terminal.write("$\n")
        before = len(terminal.shown())
        view.resume()
        view.update(snapshot())
        assert len(terminal.shown()) - before == height, above
        assert terminal.shown()[before - 1].startswith("● gpu-box  running since")
        assert "Ctrl-C ends it" in terminal.shown()[-2]
        view.update(snapshot(state="backoff"))
        assert len(terminal.shown()) - before > 1, "what is wrong is told whole"
        view.update(snapshot(), ["a warning"])
        assert "a warning" in "".join(terminal.shown()[before:])
        assert len(terminal.shown()) - before == warned, above
        view.pause()
        view.resume()
        view.update(snapshot())
        assert len(terminal.shown()) - before == 4, "a prompt was there"
        view.stop()


def test_stopping_leaves_the_last_picture_without_the_hint(terminal: Terminal) -> None:
    view = view_on(terminal)
    view.start()
    view.update(snapshot(rx=5))
    view.stop()
    view.stop()
    view.update(snapshot(rx=7))
    assert "5 B" in terminal.shown()[-2]
    assert terminal.shown()[-1] == ""
    assert "Ctrl-C" not in "\n".join(terminal.shown())


def test_stopping_in_the_middle_of_a_prompt_leaves_it_alone(terminal: Terminal) -> None:
    view = view_on(terminal)
    view.start()
    view.update(snapshot(state="starting"))
    view.pause()
    terminal.write("Password: ")
    view.stop()
    assert terminal.shown() == ["$ sshvpn forward", "Password:"]


def test_a_terminal_that_became_narrower_has_broken_the_lines(terminal: Terminal) -> None:
    console = Console(file=terminal, force_terminal=True, width=80, height=24)
    view = LiveView(console, lambda: NOW)
    view.start()
    view.update(snapshot())
    cells = [len(line) for line in terminal.shown()[1:-1]]
    console.width = 30
    view.update(snapshot())
    rows = sum(-(-count // 30) for count in cells)
    assert terminal.written.startswith(f"\r\x1b[{rows}A")


def test_no_color_keeps_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    view = view_on(file)
    view.start()
    view.update(snapshot())
    assert "running since" in file.getvalue()
    assert not re.search(r"\x1b\[[\d;]*3[0-9][\d;]*m", file.getvalue())


def test_signs_that_the_terminal_cannot_show_are_replaced() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="iso-8859-1")
    view = view_on(file)  # type: ignore[arg-type]
    view.start()
    view.update(snapshot(target="데이터:5432"))
    written = raw.getvalue().decode("iso-8859-1")
    assert "-> ???:5432" in re.sub(r"\x1b\[[\d;]*m", "", written)


@pytest.mark.parametrize("dumb", [True, False])
def test_where_nothing_can_be_redrawn_news_are_lines(
    monkeypatch: pytest.MonkeyPatch, *, dumb: bool
) -> None:
    file = io.StringIO()
    if dumb:
        monkeypatch.setenv("TERM", "dumb")
    view = LiveView(Console(file=file, force_terminal=dumb, width=80), lambda: NOW)
    view.start()
    for rx in range(3):
        view.update(snapshot(rx=rx, state="starting", listen=[], url=None))
    for rx in range(3):
        view.update(snapshot(rx=rx))
    view.pause()
    view.resume()
    view.stop()
    lines = file.getvalue().splitlines()
    assert lines[:2] == ["gpu-box: starting", "  not listening → localhost:8888"]
    assert lines[2].startswith("gpu-box: running since")
    assert lines[3:] == ["  http://localhost:9999/ → localhost:8888"]


KEYS = """
import os, pty, sys, termios
from rich.console import Console
from sshvpn.cli.live import LiveView
def echo():
    return bool(termios.tcgetattr(0)[3] & termios.ECHO)
view = LiveView()
view.start()
seen = [echo()]
view.update([])
seen.append(echo())
view.pause()
seen.append(echo())
view.resume()
seen.append(echo())
if sys.argv[1] == "stop":
    view.stop()
    seen.append(echo())
os.write(int(sys.argv[2]), repr(seen).encode())
"""


@pytest.mark.parametrize(
    ("how", "expected"),
    [("stop", "[True, False, True, False, True]"), ("die", "[True, False, True, False]")],
)
def test_typed_keys_do_not_move_the_picture(how: str, expected: str) -> None:
    """Echo is off while drawing, and on for prompts and afterwards, even after an exit."""
    reader, writer = os.pipe()
    controller, terminal = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm"}
        subprocess.run(
            ["setsid", "-wc", sys.executable, "-c", KEYS, how, str(writer)],
            stdin=terminal,
            stdout=terminal,
            pass_fds=[writer],
            env=environment,
            check=True,
            timeout=60,
        )
        assert os.read(reader, 1000).decode() == expected
        assert termios.tcgetattr(terminal)[3] & termios.ECHO
    finally:
        for descriptor in (reader, writer, controller, terminal):
            os.close(descriptor)

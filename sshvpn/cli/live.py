"""The live view of what is up, redrawn in its place on a terminal.

It owns the lines that it drew last and nothing above them. It draws only while its process is
in the terminal's foreground, and never between :meth:`LiveView.pause` and ``resume``, where a
prompt has the terminal. On what cannot be redrawn (a pipe, TERM=dumb) it prints plain lines,
and only when something has happened.
"""

from __future__ import annotations

import atexit
import os
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.text import Text

from sshvpn.cli.frame import ASCII, UNICODE, RateMeter, Room, Shown, Snapshot, brief, frame, plain

_UP = "\x1b[{}A"
_CLEAR_TO_END_OF_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"

_KEYS = 0
"""The descriptor that keys are typed at."""
_LOCAL_MODES = 3
"""Where termios.tcgetattr keeps c_lflag."""


class LiveView:
    """Shows the snapshots of sessions (see :mod:`sshvpn.cli.frame`) until it is stopped.

    ``clock`` gives seconds since the epoch, ``hint`` is the line below all. Start and stop may
    be called twice; pauses nest. Not for several threads at once.
    """

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
        hint: str = "Ctrl-C ends it",
    ) -> None:
        self._console = console or Console(highlight=False)
        self._clock = clock
        self._hint = hint
        self._rates: dict[tuple[Any, ...], RateMeter] = {}
        self._keys = _SilentKeys()
        self._shown: Shown | None = None
        self._notices: Sequence[str] = ()
        self._is_on = False
        self._pauses = 0
        self._above = 0
        self._drawn: list[int] = []
        self._printed: list[str] = []

    def start(self) -> None:
        """Begin to draw, at the next update."""
        self._is_on = True

    def update(self, snapshots: Sequence[Snapshot], notices: Sequence[str] = ()) -> None:
        """Show ``snapshots`` from now on. Call it at each event, and once a second."""
        now, before, self._rates = self._clock(), self._rates, {}
        shown = []
        for snapshot in snapshots:
            which = (snapshot["kind"], snapshot["name"], snapshot["records"][0]["pid"])
            meter = self._rates[which] = before.get(which) or RateMeter()
            traffic = snapshot["traffic"]
            meter.add(now, traffic.get("rx_bytes"), traffic.get("tx_bytes"))
            shown.append((snapshot, meter.rates()))
        self._shown, self._notices = shown, notices
        self._draw()

    def pause(self) -> None:
        """Take the picture away and leave the terminal to a prompt, until :meth:`resume`."""
        self._pauses += 1
        self._above = 0
        if self._pauses == 1 and self._is_on:
            self._erase()

    def keep_above(self, lines: int) -> None:
        """Leave the LINES that were written last in sight, until the next pause.

        Where the picture would push them out, and a line would not, it is a line.
        """
        self._above = lines

    def resume(self) -> None:
        """Draw again, below whatever was written meanwhile."""
        self._pauses -= 1
        if self._pauses == 0:
            self._draw()

    def stop(self) -> None:
        """Leave the last picture as plain lines, without the hint; draw no more."""
        if not self._is_on:
            return
        if self._pauses == 0 and self._shown is not None and self._can_redraw():
            if not _is_in_foreground(self._console):
                self._drawn = []
            self._paint(self._picture(hint=""))
        self._is_on = False
        self._drawn = []
        self._keys.restore()

    # Drawing ----------------------------------------------------------------------------

    def _can_redraw(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def _draw(self) -> None:
        if not self._is_on or self._pauses or self._shown is None:
            return
        if not self._can_redraw():
            snapshots = [snapshot for snapshot, _ in self._shown]
            self._print_news(plain(snapshots, self._clock(), self._room(), self._notices))
        elif _is_in_foreground(self._console):
            self._keys.silence()
            self._paint(self._picture(self._hint))
        else:
            # The shell has the terminal, and its lines stand below ours when we are back.
            self._drawn = []

    def _picture(self, hint: str) -> list[Text]:
        shown, room = self._shown or (), self._room()
        picture = frame(shown, self._clock(), room, hint, self._notices)
        # The cursor has a line below it.
        space = room.height - self._above - 1
        if not self._above or len(picture) <= space:
            return picture
        short = brief(shown, self._clock(), room, hint, self._notices)
        return short if len(short) <= space else picture

    def _room(self) -> Room:
        # The last cell stays free: some terminals wrap as soon as it is written.
        width, height = self._console.size
        try:
            f"{UNICODE.state}{UNICODE.to}{UNICODE.received}".encode(self._console.encoding)
        except (UnicodeEncodeError, LookupError):
            return Room(width - 1, height, ASCII)
        return Room(width - 1, height, UNICODE)

    def _paint(self, picture: Sequence[Text]) -> None:
        """Write ``picture`` over the last one, in one go, so that nothing flickers."""
        lines = [f"{self._rendered(line)}{_CLEAR_TO_END_OF_LINE}\n" for line in picture]
        self._write(f"{self._to_top()}{''.join(lines)}{_CLEAR_BELOW}")
        self._drawn = [line.cell_len for line in picture]

    def _erase(self) -> None:
        if self._drawn and _is_in_foreground(self._console):
            self._write(f"{self._to_top()}{_CLEAR_BELOW}")
        self._drawn = []
        self._keys.restore()

    def _to_top(self) -> str:
        """Return what moves the cursor to the first line of the last picture.

        A terminal that has become narrower since has broken its lines.
        """
        width = max(self._console.width, 1)
        rows = sum(max(-(-cells // width), 1) for cells in self._drawn)
        return f"\r{_UP.format(rows)}" if rows else "\r"

    def _rendered(self, line: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", soft_wrap=True)
        return captured.get()

    def _print_news(self, lines: list[str]) -> None:
        if lines != self._printed:
            self._printed = lines
            self._write("".join(f"{line}\n" for line in lines))

    def _write(self, text: str) -> None:
        encoding = self._console.encoding
        with suppress(OSError):  # the terminal was closed; whoever runs us notices by itself
            self._console.file.write(text.encode(encoding, "replace").decode(encoding))
            self._console.file.flush()


class _SilentKeys:
    """Keeps the terminal from showing typed keys: an Enter would move the picture."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def silence(self) -> None:
        """Show no keys until :meth:`restore`; only while this process has the foreground."""
        with suppress(termios.error, OSError, ValueError):
            if self._before is None and os.tcgetpgrp(_KEYS) == os.getpgrp():
                before = termios.tcgetattr(_KEYS)
                silent = [*before]
                silent[_LOCAL_MODES] &= ~termios.ECHO
                termios.tcsetattr(_KEYS, termios.TCSANOW, silent)
                self._before = before
                atexit.register(self.restore)

    def restore(self) -> None:
        """Show them again as before; twice is fine. In the background the shell has done so."""
        with suppress(termios.error, OSError, ValueError):
            if self._before is not None and os.tcgetpgrp(_KEYS) == os.getpgrp():
                termios.tcsetattr(_KEYS, termios.TCSANOW, self._before)
        self._before = None
        atexit.unregister(self.restore)


def _is_in_foreground(console: Console) -> bool:
    """Whether the terminal is ours now; True where there is no such thing as a foreground."""
    try:
        return os.tcgetpgrp(console.file.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True

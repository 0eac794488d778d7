"""Asks a person at the terminal of this process."""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LONGEST_ANSWER = 4096


def has_terminal() -> bool:
    """Whether this process has a terminal where somebody could answer."""
    try:
        os.close(_open_terminal())
    except OSError:
        return False
    return True


def ask(prompt: str, *, echo: bool) -> str | None:
    """Show ``prompt`` at the terminal and return the line that was typed, or None at its end.

    Blocks. The terminal echoes again afterwards, also when interrupted.
    """
    fd = _open_terminal()
    try:
        with _echo(fd, echo=echo):
            os.write(fd, prompt.encode())
            return _line_of(os.read(fd, _LONGEST_ANSWER))
    finally:
        os.close(fd)


def tell(text: str) -> None:
    """Show a line at the terminal."""
    fd = _open_terminal()
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


class TerminalPrompter:
    """Implements boundary.Prompter; the loop goes on while somebody types."""

    def is_there(self) -> bool:
        """Whether the terminal is still there."""
        return has_terminal()

    async def ask(self, prompt: str, *, echo: bool) -> str | None:
        """Ask; cancelled, the terminal is left as it was."""
        loop = asyncio.get_running_loop()
        fd = _open_terminal()
        typed = asyncio.Event()
        try:
            with _echo(fd, echo=echo):
                os.write(fd, prompt.encode())
                loop.add_reader(fd, typed.set)
                try:
                    await typed.wait()
                finally:
                    loop.remove_reader(fd)
                return _line_of(os.read(fd, _LONGEST_ANSWER))
        finally:
            os.close(fd)

    async def tell(self, text: str) -> None:
        """Show a line."""
        tell(text)


def _open_terminal() -> int:
    return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def _line_of(raw: bytes) -> str | None:
    return raw.decode(errors="surrogateescape").rstrip("\r\n") if raw else None


@contextmanager
def _echo(fd: int, *, echo: bool) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    if echo:
        yield
        return
    silent = list(before)
    silent[3] &= ~termios.ECHO
    silent[3] |= termios.ECHONL
    termios.tcsetattr(fd, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

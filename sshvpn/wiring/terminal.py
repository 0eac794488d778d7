"""The person at this process's terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sshvpn.boundary import Prompter


def prompter() -> Prompter | None:
    """Return who can be asked at this process's terminal, or None."""
    from sshvpn.system.terminal import TerminalPrompter, has_terminal

    return TerminalPrompter() if has_terminal() else None


def ask(prompt: str, *, echo: bool) -> str | None:
    """Return what the person at the terminal types, or None where nobody is."""
    from sshvpn.system import terminal

    return terminal.ask(prompt, echo=echo)

"""What the requests of several commands have in common: which HOST, which name, which options."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from sshvpn import control
from sshvpn.errors import UsageError
from sshvpn.model import SshOptions
from sshvpn.wiring import places

if TYPE_CHECKING:
    from sshvpn.config import Config

T = TypeVar("T")

START_WITHIN_S = 30.0
"""How long the first start may take where nothing is said, in the background."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:+-]{0,63}")


def default_host(config: Config, profiles: Iterable[str], ways: str) -> str:
    """Return the HOST where none is said: $SSHVPN_HOST, default_host, the one tunnel that is up.

    Raises UsageError with the candidates: the tunnels that are up, and ``profiles``; where
    there are none it tells the ``ways`` to say one.
    """
    default = os.environ.get("SSHVPN_HOST") or config.default_host
    if default:
        return default
    tunnels = {
        str(snapshot["name"]): str(snapshot["records"][0]["host"])
        for snapshot in control.snapshots(places.runtimes()).values()
        if snapshot["kind"] == "tunnel"
    }
    if len(tunnels) == 1:
        # A name of --name means nothing to ssh.
        [(name, host)] = tunnels.items()
        return name if name in config.tunnels else host
    known = sorted({*tunnels, *profiles})
    raise UsageError(
        "no HOST: none was said, and there is no default",
        f"name one of: {', '.join(known)}" if known else f"say it: {ways}",
    )


def checked_name(name: str) -> str:
    """Return what ``--name`` says. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r}: not a name", "letters, digits and . _ - @ : +, up to 64 of them"
        )
    return name


def checked_timeout(timeout_s: float | None) -> float | None:
    """Return what ``--timeout`` says, in seconds. Raises UsageError."""
    if timeout_s is not None and not (math.isfinite(timeout_s) and timeout_s > 0):
        raise UsageError(f"--timeout {timeout_s:g}: not a time", "give seconds above 0")
    return timeout_s


def checked_keepalive(keepalive_s: int | None) -> int | None:
    """Return what ``--keepalive`` says, in seconds. Raises UsageError."""
    from sshvpn.config.schema import KEEPALIVE_MAX_S

    if keepalive_s is not None and not 1 <= keepalive_s <= KEEPALIVE_MAX_S:
        raise UsageError(f"--keepalive {keepalive_s} is not from 1 to {KEEPALIVE_MAX_S} seconds")
    return keepalive_s


def with_keepalive(ssh: SshOptions, keepalive_s: int | None) -> SshOptions:
    """Return ``ssh`` with what makes it ask the server after so much silence; None: as it is.

    After three times as long without an answer ssh ends. An ``-o`` of the user's goes before.
    """
    if keepalive_s is None:
        return ssh
    alive = (("ServerAliveInterval", str(keepalive_s)), ("ServerAliveCountMax", "2"))
    return replace(ssh, options=(*ssh.options, *alive))


def understood(option: str, parser: Callable[[str], T], word: str) -> T:
    """Return what ``parser`` makes of ``option``'s ``word``. Raises UsageError, which names it."""
    try:
        return parser(word)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}", error.hint) from error


def joined(typed: SshOptions, configured: SshOptions) -> SshOptions:
    """Return both, what was typed first: the first value of an option wins in ssh."""
    return SshOptions(
        config_file=typed.config_file or configured.config_file,
        identity_files=(*typed.identity_files, *configured.identity_files),
        jump=typed.jump or configured.jump,
        options=(*typed.options, *configured.options),
    )

"""What the shell's TAB offers: hosts, and the names of what runs.

A completer never fails and never prints: what cannot be found out is not offered.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from sshvpn.errors import SshvpnError


def complete_host(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer profiles and aliases of ssh_config, behind ``user@`` aliases alone.

    A line with a HOST on it gets no second one.
    """
    from sshvpn.spec import is_host

    before = _words_before(context, parameter)
    if before[-1:] != ["@"] and any(is_host(word) for word in before):
        return []
    return _hosts(context, before, incomplete)


def complete_hosts(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Offer the same again and again, less what stands on the line already."""
    before = _words_before(context, parameter)
    return [word for word in _hosts(context, before, incomplete) if word not in before]


def _words_before(context: click.Context, parameter: click.Parameter) -> list[str]:
    words = context.params.get(str(parameter.name)) or ()
    return list(words) if isinstance(words, tuple) else []


def _hosts(context: click.Context, before: list[str], incomplete: str) -> list[str]:
    file = context.params.get("config_file")
    found = list(_aliases(Path(file) if isinstance(file, str) else None))
    if before[-1:] == ["@"]:
        # bash parts words at "@", and yet replaces what begins with it (rl_special_prefixes).
        return [f"@{alias}" for alias in _matching(found, incomplete)]
    user, at, part = incomplete.rpartition("@")
    if at:
        return [f"{user}@{alias}" for alias in _matching(found, part)]
    return _matching([*_profiles(), *found], incomplete)


def complete_name(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names of what runs, less those that stand on the line already."""
    before = _words_before(context, parameter)
    return [name for name in _matching(_running(), incomplete) if name not in before]


def complete_enabled(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Offer the names of services that are enabled."""
    del context, parameter
    from sshvpn.wiring import services

    with suppress(SshvpnError, OSError):
        return _matching((name for _, name in services.enabled()), incomplete)
    return []


def _matching(words: Iterable[str], beginning: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(beginning)]


def _aliases(file: Path | None) -> list[str]:
    from sshvpn.cli.aliases import aliases

    with suppress(OSError, RuntimeError):
        return list(aliases(file))
    return []


def _profiles() -> list[str]:
    from sshvpn.config import load

    with suppress(SshvpnError):
        config = load()
        return [*config.forwards, *config.tunnels, *config.notebooks]
    return []


def _running() -> list[str]:
    from sshvpn import control
    from sshvpn.wiring import places

    with suppress(SshvpnError, OSError):
        return [str(said.get("name")) for said in control.snapshots(places.runtimes()).values()]
    return []

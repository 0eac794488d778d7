"""A Config written as TOML again: what is in force, defaults included. Pure.

What :func:`render` writes reads back as the same Config (but for its path).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from sshvpn.config.entries import Config, ForwardEntry, NotebookEntry, TunnelEntry
from sshvpn.model import Direction, ForwardSpec, JupyterWay, SshOptions

Pair = tuple[str, object]
"""A key and its value; None is left out."""

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def render(config: Config) -> str:
    """Return ``config`` as TOML, profiles in alphabetical order."""
    blocks = [_block("", [("default_host", config.default_host)])]
    blocks += [_block(f"tunnels.{_key(n)}", _tunnel(e)) for n, e in sorted(config.tunnels.items())]
    blocks += [
        _block(f"forwards.{_key(n)}", _forward(e)) for n, e in sorted(config.forwards.items())
    ]
    blocks += [
        _block(f"notebooks.{_key(n)}", _notebook(e)) for n, e in sorted(config.notebooks.items())
    ]
    return "\n".join(block for block in blocks if block)


def _forward(entry: ForwardEntry) -> list[Pair]:
    return [
        ("host", entry.host),
        ("specs", _specs(entry.specs, Direction.LOCAL)),
        ("remote_specs", _specs(entry.specs, Direction.REMOTE)),
        ("dynamic_specs", _specs(entry.specs, Direction.DYNAMIC)),
        ("bind", entry.binds),
        ("lan", entry.lan),
        ("announce", entry.announce),
        ("portal", True if entry.portal == 0 else entry.portal),
        ("engine", entry.engine.value),
        ("metrics", None if entry.metrics is None else str(entry.metrics)),
        ("congestion_control", entry.tuning.value),
        ("timeout", entry.timeout_s),
        ("keepalive", entry.keepalive_s),
        ("ssh_options", entry.ssh),
    ]


def _notebook(entry: NotebookEntry) -> list[Pair]:
    way, words = entry.wish.way, entry.wish.words
    return [
        ("host", entry.host),
        ("dir", entry.wish.directory or None),
        ("command", shlex.join(words) if way is JupyterWay.COMMAND else None),
        ("python", words[0] if way is JupyterWay.PYTHON else None),
        ("venv", words[0] if way is JupyterWay.VENV else None),
        ("conda_env", words[0] if way is JupyterWay.CONDA else None),
        ("port", entry.port),
        ("lan", entry.lan),
        ("announce", entry.announce),
        ("portal", True if entry.portal == 0 else entry.portal),
        ("portal_tokens", entry.portal_tokens),
        ("engine", entry.engine.value),
        ("timeout", entry.timeout_s),
        ("ssh_options", entry.ssh),
    ]


def _tunnel(entry: TunnelEntry) -> list[Pair]:
    return [
        ("host", entry.host),
        ("routes", entry.routes),
        ("exclude", entry.exclude),
        ("lan", entry.lan),
        ("lan_interfaces", entry.lan_interfaces),
        ("lan_address", entry.lan_address),
        ("publish", _specs(entry.publish, Direction.LOCAL)),
        ("nat", entry.nat),
        ("transport", entry.transport.value),
        ("streams", entry.streams),
        ("mtu", entry.mtu),
        ("address", entry.address),
        ("announce", entry.announce),
        ("portal", True if entry.portal == 0 else entry.portal),
        ("portal_tokens", entry.portal_tokens),
        ("metrics", None if entry.metrics is None else str(entry.metrics)),
        ("remote_device", entry.remote_device),
        ("congestion_control", entry.tuning.value),
        ("timeout", entry.timeout_s),
        ("keepalive", entry.keepalive_s),
        ("ssh_options", entry.ssh),
    ]


def _specs(specs: Sequence[ForwardSpec], direction: Direction) -> tuple[str, ...]:
    return tuple(spec.text for spec in specs if spec.direction is direction)


def _block(header: str, pairs: Sequence[Pair]) -> str:
    lines = [f"{key} = {text}" for key, value in pairs if (text := _value(value))]
    return "\n".join(([f"[{header}]"] if header else []) + lines + [""]) if lines else ""


def _value(value: object) -> str:
    """Return ``value`` in TOML, or an empty text for nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(int(value)) if value == int(value) else repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, SshOptions):
        pairs = ", ".join(f"{_key(key)} = {_string(word)}" for key, word in value.options)
        return f"{{ {pairs} }}" if pairs else ""
    if isinstance(value, tuple):
        return f"[{', '.join(_string(str(item)) for item in value)}]" if value else ""
    return ""


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _string(key)


def _string(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(c, c) for c in text) + '"'

"""The words of a command line, kept with the session that they started.

So ``sshvpn restart`` makes its profile again: the same words, with the configuration as it is now.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from sshvpn.cli.lan_options import TypedWishes
from sshvpn.model import EngineName, JupyterWay, SshOptions, Transport

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

W = TypeVar("W", bound="DataclassInstance")

_KINDS: dict[str, Any] = {
    "ssh": lambda plain: SshOptions(**{key: _frozen(value) for key, value in plain.items()}),
    "transport": Transport,
    "engine": EngineName,
    "jupyter": lambda plain: {JupyterWay(way): text for way, text in plain.items()},
    "wishes": lambda plain: TypedWishes(**plain),
}


def keep(words: DataclassInstance) -> str:
    """Return ``words`` as the text that :func:`words_of` takes."""
    return json.dumps(asdict(words))


def words_of(kind: type[W], text: str) -> W:
    """Return the words that :func:`keep` made ``text`` of."""
    plain = json.loads(text)
    known = {field.name for field in fields(kind)}
    return kind(**{name: _word(name, value) for name, value in plain.items() if name in known})


def _word(name: str, value: Any) -> Any:
    return value if value is None else _KINDS.get(name, _frozen)(value)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value

"""Steps and states as JSON and back, strictly; pure.

A noun is an object ``{"is": "AddLink", …}`` with exactly its fields. What is not exactly so is
a ValueError: the helper that reads it runs as root.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from sshvpn.plan import steps

T = TypeVar("T")
_KIND = "is"


def to_record(value: object) -> Any:
    """Return ``value`` (a noun, or what nouns are made of) as JSON can hold it."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        fields = {f.name: to_record(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {_KIND: type(value).__name__, **fields}
    if isinstance(value, frozenset):
        return sorted((to_record(one) for one in value), key=str)
    if isinstance(value, tuple):
        return [to_record(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): to_record(one) for key, one in value.items()}
    return value


def from_record(kind: type[T] | Any, record: object) -> Any:
    """Return what ``record`` says, which must be exactly of the type ``kind``.

    Raises ValueError for anything else.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _one_of(typing.get_args(kind), record)
    if origin in (frozenset, tuple):
        return _collection(kind, origin, record)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(kind, record)
    if dataclasses.is_dataclass(kind):
        return _noun(kind, record)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if isinstance(record, str):
            return kind(record)
    elif type(record) is kind:  # a bool is not an int here
        return record
    raise ValueError(f"{_short(record)} is not {_name(kind)}")


def _one_of(kinds: tuple[Any, ...], record: object) -> object:
    if record is None and type(None) in kinds:
        return None
    if isinstance(record, dict):
        for kind in kinds:
            if _name(kind) == record.get(_KIND):
                return from_record(kind, record)
    else:
        plain = [kind for kind in kinds if kind in (int, str, bool)]
        if len(plain) == 1:
            return from_record(plain[0], record)
    raise ValueError(f"{_short(record)} is none of {', '.join(map(_name, kinds))}")


def _collection(kind: Any, origin: type[Any], record: object) -> object:
    if not isinstance(record, list):
        raise ValueError(f"{_short(record)} is not a list")  # noqa: TRY004
    item = typing.get_args(kind)[0]
    found = origin(from_record(item, one) for one in record)
    if len(found) != len(record):
        raise ValueError("the same twice")
    return found


def _mapping(kind: Any, record: object) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"{_short(record)} is not an object")  # noqa: TRY004
    _, item = typing.get_args(kind)
    return {str(key): from_record(item, one) for key, one in record.items()}


def _noun(kind: Any, record: object) -> object:
    if not isinstance(record, dict) or record.get(_KIND) != kind.__name__:
        raise ValueError(f"{_short(record)} is not {kind.__name__}")
    hints = _hints(kind)
    if set(record) - {_KIND} != set(hints):
        raise ValueError(f"{kind.__name__} has other fields")
    return kind(**{name: from_record(hint, record[name]) for name, hint in hints.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def _short(record: object) -> str:
    return f"{record!r:.60}"


def step_from_record(record: object) -> steps.Step:
    """Return the step that ``record`` says. Raises ValueError."""
    if not isinstance(record, dict):
        raise ValueError(f"{_short(record)} is not a step")  # noqa: TRY004
    kind = record.get(_KIND)
    names = {one.__name__: one for one in typing.get_args(steps.Step)}
    if not isinstance(kind, str) or kind not in names:
        raise ValueError(f"{_short(kind)} is not a step")
    found: steps.Step = from_record(names[kind], record)
    return found

"""One value of the file, with its place: it is asked for a type, and answers or complains.

Pure. Every complaint is a ConfigError ``FILE:LINE: KEY: what is wrong``; it says what was
expected and what was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from typing import TypeVar

from sshvpn.config.lines import KeyPath
from sshvpn.errors import ConfigError, UsageError
from sshvpn.frozen import dataclass

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

_SHOWN = 60
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a string"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where values come from: the file's name, and the lines of its keys."""

    file: str
    lines: Mapping[KeyPath, int]

    def error(self, at: KeyPath, message: str, hint: str = "") -> ConfigError:
        """Return the ConfigError about the value ``at``, with the nearest line that is known."""
        near = at
        while near and near not in self.lines:
            near = near[:-1]
        line = f"{self.lines[near]}:" if near else ""
        key = f" {key_text(at)}:" if at else ""
        return ConfigError(f"{self.file}:{line}{key} {message}", hint)


@dataclass(frozen=True, slots=True)
class Value:
    """``raw``, as the TOML parser gave it, at its place in ``source``."""

    source: Source
    at: KeyPath
    raw: object

    def error(self, message: str, hint: str = "") -> ConfigError:
        """Return the ConfigError that blames this value."""
        return self.source.error(self.at, message, hint)

    def text(self) -> str:
        """Return the string it is."""
        if not isinstance(self.raw, str):
            raise self._expected("a string")
        return self.raw

    def flag(self) -> bool:
        """Return the truth value it is."""
        if not isinstance(self.raw, bool):
            raise self._expected("true or false")
        return self.raw

    def number(self, least: int, most: int) -> int:
        """Return the whole number it is, ``least`` to ``most``."""
        if isinstance(self.raw, bool) or not isinstance(self.raw, int):
            raise self._expected("a whole number")
        if not least <= self.raw <= most:
            raise self.error(f"{_short(self.raw)} is not from {least} to {most}")
        return self.raw

    def seconds(self) -> float:
        """Return the time it is, in seconds: more than 0, at most a day."""
        if isinstance(self.raw, bool) or not isinstance(self.raw, (int, float)):
            raise self._expected("a number of seconds")
        if not 0 < self.raw <= 86400:  # noqa: PLR2004 - a day
            raise self.error(f"{_short(self.raw)} is not from 0 to 86400 seconds")
        return float(self.raw)

    def one_of(self, kind: type[E]) -> E:
        """Return the member of ``kind`` whose value it is."""
        word = self.text()
        for member in kind:
            if member.value == word:
                return member
        names = [str(member.value) for member in kind]
        raise self.error(f"'{_short(word)}' is none of {', '.join(names)}", nearest(word, names))

    def parsed(self, parser: Callable[[str], T]) -> T:
        """Return what ``parser`` makes of the string; its UsageError gets this place."""
        try:
            return parser(self.text())
        except ConfigError:
            raise
        except UsageError as error:
            raise self.error(error.message, error.hint) from error

    def items(self) -> tuple[Value, ...]:
        """Return the elements of the array it is."""
        if not isinstance(self.raw, list):
            raise self._expected('an array, like ["…"]')
        return tuple(
            Value(self.source, (*self.at, index), raw) for index, raw in enumerate(self.raw)
        )

    def table(self, known: Collection[str] | None = None) -> Table:
        """Return the table it is. A key that is not ``known`` is an error with the nearest."""
        if not isinstance(self.raw, dict):
            raise self._expected("a table")
        entries = {key: Value(self.source, (*self.at, key), raw) for key, raw in self.raw.items()}
        for key, value in entries.items():
            if known is not None and key not in known:
                raise value.error(
                    "there is no such key", nearest(key, known) or f"it may be: {', '.join(known)}"
                )
        return Table(self, entries)

    def _expected(self, what: str) -> ConfigError:
        return self.error(f"expected {what}, found {_kind(self.raw)}")


@dataclass(frozen=True, slots=True)
class Table:
    """The values of one table, by key."""

    place: Value
    entries: Mapping[str, Value]

    def required(self, key: str, example: str) -> Value:
        """Return the value of ``key``; missing is an error that shows ``example``."""
        if key not in self.entries:
            raise self.place.error(f"{key} is missing", f"write {key} = {example}")
        return self.entries[key]

    def get(self, key: str, read: Callable[[Value], T], default: T) -> T:
        """Return what ``read`` makes of the value of ``key``, or ``default`` without one."""
        return read(self.entries[key]) if key in self.entries else default

    def each(self, key: str, read: Callable[[Value], T]) -> tuple[T, ...]:
        """Return what ``read`` makes of each element of the array ``key``; none without one."""
        items = self.entries[key].items() if key in self.entries else ()
        return tuple(read(item) for item in items)

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(self.entries.items())


def key_text(at: KeyPath) -> str:
    """Return ``at`` as TOML writes it: dotted, quoted where needed, indexes in brackets."""
    text = ""
    for part in at:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        shown = _short(part)
        text += ("." if text else "") + (shown if _BARE_KEY.match(part) else f'"{shown}"')
    return text


def nearest(word: str, known: Collection[str]) -> str:
    """Return the hint with the known word nearest to ``word``, or an empty one."""
    from difflib import get_close_matches

    matches = get_close_matches(word[:_SHOWN], known, n=1)
    return f"did you mean {matches[0]}" if matches else ""


def _short(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a huge number"  # str() of it may be refused
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _kind(raw: object) -> str:
    if isinstance(raw, dict):
        return "a table"
    if isinstance(raw, list):
        return "an array"
    kind = _KINDS.get(type(raw), "a date or time")
    return f"{kind} ('{_short(raw)}')" if isinstance(raw, str) else f"{kind} ({_short(raw)})"

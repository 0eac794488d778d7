"""At which line of a TOML text each key stands: pure, for text that a TOML parser has accepted.

The parser of the standard library forgets where it read a value. This reads the same text
once more for its shape alone (TOML 1.0: tables, dotted keys, strings, arrays, inline tables)
and keeps nothing but line numbers. What it does not find has no line, and no harm is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

KeyPath = tuple[str | int, ...]
"""The way to a value: keys of tables, and indexes of arrays."""

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL),
    re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """Return the line (from 1) of every key and array element of the TOML ``text``."""
    reader = _Reader(text)
    reader.document()
    return reader.lines


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._counted = (0, 1)
        self._array_lengths: dict[KeyPath, int] = {}

    def document(self) -> None:
        """Read tables and keys until the end, or until the text is not understood."""
        table: KeyPath = ()
        while self._skip_blank() < len(self.text):
            before = self.at
            if self._takes("[["):
                table = self._array_table(self._header())
                self._takes("]]")
            elif self._takes("["):
                table = self._header()
                self._takes("]")
            else:
                self._pair(table)
            if self.at == before:
                return

    def _array_table(self, path: KeyPath) -> KeyPath:
        # The last key names an array that grows by one with every such header.
        index = self._array_lengths.get(path, 0)
        self._array_lengths[path] = index + 1
        return self._note((*path, index))

    def _header(self) -> KeyPath:
        """Read the keys of a header; inside an array of tables its newest element is meant."""
        path: KeyPath = ()
        for key in self._key():
            if path in self._array_lengths:
                path = (*path, self._array_lengths[path] - 1)
            path = self._note((*path, key))
        return path

    def _pair(self, table: KeyPath) -> None:
        path = table
        for key in self._key():
            path = self._note((*path, key))
        self._skip_blank()
        if self._takes("="):
            self._value(path)

    def _key(self) -> Iterator[str]:
        """Read a dotted key, part by part."""
        while True:
            self._skip_blank()
            if string := self._string():
                yield _unquoted(string)
            elif bare := _BARE.match(self.text, self.at):
                self.at = bare.end()
                yield bare.group()
            else:
                return
            self._skip_blank()
            if not self._takes("."):
                return

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        if self._takes("["):
            self._array(path)
        elif self._takes("{"):
            self._inline_table(path)
        elif not self._string() and (scalar := _SCALAR.match(self.text, self.at)):
            self.at = scalar.end()

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._skip_blank() < len(self.text) and not self._takes("]"):
            before = self.at
            self._note((*path, index))
            self._value((*path, index))
            self._skip_blank()
            self._takes(",")
            if self.at == before:
                return
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._skip_blank() < len(self.text) and not self._takes("}"):
            before = self.at
            self._pair(path)
            self._skip_blank()
            self._takes(",")
            if self.at == before:
                return

    def _string(self) -> str:
        for pattern in _STRINGS:
            if match := pattern.match(self.text, self.at):
                self.at = match.end()
                return match.group()
        return ""

    def _skip_blank(self) -> int:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at

    def _takes(self, mark: str) -> bool:
        if self.text.startswith(mark, self.at):
            self.at += len(mark)
            return True
        return False

    def _note(self, path: KeyPath) -> KeyPath:
        """Remember the line of ``path`` where it is read first."""
        at, line = self._counted
        line += self.text.count("\n", at, self.at)
        self._counted = (self.at, line)
        self.lines.setdefault(path, line)
        return path


def _unquoted(string: str) -> str:
    """Return the key that a quoted key means."""
    if string[0] == "'" or "\\" not in string:
        return string[1:-1]
    from sshvpn.config.toml import loads

    return str(next(iter(loads(f"{string} = 0"))))

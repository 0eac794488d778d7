"""The host keys that ssh knows: known_hosts files read, asked and appended to.

The format is that of sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: plain and hashed names, patterns,
``[host]:port``, the markers ``@revoked`` and ``@cert-authority``. Lines that cannot be read are
passed over, as ssh does. Signatures of certificate authorities are not checked here: such a
line says only that there is one.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

from sshvpn.frozen import dataclass

DEFAULT_PORT = 22
_SALT_LENGTH = 20
_HASH_MAGIC = "|1|"


class Marker(Enum):
    """What a line says of its key beside that it is known."""

    NONE = ""
    REVOKED = "@revoked"
    AUTHORITY = "@cert-authority"


class Verdict(Enum):
    """What the known keys say of the one that a server showed."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One line that matches a host: its key, and where it stands."""

    marker: Marker
    key_type: str
    blob: bytes
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, and the line that it rests on, if any."""

    verdict: Verdict
    line: KnownKey | None = None


def host_name(host: str, port: int, alias: str | None = None) -> str:
    """Return the name under which a server is known: ``host``, ``[host]:port`` or its alias.

    HostKeyAlias stands alone, whatever the port (ssh_config(5)).
    """
    if alias is not None:
        return alias.lower()
    return host.lower() if port == DEFAULT_PORT else f"[{host.lower()}]:{port}"


def read(files: Iterable[str], name: str) -> tuple[KnownKey, ...]:
    """Return the keys known for ``name`` in all ``files``; one that cannot be read has none."""
    found: list[KnownKey] = []
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found += parse(text, file, name)
    return tuple(found)


def parse(text: str, file: str, name: str) -> tuple[KnownKey, ...]:
    """Return the lines of one file's ``text`` that match ``name``."""
    found = (_parse_line(line, file, number, name) for number, line in _lines(text))
    return tuple(key for key in found if key is not None)


def judge(known: Sequence[KnownKey], key_type: str, blob: bytes) -> Answer:
    """Return what ``known`` says of a server's key (``blob`` as on the wire, RFC 4253 6.6).

    A revoked key is refused, whatever else is known. Another key of the same type is a change;
    keys of other types only leave this one unknown, as in ssh.
    """
    for line in known:
        if line.marker is Marker.REVOKED and line.blob == blob:
            return Answer(Verdict.REVOKED, line)
    plain = [line for line in known if line.marker is Marker.NONE]
    for line in plain:
        if line.blob == blob:
            return Answer(Verdict.KNOWN, line)
    for line in plain:
        if line.key_type == key_type:
            return Answer(Verdict.CHANGED, line)
    return Answer(Verdict.UNKNOWN)


def types_first(known: Sequence[KnownKey], algorithms: Sequence[str]) -> tuple[str, ...]:
    """Return the host key ``algorithms`` with those first that a known key can be checked by.

    So a server with several keys shows one that is known (HostKeyAlgorithms, ssh_config(5)).
    """
    types = {line.key_type for line in known if line.marker is Marker.NONE}
    return tuple(sorted(algorithms, key=lambda name: key_type_of(name) not in types))


def key_type_of(algorithm: str) -> str:
    """Return the type of key that a signature algorithm takes (RFC 8332: two for ssh-rsa)."""
    return "ssh-rsa" if algorithm in ("rsa-sha2-256", "rsa-sha2-512") else algorithm


def fingerprint(blob: bytes) -> str:
    """Return a key's fingerprint as ssh shows it: ``SHA256:`` and base64 without padding."""
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def add(file: str, name: str, key_type: str, blob: bytes, *, hashed: bool) -> None:
    """Append a key to ``file``, making it (0600) and its directory (0700). Raises OSError."""
    path = Path(file)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shown = _hashed(name, os.urandom(_SALT_LENGTH)) if hashed else name
    line = f"{shown} {key_type} {base64.b64encode(blob).decode()}\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as opened:
        size = opened.seek(0, os.SEEK_END)
        if size and opened.seek(size - 1) and opened.read(1) != b"\n":
            line = "\n" + line  # or the last line, which an editor left open, would be lost
        opened.write(line.encode())


def _lines(text: str) -> Iterable[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _parse_line(line: str, file: str, number: int, name: str) -> KnownKey | None:
    words = line.split()
    marker = Marker.NONE
    if words[0].startswith("@"):
        try:
            marker = Marker(words.pop(0))
        except ValueError:
            return None
    if len(words) < 3 or not _matches(words[0], name):  # noqa: PLR2004 (names, type, key)
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return KnownKey(marker, words[1], blob, file, number)


def _matches(names: str, name: str) -> bool:
    """Whether the first field of a line means ``name``; a ``!pattern`` that matches forbids."""
    if names.startswith(_HASH_MAGIC):
        salt, _, _ = names[len(_HASH_MAGIC) :].partition("|")
        try:
            return hmac.compare_digest(_hashed(name, base64.b64decode(salt)), names)
        except (binascii.Error, ValueError):
            return False
    is_meant = False
    for word in names.lower().split(","):
        is_negated = word.startswith("!")
        if _fits(word[is_negated:], name):
            if is_negated:
                return False
            is_meant = True
    return is_meant


def _fits(pattern: str, name: str) -> bool:
    # Only * and ? are special; the brackets of [host]:port are letters (ssh_config(5), PATTERNS).
    return fnmatch.fnmatchcase(name, re.sub(r"\[", "[[]", pattern))


def _hashed(name: str, salt: bytes) -> str:
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"{_HASH_MAGIC}{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"

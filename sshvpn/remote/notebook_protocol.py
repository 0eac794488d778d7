"""What is said with the script that finds and starts Jupyter at the server; pure.

docs/notebook-protocol.md is the other half of this file::

    client                                server
      remote command, script, by length ──>
                                        <── hello 1 HOME
      directory DIR, look               ──>
                                        <── directory PATH, server …, ready
      way …, token …, start             ──>
                                        <── took WORDS, launched LOG, server …
      the end of its input              ──>   (it ends)

As with the tunnel's agent, each of its lines begins with a nonce, and nothing that it says is
trusted: what cannot be understood is a `MalformedLineError`.
"""

from __future__ import annotations

import json
import re
from dataclasses import field
from typing import Any, Final
from urllib.parse import quote

from sshvpn.errors import printable
from sshvpn.frozen import dataclass
from sshvpn.model import NotebookWish
from sshvpn.remote import boot
from sshvpn.remote.malformed import MalformedLineError

PROTOCOL: Final = 1
_LONGEST_RECORD: Final = 64
"""Lines of what Jupyter writes about itself; it has a dozen."""
_MOST_OF_RECORD: Final = 1 << 16
"""Characters of it."""
_LONGEST_BASE_URL: Final = 200
"""It is told by mDNS, where 255 bytes hold it (RFC 6763, 6.1)."""
_LONGEST_TOKEN: Final = 1000
"""With its URL it stands in a QR code, which holds 2331 bytes."""
_EVERYWHERE: Final = {"", "*", "0.0.0.0", "::", "localhost"}  # noqa: S104 (compared, not bound)
_LAST_PORT: Final = 65535
_PLAIN_PATH: Final = re.compile(r"/([A-Za-z0-9_.~@%+-]+/)*")


@dataclass(frozen=True, slots=True)
class Server:
    """One Jupyter server that runs at the server, as it tells of itself.

    ``host`` and ``port`` are where it listens, or ``socket`` is. ``token`` is empty where it
    asks for none, or for one that it does not tell. ``origin`` is ``home`` or ``directory``
    where sshvpn has started it (without or with a directory), else ``other``; then ``log`` is
    empty.
    """

    pid: int
    directory: str
    host: str
    port: int
    socket: str
    base_url: str
    has_tls: bool
    has_password: bool
    version: str
    origin: str
    log: str
    token: str = field(repr=False)

    @property
    def is_ours(self) -> bool:
        """Whether sshvpn has started it."""
        return self.origin != "other"

    @property
    def is_classic(self) -> bool:
        """Whether it is Notebook 6 or older, which does not tell its version."""
        return not self.version

    @property
    def is_open(self) -> bool:
        """Whether it asks nobody for anything, as far as it tells."""
        return not self.token and not self.has_password


@dataclass(frozen=True, slots=True)
class Hello:
    """It runs; ``home`` is where the login is at home."""

    home: str


@dataclass(frozen=True, slots=True)
class Directory:
    """The directory that was asked for, resolved."""

    path: str


@dataclass(frozen=True, slots=True)
class Ready:
    """All that runs was told; ``boot`` is another one after each start of the server's system.

    It is empty where that does not tell.
    """

    boot: str = ""


@dataclass(frozen=True, slots=True)
class Took:
    """Jupyter was found: these are the words that start it."""

    words: str


@dataclass(frozen=True, slots=True)
class Launched:
    """It was started, and writes to this log."""

    log: str


@dataclass(frozen=True, slots=True)
class Ends:
    """What is started will not live on: it ends with this login, or with the last one."""

    is_with_last: bool


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the log of one that ended while it started."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A server was told to end: whether it has."""

    pid: int
    is_gone: bool


@dataclass(frozen=True, slots=True)
class Bye:
    """All that was to end was told."""


@dataclass(frozen=True, slots=True)
class Problem:
    """It cannot go on: ``code`` is one of the protocol's, ``text`` what it is about."""

    code: str
    text: str


Message = (
    Hello | Directory | Server | Ready | Took | Ends | Launched | LogLine | Ended | Bye | Problem
)


def remote_command(script: str, nonce: str) -> str:
    """Return the command that ssh is given; the script follows on its standard input.

    It means the same to sh, bash, zsh, fish and csh (see sshvpn.remote.protocol).
    """
    if not re.fullmatch(r"[0-9a-f]{16,64}", nonce):
        raise ValueError(f"not a nonce: {nonce!r}")
    return f"exec /bin/sh -c '{boot()}' sshvpn-notebook {len(script)} {nonce}"


# -- what the client says ----------------------------------------------------------------------


def encode(*lines: str) -> bytes:
    """Return ``lines`` as they are sent. Raises ValueError for one that would be two."""
    for line in lines:
        if not line.isprintable():
            raise ValueError(f"not one line: {line!r}")
    return "".join(f"{line}\n" for line in lines).encode()


def look(directory: str) -> bytes:
    """Ask what runs; ``directory`` is the notebook's, empty for the home directory."""
    return encode(*([f"directory {directory}"] if directory else []), "look")


def start(wish: NotebookWish, token: str, *, shared: bool, within_s: int = 100) -> bytes:
    """Ask for a server in the directory that was looked at, as ``wish`` says.

    ``shared``: it takes requests for other names than localhost, too. What does not listen
    ``within_s`` seconds, and does not look like a Jupyter that is slow, is ended.
    """
    words = [f"word {word}" for word in wish.words]
    how = ["shared" if shared else "unshared", f"within {within_s}"]
    return encode(f"way {wish.way.value}", "words", *words, f"token {token}", *how, "start")


def stop(pids: list[int]) -> bytes:
    """Ask for the end of those servers."""
    return encode(*(f"pid {pid}" for pid in pids), "stop")


# -- what the script says ----------------------------------------------------------------------


class Reader:
    """Puts the lines of one script together. ``nonce`` is the one it was started with."""

    def __init__(self, nonce: str) -> None:
        self._mark = f"{nonce} "
        self._head: tuple[int, str, str] | None = None
        self._record: list[str] = []
        self._size = 0
        self._real = ""

    def feed(self, line: str) -> Message | None:
        """Return the message that ``line`` completes, None where it completes none.

        What is not the script's (a banner, a noisy .bashrc) is passed over.
        """
        _, mark, text = line.partition(self._mark)
        if not mark:
            return None
        word, _, rest = text.rstrip("\r\n").partition(" ")
        if word == "server":
            self._head = _server_head(rest)
            self._record, self._size, self._real = [], 0, ""
            return None
        if word == "real":
            self._real = rest if rest.isprintable() else ""
            return None
        if word == "json":
            self._record.append(rest)
            self._size += len(rest)
            if len(self._record) > _LONGEST_RECORD or self._size > _MOST_OF_RECORD:
                raise MalformedLineError("the server tells too much of one Jupyter")
            return None
        if word == "end":
            head, self._head = self._head, None
            return None if head is None else _server(head, "\n".join(self._record), self._real)
        return _message(word, rest)


def _message(word: str, rest: str) -> Message:  # noqa: C901, PLR0911 (it reads as a table)
    match word:
        case "hello" if rest.startswith(f"{PROTOCOL} "):
            return Hello(rest.partition(" ")[2])
        case "directory":
            return Directory(rest)
        case "ready":
            return Ready(rest.strip())
        case "took":
            return Took(printable(rest))
        case "launched":
            return Launched(printable(rest))
        case "ends" if rest in ("logout", "last_logout"):
            return Ends(is_with_last=rest == "last_logout")
        case "log":
            return LogLine(printable(rest))
        case "ended" | "left" if rest.isascii() and rest.isdigit():
            return Ended(int(rest), is_gone=word == "ended")
        case "bye":
            return Bye()
        case "error":
            code, _, text = rest.partition(" ")
            return Problem(printable(code), printable(text))
    raise MalformedLineError(f"the server said what is not understood: {word} {rest[:100]}")


def _server_head(rest: str) -> tuple[int, str, str]:
    pid, _, more = rest.partition(" ")
    origin, _, log = more.partition(" ")
    if not (pid.isascii() and pid.isdigit()) or origin not in ("home", "directory", "other"):
        raise MalformedLineError(f"the server said what is not understood: server {rest[:100]}")
    return int(pid), origin, printable(log)


def _server(head: tuple[int, str, str], text: str, real: str) -> Server | None:
    """Return what Jupyter's own file says; None for one that is not understood, as of old age.

    ``real`` is its directory without symbolic links, where that is another.
    """
    pid, origin, log = head
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(plain, dict):
        return None

    def words(key: str, default: str = "") -> str:
        value: Any = plain.get(key)
        return value if isinstance(value, str) and value.isprintable() else default

    number = plain.get("port")
    port = number if isinstance(number, int) and 0 < number <= _LAST_PORT else 0
    host = words("hostname")
    base_url = words("base_url", "/")
    is_plain = len(base_url) <= _LONGEST_BASE_URL and _PLAIN_PATH.fullmatch(base_url)
    token = words("token")
    is_usable = len(quote(token, safe="")) <= _LONGEST_TOKEN
    return Server(
        pid=pid,
        directory=real or words("root_dir") or words("notebook_dir"),
        # Not a name: at the server somebody else may listen on the other of its addresses.
        host="127.0.0.1" if host in _EVERYWHERE else host,
        port=port,
        socket=words("sock"),
        base_url=base_url if is_plain else "/",
        has_tls=plain.get("secure") is True,
        # A token that cannot be handed on is asked for all the same.
        has_password=plain.get("password") is True or not is_usable,
        version=words("version")[:20],
        origin=origin,
        log=log,
        token=token if is_usable else "",
    )

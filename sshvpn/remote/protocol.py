"""The agent's protocol: what it is started and configured with, and what its lines mean; pure.

One line is one message, of words with a space between. What the client sends is made here of
checked values only; each line of the agent begins with a nonce that the client chose, so that a
banner or a noisy .bashrc is told from it. docs/agent-protocol.md is the other half of this file::

    client                                server
      remote command, script, by length ──>
                                        <── hello, facts …, ready      (or: unit N before, prepare)
      address …, up, …, commit          ──>
                                        <── ok
      beat 1                            ──>
                                        <── beat 1                      again and again
      end                               ──>
                                        <── bye end                     error CODE TEXT at any time

In the mode ``look`` it ends after ``ready``, with ``bye looked``.

The text of the agent is not trusted: what cannot be understood is a `MalformedLineError`, and
text for people passes `errors.printable`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from enum import Enum
from typing import Final

from sshvpn.errors import printable
from sshvpn.frozen import dataclass
from sshvpn.remote.facts import (
    Adapter,
    Collected,
    Device,
    Facts,
    Network,
    RemoteAddress,
    RemoteRoute,
    Rights,
)
from sshvpn.remote.malformed import MalformedLineError

__all__ = [
    "DEFAULT_LEASE_S", "END", "GROUP", "LARGEST_MTU", "LONGEST_LINE", "PROTOCOL",
    "Adapter", "Applied", "Beat", "Device", "Ended", "Facts", "Failed", "Interface", "Left",
    "MalformedLineError", "Message", "Mode", "Network", "Publication", "Reader", "RemoteAddress",
    "RemoteEnd", "RemoteRoute", "Rights", "TcpOptions", "Tuned", "Unit",
    "beat", "delivery", "encode", "is_adapter", "is_label", "remote_command",
]  # fmt: skip

PROTOCOL: Final = 1
LARGEST_MTU: Final = 16380
"""The largest packet that OpenSSH's tun carries, in bytes."""
GROUP: Final = 21587
"""The group of links (ip-link(8)) that the server's ends of all tunnels are in."""
DEFAULT_LEASE_S: Final = 600
LONGEST_LINE: Final = 4096
"""In bytes; the agent's own lines are far shorter."""

_NONCE: Final = re.compile(r"[0-9a-f]{16,64}")
_LABEL: Final = re.compile(r"[a-z0-9_]{1,48}")
_ADAPTER: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}")
_BOOT: Final = re.compile(r"^boot='([^'!\\\n]*)'$", re.MULTILINE)

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Mode(str, Enum):
    """What the agent is started for."""

    SERVE = "serve"
    """Set up the device of this ssh session, and hold the lease."""
    PREPARE = "prepare"
    """Make a device that a login without root can open, and hold the lease until it does."""
    ADOPT = "adopt"
    """As SERVE, of the device that PREPARE has made. What is around it is not told again."""
    SWEEP = "sweep"
    """End the session that holds the label, undo what it did, and end."""
    LOOK = "look"
    """Tell the facts and end; change nothing, need no device, end nobody."""
    TCP = "tcp"
    """Tune the TCP connection of the session as its one line says, tell, and end."""
    STREAM = "stream"
    """As SERVE, of a device that is named, or else made for the stream transport."""
    STREAMS = "streams"
    """As STREAM, of a device with several queues."""


def is_label(text: str) -> bool:
    """Whether ``text`` can be the label of a tunnel on a server."""
    return _LABEL.fullmatch(text) is not None


def is_adapter(text: str) -> bool:
    """Whether ``text`` can be the name of an adapter in what is said to a server."""
    return _ADAPTER.fullmatch(text) is not None


def remote_command(
    script: str,
    *,
    nonce: str,
    label: str,
    mode: Mode = Mode.SERVE,
    lease_s: int = DEFAULT_LEASE_S,
    device: str | None = None,
) -> str:
    """Return the command that ssh is given; the script follows on its standard input.

    It means the same to sh, bash, zsh, fish and csh: words in single quotes, in which there is
    nothing that one of them would take for its own. ``device`` is the server's tun, where ssh
    itself does not open one. Raises ValueError for values that would need quoting.
    """
    boot = _BOOT.search(script)
    if boot is None:
        raise ValueError("the script has no line boot='…' that every shell can read")
    if not _NONCE.fullmatch(nonce) or not is_label(label):
        raise ValueError(f"not a nonce and a label: {nonce!r}, {label!r}")
    if not 1 <= lease_s <= 86400:  # noqa: PLR2004 -- a day, as the agent has it
        raise ValueError(f"not a lease: {lease_s}")
    if device is not None and not is_adapter(device):
        raise ValueError(f"not a device: {device!r}")
    words = [
        str(len(script)),
        nonce,
        mode.value,
        label,
        str(lease_s),
        *([device] if device else []),
    ]
    return f"exec /bin/sh -c '{boot[1]}' sshvpn-agent:{label} {' '.join(words)}"


def delivery(script: str) -> bytes:
    """Return what goes first to the command's standard input; lines follow at once."""
    data = script.encode("ascii")
    if script.endswith("\n"):
        raise ValueError("the shell drops line ends at the end of what it reads")
    return data


# -- what the client says ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publication:
    """A service that is reached at an address of the server's end of the tunnel (TCP).

    ``target`` is where it listens: 127.0.0.1 too, but not ::1, which the kernel cannot.
    """

    listen: str
    port: int
    target: str
    target_port: int

    def __post_init__(self) -> None:
        listen, target = (ipaddress.ip_address(text) for text in (self.listen, self.target))
        if listen.version != target.version:
            raise ValueError(f"{listen} and {target} are of two families")
        if target.version == 6 and target.is_loopback:  # noqa: PLR2004
            raise ValueError("::1 cannot be published, 127.0.0.1 can")
        for port in (self.port, self.target_port):
            if not 1 <= port <= 65535:  # noqa: PLR2004
                raise ValueError(f"not a port: {port}")

    @property
    def words(self) -> str:
        """The same as the agent takes it."""
        listen, target = ipaddress.ip_address(self.listen), ipaddress.ip_address(self.target)
        return f"publish {listen} {self.port} {target} {self.target_port}"


@dataclass(frozen=True, slots=True)
class RemoteEnd:
    """What the server's end of a tunnel shall be. A later one replaces the one before.

    ``peers`` are point-to-point pairs (own address, the peer's prefix). ``routes`` go back to
    the LAN (no NAT); ``masquerade`` are the sources that look like the server beyond it.
    ``forward`` are the adapters that the tunnel's packets may leave by, ``loose`` those whose
    strict reverse path filter would drop answers. ``accepts`` puts labelled rules into chains of
    others that drop what is forwarded. ``is_guarded`` keeps out the packets that OpenSSH's tun
    dies of. Raises ValueError for what the agent would refuse.
    """

    addresses: tuple[Interface, ...] = ()
    peers: tuple[tuple[Interface, Network], ...] = ()
    mtu: int = LARGEST_MTU
    routes: tuple[Network, ...] = ()
    masquerade: tuple[Network, ...] = ()
    forward: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    published: tuple[Publication, ...] = ()
    accepts: bool = True
    is_guarded: bool = True

    def __post_init__(self) -> None:
        if not 576 <= self.mtu <= LARGEST_MTU:  # noqa: PLR2004 -- RFC 791
            raise ValueError(f"not an MTU that ssh carries: {self.mtu}")
        for adapter in (*self.forward, *self.loose):
            if not is_adapter(adapter):
                raise ValueError(f"not an adapter: {adapter!r}")

    def lines(self) -> tuple[str, ...]:
        """Return the lines that say so, the commit last."""
        lines = ["guard"] if self.is_guarded else []
        lines += [f"masquerade {network}" for network in self.masquerade]
        lines += [publication.words for publication in self.published]
        lines += [f"forward {adapter}" for adapter in self.forward]
        lines += [f"loose {adapter}" for adapter in self.loose]
        lines += ["accept-chains"] if self.accepts else []
        lines.append(f"mtu {self.mtu}")
        lines += [f"address {address}" for address in self.addresses]
        lines += [f"address {own} {peer}" for own, peer in self.peers]
        lines.append("up")
        lines += [f"route {network}" for network in self.routes]
        return (*lines, "commit")


END: Final = "end"


def beat(number: int) -> str:
    """Return the heartbeat NUMBER (below 10^9); the agent says the same word back."""
    if not 0 <= number < 10**9:
        raise ValueError(f"not the number of a heartbeat: {number}")
    return f"beat {number}"


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """What is asked of the TCP socket at either end (:mod:`sshvpn.remote.tcp_socket`).

    ``notsent_lowat`` is in bytes.
    """

    user_timeout_s: int
    notsent_lowat: int = 128 << 10

    def __post_init__(self) -> None:
        if not (1 <= self.user_timeout_s <= 86400 and 1 <= self.notsent_lowat < 10**9):  # noqa: PLR2004
            raise ValueError(f"not what a TCP socket takes: {self}")

    @property
    def words(self) -> str:
        """The same as the agent takes it."""
        return f"tcp {self.user_timeout_s} {self.notsent_lowat}"


def encode(lines: Sequence[str]) -> bytes:
    """Return LINES as they go over the wire."""
    return "".join(f"{line}\n" for line in lines).encode("ascii")


# -- what the agent says -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat."""

    number: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Something of what was configured does not stand any more, or does not suffice."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The configuration stands."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A device was made: ``ssh -w any:NUMBER`` opens it."""

    number: int


@dataclass(frozen=True, slots=True)
class Tuned:
    """The server's end of the TCP connection is paced by ``congestion_control``.

    None where nothing was changed: ``code`` and ``text`` say why.
    """

    congestion_control: str | None
    code: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The agent has undone everything and ends; TEXT says what failed, and what mends it."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Left:
    """What could not be undone."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The agent has undone everything and ends as it should; the reason is for a log."""

    reason: str


Message = Facts | Beat | Changed | Applied | Unit | Tuned | Failed | Left | Ended


class Reader:
    """Makes messages of the agent's lines; lines without the nonce are somebody else's noise.

    Facts come in many lines and are one message, at ``ready``.
    """

    def __init__(self, nonce: str) -> None:
        self._mark = nonce + " "
        self._facts = Collected()

    def feed(self, line: str) -> Message | None:
        """Return the message that LINE completes, None if there is none yet.

        The nonce may stand behind noise that had no line end. Raises MalformedLineError.
        """
        _, mark, text = line[:LONGEST_LINE].rstrip("\r\n").partition(self._mark)
        if not mark:
            return None
        words = text.split()
        try:
            return self._understand(words, text)
        except (ValueError, IndexError, KeyError) as error:
            raise MalformedLineError(f"the server's agent said: {text}") from error

    def _understand(self, words: list[str], text: str) -> Message | None:
        if self._facts.take(words):
            return None
        if words == ["ready"]:
            collected, self._facts = self._facts, Collected()
            return collected.complete()
        return _message_of(words, text)


def _message_of(words: list[str], text: str) -> Message:  # noqa: PLR0911 (a table)
    match words:
        case ["beat", number]:
            return Beat(int(number))
        case ["ok"]:
            return Applied()
        case ["changed"]:
            return Changed()
        case ["unit", number]:
            return Unit(int(number))
        case ["tcp", "-", code, *rest]:
            return Tuned(None, printable(code), printable(" ".join(rest)))
        case ["tcp", name]:
            return Tuned(printable(name)[:16])
        case ["error", code, *rest]:
            return Failed(printable(code), printable(" ".join(rest)))
        case ["left", *rest]:
            return Left(printable(" ".join(rest)))
        case ["bye", *rest]:
            return Ended(printable(" ".join(rest)))
        case _:
            raise ValueError(text)

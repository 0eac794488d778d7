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
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from sshvpn.errors import SshvpnError, printable

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

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class MalformedLineError(SshvpnError):
    """The agent said something that is no line of this protocol."""

    code = "agent_protocol"


class Mode(str, Enum):
    """What the agent is started for."""

    SERVE = "serve"
    """Set up the device of this ssh session, and hold the lease."""
    PREPARE = "prepare"
    """Make a device that a login without root can open, and hold the lease until it does."""
    SWEEP = "sweep"
    """End the session that holds the label, undo what it did, and end."""
    LOOK = "look"
    """Tell the facts and end; change nothing, need no device, end nobody."""


def is_label(text: str) -> bool:
    """Whether ``text`` can be the label of a tunnel on a server."""
    return _LABEL.fullmatch(text) is not None


def is_adapter(text: str) -> bool:
    """Whether ``text`` can be the name of an adapter in what is said to a server."""
    return _ADAPTER.fullmatch(text) is not None


def remote_command(
    script: str, *, nonce: str, label: str, mode: Mode = Mode.SERVE, lease_s: int = DEFAULT_LEASE_S
) -> str:
    """Return the command that ssh is given; the script follows on its standard input.

    It means the same to sh, bash, zsh, fish and csh: words in single quotes, in which there is
    nothing that one of them would take for its own. Raises ValueError for values that would
    need quoting.
    """
    boot = _BOOT.search(script)
    if boot is None:
        raise ValueError("the script has no line boot='…' that every shell can read")
    if not _NONCE.fullmatch(nonce) or not is_label(label):
        raise ValueError(f"not a nonce and a label: {nonce!r}, {label!r}")
    if not 1 <= lease_s <= 86400:  # noqa: PLR2004 -- a day, as the agent has it
        raise ValueError(f"not a lease: {lease_s}")
    words = [str(len(script)), nonce, mode.value, label, str(lease_s)]
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


def encode(lines: Sequence[str]) -> bytes:
    """Return LINES as they go over the wire."""
    return "".join(f"{line}\n" for line in lines).encode("ascii")


# -- what the agent says -----------------------------------------------------------------------


class Rights(str, Enum):
    """What the login may do on the server."""

    ROOT = "uid"
    SUDO = "sudo"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Device:
    """The server's tun of this session. ``owner`` is a uid, None for nobody in particular."""

    name: str
    index: int
    is_up: bool
    mtu: int
    owner: int | None


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """An address of the server; ``network`` is the peer's where it is point to point."""

    interface: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    network: Network


@dataclass(frozen=True, slots=True)
class RemoteRoute:
    """A route of the server. ``interface`` and ``via`` may be None; ``table`` as ip names it."""

    kind: str
    prefix: Network
    via: str | None
    interface: str | None
    table: str


@dataclass(frozen=True, slots=True)
class Adapter:
    """Settings of an adapter; None where the kernel has no such setting.

    ``all`` and ``default`` are adapters here, as in /proc/sys.
    """

    name: str
    forwarding: int | None
    rp_filter: int | None
    forwarding6: int | None
    force_forwarding6: int | None
    disable_ipv6: int | None
    accept_ra: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the agent found, complete.

    ``closed`` are chains of others that drop what is forwarded or published, in the agent's
    words; ``has_all_routes`` is False when there were too many to say. ``rights_code`` and
    ``rights_reason`` say what mends missing rights. ``before`` are the settings (paths below
    /proc/sys) that tunnels have changed on the server, with what they were.
    """

    protocol: int
    user: str
    uid: int
    rights: Rights
    rights_code: str
    rights_reason: str
    system: str
    ip: str | None
    firewall: str | None
    device: Device | None
    addresses: tuple[RemoteAddress, ...]
    routes: tuple[RemoteRoute, ...]
    adapters: tuple[Adapter, ...]
    closed: tuple[str, ...]
    has_all_routes: bool
    before: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat."""

    number: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The configuration stands."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A device was made: ``ssh -w any:NUMBER`` opens it."""

    number: int


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


Message = Facts | Beat | Applied | Unit | Failed | Left | Ended


@dataclass(slots=True)
class _Collected:
    words: dict[str, list[str]] = field(default_factory=dict)
    device: Device | None = None
    addresses: list[RemoteAddress] = field(default_factory=list)
    routes: list[RemoteRoute] = field(default_factory=list)
    adapters: list[Adapter] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    has_all_routes: bool = True
    before: list[tuple[str, int]] = field(default_factory=list)


class Reader:
    """Makes messages of the agent's lines; lines without the nonce are somebody else's noise.

    Facts come in many lines and are one message, at ``ready``.
    """

    def __init__(self, nonce: str) -> None:
        self._mark = nonce + " "
        self._facts = _Collected()

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
        if words[0] in _FACTS:
            _FACTS[words[0]](self._facts, words[1:])
            return None
        if words == ["ready"]:
            collected, self._facts = self._facts, _Collected()
            return _finish(collected)
        message: Message
        match words:
            case ["beat", number]:
                message = Beat(int(number))
            case ["ok"]:
                message = Applied()
            case ["unit", number]:
                message = Unit(int(number))
            case ["error", code, *rest]:
                message = Failed(printable(code), printable(" ".join(rest)))
            case ["left", *rest]:
                message = Left(printable(" ".join(rest)))
            case ["bye", *rest]:
                message = Ended(printable(" ".join(rest)))
            case _:
                raise ValueError(text)
        return message


def _number(word: str) -> int | None:
    return None if word == "-" else int(word)


def _word(word: str) -> str | None:
    return None if word == "-" else printable(word)


def _take_words(facts: _Collected, name: str, words: list[str]) -> None:
    facts.words[name] = [printable(word) for word in words]


def _take_device(facts: _Collected, words: list[str]) -> None:
    name, index, state, mtu, owner = words
    facts.device = Device(printable(name), int(index), state == "up", int(mtu), _number(owner))


def _take_address(facts: _Collected, words: list[str]) -> None:
    interface, own, *peer = words
    address = ipaddress.ip_interface(own)
    network = ipaddress.ip_network(peer[0], strict=False) if peer else address.network
    facts.addresses.append(RemoteAddress(printable(interface), address.ip, network))


def _take_route(facts: _Collected, words: list[str]) -> None:
    family, kind, prefix, via, interface, table = words
    if prefix == "default":
        prefix = "0.0.0.0/0" if family == "4" else "::/0"
    facts.routes.append(
        RemoteRoute(
            printable(kind),
            ipaddress.ip_network(prefix, strict=False),
            _word(via),
            _word(interface),
            printable(table),
        )
    )


def _take_adapter(facts: _Collected, words: list[str]) -> None:
    name, *settings = words
    forwarding, rp_filter, forwarding6, force6, disable6, accept_ra = map(_number, settings)
    facts.adapters.append(
        Adapter(printable(name), forwarding, rp_filter, forwarding6, force6, disable6, accept_ra)
    )


def _take_before(facts: _Collected, words: list[str]) -> None:
    path, value = words
    facts.before.append((printable(path), int(value)))


def _take_closed(facts: _Collected, words: list[str]) -> None:
    facts.closed.append(printable(" ".join(words)))


def _take_cut(facts: _Collected, _: list[str]) -> None:
    facts.has_all_routes = False


_FACTS: Final = {
    "hello": lambda facts, words: _take_words(facts, "hello", words),
    "user": lambda facts, words: _take_words(facts, "user", words),
    "rights": lambda facts, words: _take_words(facts, "rights", words),
    "system": lambda facts, words: _take_words(facts, "system", words),
    "tools": lambda facts, words: _take_words(facts, "tools", words),
    "device": _take_device,
    "address": _take_address,
    "route": _take_route,
    "routes-cut": _take_cut,
    "adapter": _take_adapter,
    "before": _take_before,
    "closed": _take_closed,
}


def _finish(facts: _Collected) -> Facts:
    words = facts.words
    user, uid = words["user"]
    rights, *reason = words["rights"]
    tools = dict(word.split("=", 1) for word in words["tools"])
    return Facts(
        protocol=int(words["hello"][0]),
        user=user,
        uid=int(uid),
        rights=Rights(rights),
        rights_code=reason[0] if reason else "",
        rights_reason=" ".join(reason[1:]),
        system=" ".join(words["system"]),
        ip=None if tools["ip"] == "none" else tools["ip"],
        firewall=None if tools["firewall"] == "none" else tools["firewall"],
        device=facts.device,
        addresses=tuple(facts.addresses),
        routes=tuple(facts.routes),
        adapters=tuple(facts.adapters),
        closed=tuple(facts.closed),
        has_all_routes=facts.has_all_routes,
        before=tuple(facts.before),
    )

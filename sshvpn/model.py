"""The nouns of sshvpn, frozen. No I/O, no parsing, no decisions."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import field
from enum import Enum

from sshvpn.frozen import dataclass

LOOPBACK4 = "127.0.0.1"
LOOPBACK6 = "::1"


class Direction(str, Enum):
    """Which way a forward goes; the values are those of ``status --json``."""

    LOCAL = "local"
    """Listens here, connects there (``ssh -L``)."""
    REMOTE = "remote"
    """Listens there, connects here (``ssh -R``)."""
    DYNAMIC = "dynamic"
    """Listens here, speaks SOCKS, connects there (``ssh -D``)."""


class State(str, Enum):
    """The state of a forward or a tunnel; the values are those of ``status --json``."""

    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A TCP address or host name, and a port. Port 0 as a listener: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """The absolute path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return self.path


Endpoint = TcpEndpoint | UnixEndpoint


@dataclass(frozen=True, slots=True)
class ForwardSpec:
    """One SPEC of cli.md, understood but not yet bound to addresses.

    ``bind`` is None where the SPEC says nothing (loopback, or what ``--bind`` says), ``*`` for
    every address, else an address or ``localhost``; a unix listener has none. ``target`` is
    None for a SOCKS proxy. ``text`` is the SPEC as typed.
    """

    direction: Direction
    bind: str | None
    listen: int | UnixEndpoint
    target: Endpoint | None
    text: str


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket that listens: a SPEC on one address.

    ``interface`` is the adapter that it is meant for, or None, and ``interface_index`` the
    kernel's number of it: one that was made anew wants a new listener. ``spec`` is the index of
    the SPEC that it serves.
    """

    direction: Direction
    listen: Endpoint
    target: Endpoint | None
    interface: str | None = None
    spec: int = 0
    interface_index: int = 0


@dataclass(frozen=True, slots=True)
class Destination:
    """HOST as ``ssh`` takes it: where to log in, with what is left to ssh_config None."""

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def ssh_words(self) -> tuple[str, ...]:
        """The words that name it on ssh's command line; they go last, behind ``--``."""
        words: list[str] = []
        if self.port is not None:
            words += ["-p", str(self.port)]
        if self.user is not None:
            words += ["-l", self.user]
        return (*words, "--", self.host)


@dataclass(frozen=True, slots=True)
class SshOptions:
    """What the user says to ssh (``-F -i -J -o``); handed to ssh alone, never to root."""

    config_file: str | None = None
    identity_files: tuple[str, ...] = ()
    jump: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    @property
    def ssh_words(self) -> tuple[str, ...]:
        """The same as words of ssh's command line."""
        words: list[str] = []
        if self.config_file is not None:
            words += ["-F", self.config_file]
        for file in self.identity_files:
            words += ["-i", file]
        if self.jump is not None:
            words += ["-J", self.jump]
        for key, value in self.options:
            words += ["-o", f"{key}={value}"]
        return tuple(words)


class EngineName(str, Enum):
    """The values of ``--engine``."""

    AUTO = "auto"
    OPENSSH = "openssh"
    SSHTUNNEL = "sshtunnel"


class Tuning(str, Enum):
    """Which ends of SSH's TCP connection are made fit for long and lossy paths."""

    AUTO = "auto"
    """Both of a tunnel, as far as the login may; of a forward this machine's: who forwards a
    port expects that nothing is run at the server, least of all what a key is limited to."""
    BOTH = "both"
    """Both, as far as the login may, of a forward too."""
    LOCAL = "local"
    """This machine's: nothing is run at the server for it."""
    OFF = "off"
    """None: both ends stay as their systems made them."""


@dataclass(frozen=True, slots=True)
class TcpPath:
    """What paces the data of SSH's TCP connection at either end (RFC 5681).

    None where it is the system's own choice, which was not changed and is not known. ``notes``
    say why an end has no better one.
    """

    local: str | None = None
    remote: str | None = None
    notes: tuple[str, ...] = ()


class JupyterWay(str, Enum):
    """How Jupyter is found at the server; the values are words of the script that does it."""

    AUTO = "auto"
    """What a login shell finds."""
    COMMAND = "command"
    PYTHON = "python"
    VENV = "venv"
    CONDA = "conda"


@dataclass(frozen=True, slots=True)
class NotebookWish:
    """What ``sshvpn notebook`` wants to run at the server.

    ``directory`` is the notebook's, as the server knows it; empty: the home directory, or what
    Jupyter's own configuration says. ``words`` belong to ``way``: a command, or a path or name.
    ``has_port`` says that the local port was asked for; else the next free one will do.
    """

    directory: str = ""
    way: JupyterWay = JupyterWay.AUTO
    words: tuple[str, ...] = ()
    has_port: bool = False

    @property
    def wanted(self) -> tuple[str, ...]:
        """The same in words; nothing for what was not said."""
        words = " ".join(self.words)
        return (
            f"notebook {self.directory or '~'}",
            *([f"{self.way.value} {words}"] if self.way is not JupyterWay.AUTO else []),
        )


USUAL_PORT = 0
"""The portal's port where none is said: the usual one, or one of the next."""


@dataclass(frozen=True, slots=True)
class LanWishes:
    """What the machines of a shared network are told: names by mDNS, and a page.

    ``portal`` is a port, ``USUAL_PORT``, or None for no page. ``tokens``: its links have the
    notebook's token, so whoever sees the page gets in.
    """

    announce: bool = True
    portal: int | None = None
    tokens: bool = False

    @property
    def has_any(self) -> bool:
        """Whether anything is to be told."""
        return self.announce or self.portal is not None

    @property
    def wanted(self) -> tuple[str, ...]:
        """The same in words, as far as it is not what is usual."""
        return (
            *([] if self.announce else ["no announce"]),
            *([] if self.portal is None else [f"portal {self.portal}"]),
            *(["portal tokens"] if self.tokens else []),
        )


@dataclass(frozen=True, slots=True)
class ForwardProfile:
    """All that is wanted of one ``sshvpn forward``: what runs it is a session.

    ``binds`` are addresses or interface names (``--bind``). ``lan`` shares on the adapters of
    the LAN; ``lan_trusts`` says that the command line asked for it, which is the trust of
    every network that is there now. ``named`` is True when the name is the user's own
    (``--name`` or a profile), so that it stands for one session only. ``metrics`` is where
    Prometheus reads. ``timeout_s`` bounds the first start (None: no bound). ``typed`` are the
    words of the command line, as the command line keeps them, so that it can be made again from a
    configuration that was edited. With a ``notebook`` the one SPEC leads to wherever
    Jupyter listens then.
    """

    name: str
    host: str
    destination: Destination
    specs: tuple[ForwardSpec, ...]
    binds: tuple[str, ...] = ()
    lan: bool = False
    lan_trusts: bool = False
    engine: EngineName = EngineName.AUTO
    ssh: SshOptions = SshOptions()
    named: bool = False
    metrics: TcpEndpoint | None = None
    typed: str | None = field(default=None, compare=False)
    timeout_s: float | None = None
    tuning: Tuning = Tuning.AUTO
    notebook: NotebookWish | None = None
    wishes: LanWishes = LanWishes()

    @property
    def wanted(self) -> tuple[str, ...]:
        """What is to listen and where, in words: equal for two profiles that want the same."""
        if self.notebook is not None:
            port = [f"port {self.specs[0].listen}"] if self.notebook.has_port else []
            lan = ["lan"] if self.lan else []
            return (*self.notebook.wanted, *port, *lan, *self.wishes.wanted)
        return (
            *(f"{spec.direction.value} {spec.text}" for spec in self.specs),
            *(f"bind {bind}" for bind in self.binds),
            *(["lan"] if self.lan else []),
            *([f"metrics {self.metrics}"] if self.metrics else []),
            *self.wishes.wanted,
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from others of its name: nothing, where the name is the user's own."""
        if self.named:
            return ()
        return self.wanted if self.notebook is None else self.notebook.wanted[:1]

    def is_met_by(self, wanted: Sequence[str]) -> bool:
        """Whether a session that wants ``wanted`` is what this asks for.

        Of a notebook only what was said counts.
        """
        if self.notebook is None:
            return sorted(self.wanted) == sorted(wanted)
        return set(self.wanted) <= set(wanted)


STREAMS_MAX = 64
"""Connections of one tunnel (``--streams``)."""


class Transport(str, Enum):
    """The values of ``--transport``."""

    AUTO = "auto"
    W = "w"
    """OpenSSH's own tun forwarding."""
    STREAM = "stream"
    """The packet pump over an exec channel."""


NO_LAN = "no lan"
"""The wish to share with nobody, in words."""

DEFAULT_ROUTE = "default"
"""The word of ``--route`` that sends everything."""


@dataclass(frozen=True, slots=True)
class TunnelProfile:
    """All that is wanted of one ``sshvpn up``: what runs it is a session.

    ``routes`` are prefixes or ``default``. ``lan`` is None where nothing was said: a person at
    a terminal is asked, else remembered networks count. ``lan_trusts`` says that the command
    line asked for sharing, which is the trust of every network that is there now.
    ``lan_interfaces`` limits it to those adapters, whatever their kind. ``publish`` are SPECs of
    ``--publish``. ``address`` is the tunnel's own, ADDRESS/LENGTH or a prefix.
    ``remote_device`` is a tun that the server's administrator made. ``metrics`` is where
    Prometheus reads. ``timeout_s`` bounds the first start (None: no bound). ``keepalive_s`` is
    the silence after which the other end is asked for a sign of life; None: as is usual.
    ``typed`` are the words of the command line, as the command line keeps them, so that it can be
    made again from a configuration that was edited.
    """

    name: str
    host: str
    destination: Destination
    routes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    lan: bool | None = None
    lan_trusts: bool = False
    lan_interfaces: tuple[str, ...] = ()
    lan_address: str | None = None
    publish: tuple[ForwardSpec, ...] = ()
    nat: bool = True
    transport: Transport = Transport.AUTO
    streams: int | None = None
    mtu: int | None = None
    address: str | None = None
    remote_device: str | None = None
    metrics: TcpEndpoint | None = None
    typed: str | None = field(default=None, compare=False)
    ssh: SshOptions = SshOptions()
    timeout_s: float | None = None
    tuning: Tuning = Tuning.AUTO
    keepalive_s: int | None = None
    wishes: LanWishes = LanWishes()

    @property
    def wanted(self) -> tuple[str, ...]:
        """What was asked for, in words: equal for two profiles that want the same."""
        return (
            *(f"route {route}" for route in self.routes),
            *(f"exclude {prefix}" for prefix in self.exclude),
            *(f"publish {spec.text}" for spec in self.publish),
            *([NO_LAN] if self.lan is False else []),
            *(f"lan {name}" for name in self.lan_interfaces),
            *([f"lan address {self.lan_address}"] if self.lan_address else []),
            *([f"metrics {self.metrics}"] if self.metrics else []),
            *self.wishes.wanted,
        )

    def is_met_by(self, wanted: Sequence[str]) -> bool:
        """Whether a tunnel that wants ``wanted`` is what this asks for; a bare name is met."""
        if self.lan_trusts and NO_LAN in wanted:
            return False
        return not self.wanted or sorted(self.wanted) == sorted(wanted)

    @property
    def has_default(self) -> bool:
        """Whether everything is to go through it."""
        return DEFAULT_ROUTE in self.routes

    @property
    def has_queues(self) -> bool:
        """Whether the device is one of several queues, a stream each."""
        return (self.streams or 1) > 1


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One address of one adapter, whose number in the kernel is ``interface_index``."""

    interface: str
    address: str
    prefix_length: int
    interface_index: int = field(default=0, compare=False)

    @property
    def network(self) -> str:
        """The network it stands in, as ``PREFIX/LENGTH``."""
        return str(ipaddress.ip_network(f"{self.address}/{self.prefix_length}", strict=False))

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.address


@dataclass(frozen=True, slots=True)
class LanNetwork:
    """A local network as trust remembers it: adapter, prefix, the router's MAC or None."""

    interface: str
    prefix: str
    router_mac: str | None

    def __str__(self) -> str:
        router = f", router {self.router_mac}" if self.router_mac else ""
        return f"{self.prefix} on {self.interface}{router}"


@dataclass(frozen=True, slots=True)
class TcpCounters:
    """What one TCP connection has carried: bytes received, and bytes that the peer has.

    ``rtt_s`` is its smoothed round trip, None before the first one. ``repeats_in_s`` is in how
    long it repeats what it has repeated in vain already (RFC 6298), ``unanswered_s`` for how long
    it has been doing so; both are 0.0 where all it has sent lately is acknowledged. ``silent_s`` is
    how long ago data came last.
    """

    rx_bytes: int = 0
    tx_bytes: int = 0
    rtt_s: float | None = None
    repeats_in_s: float = 0.0
    silent_s: float = 0.0
    unanswered_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has been carried so far, in bytes, and how many flows are open now.

    ``rtt_s`` is the last round trip: through a tunnel, or of the TCP connection below a forward
    (behind a jump host that ends there). None where nobody can tell.
    """

    rx_bytes: int | None
    tx_bytes: int | None
    connections: int | None
    rtt_s: float | None = None

"""What a configuration says, frozen. No parsing, no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType

from sshvpn.frozen import dataclass
from sshvpn.model import (
    Destination,
    EngineName,
    ForwardSpec,
    NotebookWish,
    SshOptions,
    TcpEndpoint,
    Transport,
    Tuning,
)


@dataclass(frozen=True, slots=True)
class ForwardEntry:
    """``[forwards.NAME]``: what ``sshvpn forward NAME`` means.

    ``specs`` has those of all three directions; ``binds`` are addresses or adapters;
    ``timeout_s`` and ``keepalive_s`` are None where the file says nothing. ``portal`` is a port,
    0 for the usual one, None for no portal.
    """

    name: str
    host: str
    destination: Destination
    specs: tuple[ForwardSpec, ...]
    binds: tuple[str, ...] = ()
    lan: bool = False
    announce: bool = True
    portal: int | None = None
    engine: EngineName = EngineName.AUTO
    metrics: TcpEndpoint | None = None
    ssh: SshOptions = field(default_factory=SshOptions)
    timeout_s: float | None = None
    tuning: Tuning = Tuning.AUTO
    keepalive_s: int | None = None


@dataclass(frozen=True, slots=True)
class NotebookEntry:
    """``[notebooks.NAME]``: what ``sshvpn notebook NAME`` means.

    ``port`` is the local one, None for 9999 or the next free one. ``portal`` is a port, 0 for
    the usual one, None for no portal.
    """

    name: str
    host: str
    destination: Destination
    wish: NotebookWish = field(default_factory=NotebookWish)
    port: int | None = None
    lan: bool = False
    announce: bool = True
    portal: int | None = None
    portal_tokens: bool = False
    engine: EngineName = EngineName.AUTO
    ssh: SshOptions = field(default_factory=SshOptions)
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class TunnelEntry:
    """``[tunnels.NAME]``: what ``sshvpn up NAME`` means; the fields are the options of ``up``.

    ``routes`` holds networks (``PREFIX/LENGTH``) or ``default``. ``lan`` is None where the file
    says nothing. ``portal`` is a port, 0 for the usual one, None for no portal.
    """

    name: str
    host: str
    destination: Destination
    routes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    lan: bool | None = None
    lan_interfaces: tuple[str, ...] = ()
    lan_address: str | None = None
    publish: tuple[ForwardSpec, ...] = ()
    nat: bool = True
    transport: Transport = Transport.AUTO
    streams: int | None = None
    mtu: int | None = None
    address: str | None = None
    announce: bool = True
    portal: int | None = None
    portal_tokens: bool = False
    metrics: TcpEndpoint | None = None
    remote_device: str | None = None
    ssh: SshOptions = field(default_factory=SshOptions)
    timeout_s: float | None = None
    tuning: Tuning = Tuning.AUTO
    keepalive_s: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """All that the configuration says. ``path`` is None where there is no file."""

    default_host: str | None = None
    forwards: Mapping[str, ForwardEntry] = field(default_factory=lambda: MappingProxyType({}))
    tunnels: Mapping[str, TunnelEntry] = field(default_factory=lambda: MappingProxyType({}))
    path: Path | None = None
    notebooks: Mapping[str, NotebookEntry] = field(default_factory=lambda: MappingProxyType({}))

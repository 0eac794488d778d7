"""What a plan is made from: what is asked for, and what this machine is like; frozen nouns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from sshvpn.frozen import dataclass
from sshvpn.plan.state import Appearance, ForeignChain, Gate, Lan, Published


@dataclass(frozen=True, slots=True)
class TunnelAddresses:
    """Both ends' addresses inside the tunnel, as ``ADDRESS/LENGTH``; IPv6 may be wanting."""

    local4: str
    remote4: str
    local6: str | None = None
    remote6: str | None = None

    @property
    def local(self) -> tuple[str, ...]:
        """This end's addresses with their lengths."""
        return (self.local4,) if self.local6 is None else (self.local4, self.local6)

    @property
    def remote(self) -> tuple[str, ...]:
        """The other end's addresses with their lengths."""
        return (self.remote4,) if self.remote6 is None else (self.remote4, self.remote6)


@dataclass(frozen=True, slots=True)
class BypassMark:
    """What sends with this mark (``SO_MARK``) goes around a default route of ours."""

    mark: int


@dataclass(frozen=True, slots=True)
class BypassCgroup:
    """So does what runs in this cgroup, a path below ``/sys/fs/cgroup``; it gets ``mark``."""

    path: str
    mark: int


@dataclass(frozen=True, slots=True)
class BypassUser:
    """So does all that this user's processes send. Never 0: forwarded packets count as root's."""

    uid: int


Bypass = BypassMark | BypassCgroup | BypassUser


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """What is asked of this machine for one tunnel.

    ``routes`` and ``exclude`` are prefixes. ``has_default`` sends everything; ``bypass`` is then
    how the ssh connection itself stays out of it. ``reaches_ipv6``: the server's side has an
    IPv6 way out; without one, a default route leaves IPv6 unreachable instead of leaking it.
    ``peers`` are the addresses that the connection is made to; they never go into the tunnel.
    ``gives_way``: what overlaps a network of this machine is left out, and no error.
    """

    label: str
    unit: int
    owner: int
    mtu: int
    addresses: TunnelAddresses
    gate: Gate = Gate.AWAY
    is_guarded: bool = True
    has_queues: bool = False
    routes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gives_way: bool = False
    peers: tuple[str, ...] = ()
    has_default: bool = False
    reaches_ipv6: bool = False
    bypass: Bypass | None = None
    has_nat: bool = True
    lans: tuple[Lan, ...] = ()
    published: tuple[Published, ...] = ()
    appearances: tuple[Appearance, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownAddress:
    """An address of an adapter of this machine, ``ADDRESS/LENGTH``."""

    interface: str
    cidr: str


@dataclass(frozen=True, slots=True)
class KnownRoute:
    """A route of this machine; ``unit`` is the tunnel of ours that it belongs to, or None."""

    prefix: str
    interface: str | None
    table: int
    unit: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What this machine is like.

    ``settings`` maps paths below ``/proc/sys`` to the values that they have without us, of all
    adapters and of ``all`` and ``default``. ``chains`` are the foreign chains that a packet
    must pass to be forwarded.
    """

    addresses: frozenset[KnownAddress] = frozenset()
    routes: frozenset[KnownRoute] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    chains: frozenset[ForeignChain] = frozenset()
    has_ipv6: bool = True

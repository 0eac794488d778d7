"""The nouns of what a tunnel has in this machine's kernel, frozen; no decisions.

Addresses and prefixes are text in the form that :mod:`ipaddress` prints. Whether they are
IPv6 is seen from the colon.
"""

from __future__ import annotations

from enum import Enum

from sshvpn.frozen import dataclass
from sshvpn.plan import marks

MAIN_TABLE = 254
"""``RT_TABLE_MAIN`` of rtnetlink(7)."""


@dataclass(frozen=True, slots=True)
class Link:
    """A persistent tun device; ``owner`` is the uid whose ssh may open it.

    ``label`` and ``ssh_name`` are as read: empty and False where somebody took them away.
    ``has_queues``: it takes several descriptors (IFF_MULTI_QUEUE), which ssh cannot open.
    """

    unit: int
    label: str
    owner: int
    mtu: int
    is_up: bool = True
    ssh_name: bool = True
    has_queues: bool = False

    @property
    def name(self) -> str:
        """Its name, ``sshvpnN``."""
        return marks.device_name(self.unit)


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the device: ``ADDRESS/LENGTH``."""

    device: str
    cidr: str


@dataclass(frozen=True, slots=True)
class Route:
    """A route into ``device``; without one, the unreachable twin that stands behind it."""

    prefix: str
    device: str | None
    metric: int
    table: int = MAIN_TABLE


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A policy rule (ip-rule(8)) that looks at ``table``.

    ``mark`` selects packets that bear it, or with ``is_not`` all others. ``uid`` selects what
    that user's processes send. ``is_specific_only`` ignores the table's default route.
    """

    priority: int
    is_ipv6: bool
    table: int
    mark: int | None = None
    is_not: bool = False
    uid: int | None = None
    is_specific_only: bool = False


@dataclass(frozen=True, slots=True)
class ProxyNeighbour:
    """An address that this machine answers for (ARP, NDP) on ``interface``."""

    interface: str
    address: str


class Setting(str, Enum):
    """The settings that may be changed, always of one adapter; ``{}`` is its name."""

    FORWARDING4 = "net/ipv4/conf/{}/forwarding"
    RP_FILTER = "net/ipv4/conf/{}/rp_filter"
    FORWARDING6 = "net/ipv6/conf/{}/forwarding"
    FORCE_FORWARDING6 = "net/ipv6/conf/{}/force_forwarding"
    ACCEPT_RA = "net/ipv6/conf/{}/accept_ra"
    PROXY_NDP = "net/ipv6/conf/{}/proxy_ndp"
    ADDR_GEN_MODE = "net/ipv6/conf/{}/addr_gen_mode"
    ROUTER_SOLICITATIONS = "net/ipv6/conf/{}/router_solicitations"


GONE = "gone"
"""The value of a setting whose adapter is no more."""


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A setting of an adapter that we hold at ``value``; ``before`` is what it had without us.

    As read, ``value`` is what it really has now. ``interface`` is ``all`` for IPv6 forwarding on
    kernels that have no other switch.
    """

    setting: Setting
    interface: str
    value: str
    before: str

    @property
    def path(self) -> str:
        """The name below ``/proc/sys``; sysctl(8) takes it too, dots in adapters' names and all."""
        return self.setting.value.format(self.interface)


class ForeignChain(str, Enum):
    """The chains of others in which a rule of ours may stand: ``FAMILY TABLE CHAIN``."""

    DOCKER4 = "ip filter DOCKER-USER"
    DOCKER6 = "ip6 filter DOCKER-USER"
    UFW4 = "ip filter ufw-before-forward"
    UFW6 = "ip6 filter ufw6-before-forward"
    FORWARD4 = "ip filter FORWARD"
    FORWARD6 = "ip6 filter FORWARD"
    FIREWALLD = "inet firewalld filter_FORWARD"

    @property
    def family(self) -> str:
        """Its address family as nft(8) says it."""
        return self.value.split()[0]

    @property
    def chain(self) -> str:
        """Its name."""
        return self.value.split()[2]


@dataclass(frozen=True, slots=True)
class Accept:
    """A rule of ours in a foreign chain: from one adapter to another, accepted.

    It only undoes the drop of that chain's owner: who gets in is decided in our own table.
    """

    chain: ForeignChain
    incoming: str
    outgoing: str


class Gate(str, Enum):
    """What may go through the device now."""

    AWAY = "away"
    """Nothing: there is no connection; senders are told host-unreachable at once."""
    PROBING = "probing"
    """Only this machine's own packets: the probe must cross first."""
    OPEN = "open"
    """The local network too, where it was let in."""


@dataclass(frozen=True, slots=True)
class Lan:
    """A local network that is let in: what comes by ``interface`` from ``network``."""

    interface: str
    network: str


@dataclass(frozen=True, slots=True)
class Published:
    """A TCP port of ours that leads to ``target:target_port`` behind the tunnel."""

    address: str
    port: int
    target: str
    target_port: int


@dataclass(frozen=True, slots=True)
class Appearance:
    """An address of the local network under which ``target`` appears (``--lan-address``)."""

    interface: str
    address: str
    target: str


@dataclass(frozen=True, slots=True)
class Confined:
    """An adapter that forwards what comes in of a ``family`` (``ip``, ``ip6``) to tunnels only.

    ``interface`` None is every adapter.
    """

    interface: str | None
    family: str


@dataclass(frozen=True, slots=True)
class Firewall:
    """Our nft table, as a description; :func:`sshvpn.plan.nft.ruleset` makes its text.

    ``routed`` are the prefixes that LAN machines may reach through the device. ``own`` are
    this machine's addresses on the device. ``is_guarded``: the transport dies of packets of 20
    bytes and fewer. ``ssh_cgroup`` is the cgroup (version 2) whose packets get ``mark``.
    """

    label: str
    device: str
    gate: Gate
    is_guarded: bool
    own: frozenset[str] = frozenset()
    lans: frozenset[Lan] = frozenset()
    routed: frozenset[str] = frozenset()
    published: frozenset[Published] = frozenset()
    appearances: frozenset[Appearance] = frozenset()
    confined: frozenset[Confined] = frozenset()
    has_nat: bool = True
    ssh_cgroup: str | None = None
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class UnknownTable:
    """Our table is there, but holds something else than what was loaded last."""

    label: str


@dataclass(frozen=True, slots=True)
class NetworkState:
    """All that one tunnel has, or wants, in this machine's kernel."""

    label: str
    link: Link | None = None
    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[PolicyRule] = frozenset()
    neighbours: frozenset[ProxyNeighbour] = frozenset()
    table: Firewall | UnknownTable | None = None
    sysctls: frozenset[Sysctl] = frozenset()
    accepts: frozenset[Accept] = frozenset()

    @property
    def is_nothing(self) -> bool:
        """Whether the tunnel has nothing in the kernel."""
        return self == nothing(self.label)


def nothing(label: str) -> NetworkState:
    """Return what a tunnel that is down wants: nothing."""
    return NetworkState(label)


def family(text: str) -> str:
    """Return ``ip6`` for an IPv6 address or prefix, else ``ip``, as nft(8) says it."""
    return "ip6" if ":" in text else "ip"

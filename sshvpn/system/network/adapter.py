"""Which adapters and addresses are the LAN's: pure, over records that interfaces.py reads."""

from __future__ import annotations

import ipaddress
import re

from sshvpn.frozen import dataclass

_LAN_NETWORKS = tuple(
    ipaddress.ip_network(text)
    # RFC 1918 and RFC 4193. Not Python's is_private, which counts a dozen others as well.
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)

_BRIDGES = frozenset({"bridge", "bond", "team"})
"""Kinds that join adapters to one, and that a person gives an address."""

_STACKED = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"})
"""Kinds that stand on another adapter and are as good as it is."""

_FOREIGN_NAMES = re.compile(
    r"""
    sshvpn.*                                        # our own
    | docker.* | br-[0-9a-f]{12} | podman.*         # container engines
    | virbr.* | lxcbr.* | lxdbr.* | incusbr.* | mpqemubr.* | vboxnet.* | vmnet.*
    | cni.* | cbr\d* | cali.* | lxc.* | cilium.* | flannel.* | weave.* | kube.*
    | waydroid.* | anbox.*
    | veth.* | ve-.* | vb-.* | vz-.*                # the host's side of a container
    | ww.*                                          # mobile data: the carrier's network
    | zt[a-z0-9]{8,}                                # ZeroTier
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """What the kernel says of one adapter (rtnetlink(7)).

    ``kind`` is IFLA_INFO_KIND, empty for a physical one. ``master`` is the adapter that it is
    enslaved to. ``lower`` is what it stands on (IFLA_LINK), None where there is nothing, or
    where that is in another network namespace.
    """

    name: str
    kind: str = ""
    is_up: bool = True
    is_broadcast: bool = True
    is_loopback: bool = False
    master: int | None = None
    lower: Adapter | None = None


def is_lan_adapter(adapter: Adapter) -> bool:
    """Whether machines of a local network may be behind ``adapter`` (cli.md, "The LAN")."""
    if not adapter.is_up or not adapter.is_broadcast or adapter.is_loopback:
        return False
    if adapter.master is not None or _FOREIGN_NAMES.fullmatch(adapter.name):
        return False
    if adapter.kind in _STACKED:
        return adapter.lower is None or _carries_lan(adapter.lower)
    # A veth that is not somebody's host side is the uplink of the container that we are in.
    return adapter.kind in ("", "veth") or adapter.kind in _BRIDGES


def is_lan_address(address: str) -> bool:
    """Whether ``address`` is one of RFC 1918 or a unique local one (RFC 4193)."""
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in _LAN_NETWORKS if network.version == parsed.version)


def prefix_length(netmask: str | None, *, is_ipv6: bool) -> int:
    """Return the length of a netmask as netifaces gives it; without one, a host's.

    ``255.255.255.0``, ``ffff:ffff::``, ``ffff:ffff::/32``. Raises ValueError for another word.
    """
    if netmask is None:
        return 128 if is_ipv6 else 32
    mask, _, length = netmask.partition("/")
    if length:
        return int(length)
    bits = int(ipaddress.ip_address(mask))
    return bits.bit_count()


def _carries_lan(lower: Adapter) -> bool:
    """Whether what stands on ``lower`` is on a LAN: its own state and master do not count."""
    return is_lan_adapter(
        Adapter(name=lower.name, kind=lower.kind, is_loopback=lower.is_loopback, lower=lower.lower)
    )

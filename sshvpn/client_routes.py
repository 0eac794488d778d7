"""What the machines of a LAN, or its router, need for the networks of a tunnel; pure.

::

    destinations ─┐
    LANs ─────────┼──> for each network of the LAN: the destinations of its family by the
    a system ─────┘    gateway's address there, in that system's own words

The text can be pasted as it is, comments too: an interactive zsh and cmd take ``#`` for a
command. A word in capitals that must be replaced first is no address, so that it is refused
where that was forgotten.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum

from sshvpn.frozen import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV4 = 4
IPV6 = 6
_LONGEST_OPTION = 255
"""RFC 2132, section 2: the length of a DHCP option is one byte."""


class System(str, Enum):
    """The values of ``--format``."""

    LINUX = "linux"
    MACOS = "macos"
    WINDOWS = "windows"
    DNSMASQ = "dnsmasq"
    OPENWRT = "openwrt"


@dataclass(frozen=True, slots=True)
class Lan:
    """One network that a tunnel is shared with.

    ``address`` is this gateway's there. ``router`` is the IPv4 address of the network's default
    router, None where it is not known.
    """

    interface: str
    network: str
    address: str
    router: str | None = None

    @property
    def version(self) -> int:
        """The version of IP."""
        return ipaddress.ip_network(self.network).version


def lans_of(
    records: Iterable[Mapping[str, str]], routers: Mapping[str, str] | None = None
) -> list[Lan]:
    """Return the networks in ``lan`` of ``status --json``, each once.

    ``routers`` are the IPv4 default routers by adapter, as far as they are known.
    """
    found: dict[str, Lan] = {}
    for one in records:
        network = ipaddress.ip_network(one["network"])
        router = (routers or {}).get(one["interface"])
        if router is not None and ipaddress.ip_address(router) not in network:
            router = None
        lan = Lan(one["interface"], str(network), one["address"], router)
        found.setdefault(lan.network, lan)
    return list(found.values())


def destinations_of(routes: Iterable[str], remote_addresses: Iterable[str]) -> list[str]:
    """Return the prefixes to be reached through a tunnel, IPv4 first.

    ``remote_addresses`` are the remote host's own in the tunnel, with their prefixes. What is
    inside of another is left out.
    """
    hosts = (ipaddress.ip_interface(one).ip for one in remote_addresses)
    wanted = dict.fromkeys(
        (*map(ipaddress.ip_network, routes), *(ipaddress.ip_network(host) for host in hosts))
    )
    kept = [one for one in wanted if not any(one != it and _is_in(one, it) for it in wanted)]
    return [str(one) for one in sorted(kept, key=lambda one: one.version)]


def client_routes(destinations: Sequence[str], lans: Sequence[Lan], system: System) -> str:
    """Return what has to be typed, or put into a configuration, on or for ``system``."""
    networks = [ipaddress.ip_network(one) for one in destinations]
    write = _WRITERS[system]
    blocks: list[list[str]] = []
    for lan in lans:
        wanted = [one for one in networks if one.version == lan.version]
        if wanted:
            blocks.append(list(write(lan, wanted)))
    if system is System.DNSMASQ and sum(lan.version == IPV4 for lan in lans) > 1:
        blocks.append(list(_ONE_FOR_SEVERAL))
    blocks += [[_comment(system, text)] for text in _without_way(networks, lans)]
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def one_line_per_system(
    destinations: Sequence[str], lans: Sequence[Lan]
) -> Mapping[str, Sequence[str]]:
    """Return the commands for one machine of the LAN, by the name of its system.

    One line a destination that can be reached. Empty where machines of different networks need
    different lines: ``sshvpn routes`` tells them apart.
    """
    networks = [ipaddress.ip_network(one) for one in destinations]
    by_version = {lan.version: lan for lan in lans}
    if len(by_version) < len(lans):
        return {}
    ways = [(one, by_version[one.version].address) for one in networks if one.version in by_version]
    if not ways:
        return {}
    return {
        name: [line(half, gateway) for one, gateway in ways for half in _halves(one)]
        for name, line in (("Linux", _linux), ("macOS", _macos), ("Windows", _windows))
    }


def _is_in(one: Network, other: Network) -> bool:
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


def _halves(network: Network) -> Iterable[Network]:
    """Return a default route as two halves: they win, and the machine keeps its own one."""
    return network.subnets() if network.prefixlen == 0 else (network,)


def _without_way(networks: Sequence[Network], lans: Sequence[Lan]) -> Iterator[str]:
    """Yield what has to be said of families that an adapter's network does not have."""
    for interface in dict.fromkeys(lan.interface for lan in lans):
        here = {lan.version for lan in lans if lan.interface == interface}
        for version in (IPV4, IPV6):
            left = [str(one) for one in networks if one.version == version]
            if left and version not in here:
                yield (
                    f"no way from {interface} to {', '.join(left)}: "
                    f"this gateway has no IPv{version} address there"
                )


def _comment(system: System, text: str) -> str:
    # cmd and PowerShell have no comment in common, zsh none at a prompt; but all have this.
    return f'echo "{text}"' if system in (System.MACOS, System.WINDOWS) else f"# {text}"


# A machine ---------------------------------------------------------------------------------


def _linux(network: Network, gateway: str) -> str:
    """Return the command of ip-route(8)."""
    ip = "ip -6" if network.version == IPV6 else "ip"
    return f"{ip} route add {network} via {gateway}"


def _macos(network: Network, gateway: str) -> str:
    """Return the command of route(8) on macOS."""
    kind = "-inet6" if network.version == IPV6 else "-net"
    return f"sudo route -n add {kind} {network} {gateway}"


def _windows(network: Network, gateway: str) -> str:
    """Return the command of route.exe: the same in cmd and PowerShell, and without an adapter."""
    if network.version == IPV6:
        return f"route -p ADD {network} {gateway}"
    return f"route -p ADD {network.network_address} MASK {network.netmask} {gateway}"


def _machine(
    system: System, said: str, line: Callable[[Network, str], str]
) -> Callable[[Lan, Sequence[Network]], Iterator[str]]:
    def write(lan: Lan, networks: Sequence[Network]) -> Iterator[str]:
        yield _comment(system, said.format(network=lan.network))
        for network in networks:
            yield from (line(half, lan.address) for half in _halves(network))

    return write


# The router, or whoever gives the addresses ------------------------------------------------


def _split_default(networks: Sequence[Network]) -> tuple[str, list[Network]]:
    """Return why everything cannot be led by the router, or "", and what can be."""
    kept = [one for one in networks if one.prefixlen > 0]
    if len(kept) == len(networks):
        return "", kept
    return (
        "everything goes through the tunnel, but not by way of the router, which would send this "
        "gateway its own packets: the machines need what --format linux, macos or windows has"
    ), kept


def _classless(lan: Lan, networks: Sequence[Network], router: str) -> str | None:
    """Return the routes as options 121 and 249 have them, None where they are too long.

    With the default route: a client that is given these ignores option 3 (RFC 3442).
    """
    # RFC 3442: a byte for the length of the prefix, those of the prefix, four for the router.
    length = sum(1 + (one.prefixlen + 7) // 8 + 4 for one in networks) + 5
    if length > _LONGEST_OPTION:
        return None
    pairs = [f"0.0.0.0/0,{router}", *(f"{one},{lan.address}" for one in networks)]
    return ",".join(pairs)


_ONE_FOR_SEVERAL = (
    "# where one dnsmasq serves several of these networks, each line is for one of its adapters:",
    "# dhcp-option=tag:ADAPTER,option:classless-static-route,...",
)
_TOO_LONG = "these are more routes than a DHCP option holds: add them on the router instead"


def _dnsmasq(lan: Lan, networks: Sequence[Network]) -> Iterator[str]:
    why, networks = _split_default(networks)
    if why:
        yield f"# {why}"
    if not networks:
        return
    if lan.version == IPV6:
        yield from _radvd(lan, networks)
        return
    yield f"# dnsmasq.conf of the DHCP server for {lan.network}"
    routes = _classless(lan, networks, lan.router or "ROUTER")
    if routes is None:
        yield f"# {_TOO_LONG}"
        return
    yield "# a client that is given routes ignores the router of option 3 (RFC 3442), so the"
    if lan.router is None:
        yield "# default route is among them: write the router's address in the place of ROUTER"
    else:
        yield f"# default route is among them: by {lan.router}, as this gateway has it"
    yield f"dhcp-option=option:classless-static-route,{routes}"
    yield "# the same for Windows before Vista"
    yield f"dhcp-option=249,{routes}"


def _radvd(lan: Lan, networks: Sequence[Network]) -> Iterator[str]:
    yield f"# for {lan.network}: DHCPv6 has no routes; router advertisements do (RFC 4191), and"
    yield "# dnsmasq has no option for those; radvd has, on this gateway, in radvd.conf:"
    yield f"#   interface {lan.interface} {{"
    yield "#     AdvSendAdvert on;"
    yield "#     AdvDefaultLifetime 0;"
    yield from (f"#     route {network} {{ }};" for network in networks)
    yield "#   };"


def _openwrt(lan: Lan, networks: Sequence[Network]) -> Iterator[str]:
    why, networks = _split_default(networks)
    if why:
        yield f"# {why}"
    if not networks:
        return
    yield f"# on the OpenWrt router of {lan.network}, whose interface there is called lan"
    kind = "route6" if lan.version == IPV6 else "route"
    for network in networks:
        yield f"uci add network {kind}"
        yield f"uci set network.@{kind}[-1].interface='lan'"
        yield f"uci set network.@{kind}[-1].target='{network}'"
        yield f"uci set network.@{kind}[-1].gateway='{lan.address}'"
    yield "uci commit network"
    yield "/etc/init.d/network reload"
    routes = _classless(lan, networks, "$router") if lan.version == IPV4 else None
    if routes is not None:
        yield "# or by DHCP, so that machines go to this gateway at once (RFC 3442):"
        # A list since OpenWrt 24.10, and then with its prefix.
        yield "#   router=$(uci get network.lan.ipaddr); router=${router%%[/ ]*}"
        yield f'#   uci add_list dhcp.lan.dhcp_option="121,{routes}"'
        yield "#   uci commit dhcp"
        yield "#   /etc/init.d/dnsmasq restart"


_WRITERS: Mapping[System, Callable[[Lan, Sequence[Network]], Iterator[str]]] = {
    System.LINUX: _machine(
        System.LINUX, "as root, on a machine of {network}, until its next boot:", _linux
    ),
    System.MACOS: _machine(System.MACOS, "on a Mac of {network}, until its next boot:", _macos),
    System.WINDOWS: _machine(
        System.WINDOWS, "as administrator, on a machine of {network}, for ever:", _windows
    ),
    System.DNSMASQ: _dnsmasq,
    System.OPENWRT: _openwrt,
}

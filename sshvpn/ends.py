"""What each end of a tunnel shall be, from what is asked for and what both sides are like; pure.

::

    TunnelProfile ─┐
    local facts ───┼──> Ends.addresses ──> local plan ──> sshvpn.plan (steps here)
    remote facts ──┘                  └──> RemoteEnd ───> the agent   (steps there)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from sshvpn import server_routes
from sshvpn.errors import SshvpnError, TakenError, TunnelRefusedError, UsageError
from sshvpn.frozen import dataclass
from sshvpn.model import (
    DEFAULT_ROUTE,
    LOOPBACK4,
    LOOPBACK6,
    ForwardSpec,
    InterfaceAddress,
    TcpEndpoint,
    TunnelProfile,
)
from sshvpn.plan import addresses as plan_addresses, marks, prefixes
from sshvpn.plan.request import Bypass, Facts, TunnelAddresses, TunnelPlan
from sshvpn.plan.settings import LOWEST_MTU6
from sshvpn.plan.state import Appearance, Gate, Lan, Published
from sshvpn.remote import protocol

_SPARE_PORTS = range(49152, 65536)
"""RFC 6335, section 6: for those published services whose own port another one has."""

_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (*plan_addresses.POOLS, "192.168.0.0/16", "169.254.0.0/16", "fc00::/7")
)
"""Where a server's own tun may have its addresses (RFC 1918, 6598, 2544, 3927, 4193)."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the server's side that is published.

    ``port`` is where it is reached at the server's end of the tunnel, None where no rights on
    the server (or a name that only the server resolves, or an address to which it forwards
    nothing) leave nothing but ``ssh -L``.
    """

    spec: ForwardSpec
    target: TcpEndpoint
    port: int | None


@dataclass(frozen=True, slots=True)
class Site:
    """All that decides about one tunnel: who it is, and what both sides are like.

    ``remote`` is None where the login runs no agent. ``shared`` are our addresses on the
    networks that are shared with. ``default_mtu`` and ``is_guarded`` are the carrier's.
    """

    profile: TunnelProfile
    label: str
    unit: int
    owner: int
    local: Facts
    remote: protocol.Facts | None
    shared: tuple[InterfaceAddress, ...] = ()
    peers: tuple[str, ...] = ()
    bypass: Bypass | None = None
    default_mtu: int = protocol.LARGEST_MTU
    is_guarded: bool = True

    @property
    def can_configure(self) -> bool:
        """Whether the agent may change anything on the server."""
        return self.remote is not None and self.remote.rights is not protocol.Rights.NONE

    @property
    def mtu(self) -> int:
        """The tunnel's MTU in bytes: what is asked for, else the most that both ends carry."""
        mtu = self.profile.mtu or self.default_mtu
        device = None if self.remote is None or self.can_configure else self.remote.device
        return mtu if device is None else min(mtu, device.mtu)


# Addresses ---------------------------------------------------------------------------------


def choose_addresses(site: Site) -> TunnelAddresses:
    """Return both ends' addresses: those the server's administrator gave, else free ones.

    Raises TakenError, UsageError, or TunnelRefusedError for a device without an address.
    """
    wanted = site.profile.address
    if site.can_configure:
        has_ipv6 = site.local.has_ipv6 and _has_ipv6(site.remote) and site.mtu >= LOWEST_MTU6
        return plan_addresses.pick(site.label, _taken(site), wanted=wanted, has_ipv6=has_ipv6)
    given = _given(site)
    if given is not None:
        _check_given(site, given)
    if wanted is not None and (given is None or ":" not in wanted):
        taken = (*_taken_here(site), *site.peers)
        chosen = plan_addresses.pick(site.label, taken, wanted=wanted, has_ipv6=False)
        if given is None:
            return chosen
        return TunnelAddresses(chosen.local4, given.remote4, given.local6, given.remote6)
    if given is None:
        raise _without_address(site)
    return given


def _without_address(site: Site) -> TunnelRefusedError:
    free = plan_addresses.pick(site.label, _taken(site), has_ipv6=False).remote4
    device = site.remote.device.name if site.remote and site.remote.device else "DEVICE"
    return TunnelRefusedError(
        "the server's tun has no address, and this login may not give it one",
        f"on the server, as root: ip address add {free} dev {device} && ip link set {device} up",
    )


def _has_ipv6(remote: protocol.Facts | None) -> bool:
    if remote is None:
        return False
    default = next((one for one in remote.adapters if one.name == "default"), None)
    return default is not None and default.disable_ipv6 == 0


def _taken(site: Site) -> Iterator[str]:
    """Yield the prefixes that the tunnel's own addresses must not be in."""
    yield from _taken_here(site)
    yield from (route for route in site.profile.routes if route != DEFAULT_ROUTE)
    if site.profile.lan_address is not None:
        yield site.profile.lan_address
    if site.remote is None:
        return
    own = site.remote.device.name if site.remote.device else None
    for address in site.remote.addresses:
        if address.interface != own:
            yield from (str(address.address), str(address.network))
    yield from (str(r.prefix) for r in site.remote.routes if own not in r.interfaces)


def _taken_here(site: Site) -> Iterator[str]:
    device = marks.device_name(site.unit)
    yield from (a.cidr for a in site.local.addresses if a.interface != device)
    yield from (r.prefix for r in site.local.routes if r.unit != site.unit)


def _given(site: Site) -> TunnelAddresses | None:
    """Return the addresses that the server's device has already, with ours beside them."""
    if site.remote is None or site.remote.device is None:
        return None
    name = site.remote.device.name
    here = [a for a in site.remote.addresses if a.interface == name and not a.address.is_link_local]
    pairs = {a.address.version: pair for a in here if (pair := _pair(a)) is not None}
    if 4 not in pairs:  # noqa: PLR2004 (the family's name)
        return None
    local6, remote6 = pairs.get(6, (None, None)) if site.local.has_ipv6 else (None, None)
    return TunnelAddresses(*pairs[4], local6, remote6)


def _check_given(site: Site, given: TunnelAddresses) -> None:
    """Raise TakenError or TunnelRefusedError for addresses that no honest server gives its tun.

    Whoever says them must not lead this machine's own traffic into the tunnel.
    """
    said = site.profile.address
    wanted = None if said is None else ipaddress.ip_interface(said).network
    for text in (*given.local, *given.remote):
        network = ipaddress.ip_interface(text).network
        for own in (*_taken_here(site), *site.peers):
            other = ipaddress.ip_interface(own).network
            if other.prefixlen > 0 and prefixes.has_overlap(network, other):
                raise TakenError(
                    f"the server's tun has {text}, which is in {other}, a network of this machine",
                    "let the server's administrator give it other addresses",
                )
        if network != wanted and not any(server_routes.is_in(network, pool) for pool in _PRIVATE):
            raise TunnelRefusedError(
                f"the server's tun has {text}, which is no private address",
                "let the server's administrator give it others; if you trust it: --address CIDR",
            )


def _pair(remote: protocol.RemoteAddress) -> tuple[str, str] | None:
    """Return (ours, theirs) for an address of the server's device; None: it has no room."""
    network = remote.network
    if remote.address not in network:  # point to point: the network is the peer's own
        return f"{network.network_address}/32", f"{remote.address}/32"
    hosts = network.hosts() if network.num_addresses > 1 else iter(())
    ours = next((host for host in hosts if host != remote.address), None)
    if ours is None:
        return None
    return f"{ours}/{network.prefixlen}", f"{remote.address}/{network.prefixlen}"


# This machine's end ------------------------------------------------------------------------


def local_plan(
    site: Site, addresses: TunnelAddresses, services: Sequence[Service], gate: Gate
) -> TunnelPlan:
    """Return what is asked of this machine. Raises UsageError."""
    profile = site.profile
    reaches_ipv6 = site.remote is not None and server_routes.reaches_ipv6(site.remote)
    return TunnelPlan(
        label=site.label,
        unit=site.unit,
        owner=site.owner,
        mtu=site.mtu,
        addresses=addresses,
        gate=gate,
        is_guarded=site.is_guarded,
        has_queues=profile.has_queues,
        routes=tuple(route for route in profile.routes if route != DEFAULT_ROUTE),
        exclude=profile.exclude,
        peers=site.peers,
        has_default=profile.has_default,
        reaches_ipv6=reaches_ipv6 and addresses.local6 is not None,
        bypass=site.bypass if profile.has_default else None,
        has_nat=profile.nat,
        lans=_lans(site.shared),
        published=tuple(_published(site, addresses, services)),
        appearances=tuple(_appearances(site, addresses)),
    )


def _lans(shared: Iterable[InterfaceAddress]) -> tuple[Lan, ...]:
    return tuple(dict.fromkeys(Lan(a.interface, a.network) for a in shared))


def _published(
    site: Site, addresses: TunnelAddresses, services: Sequence[Service]
) -> Iterator[Published]:
    for service in services:
        if service.port is None:
            continue
        for here in listen_addresses(service.spec, site.shared):
            target = addresses.remote6 if here.is_ipv6 else addresses.remote4
            # The kernel translates within a family, and cannot reach ::1 from outside.
            is_same = here.is_ipv6 == (":" in service.target.host)
            if target is not None and is_same:
                host = str(ipaddress.ip_interface(target).ip)
                yield Published(here.address, _listen_port(service.spec), host, service.port)


def listen_addresses(
    spec: ForwardSpec, shared: Sequence[InterfaceAddress]
) -> Sequence[InterfaceAddress]:
    """Return those of our shared addresses at which ``spec`` is published."""
    return [here for here in shared if spec.bind in (None, "*", here.address)]


def _appearances(site: Site, addresses: TunnelAddresses) -> Iterator[Appearance]:
    wanted = site.profile.lan_address
    if wanted is None:
        return
    target = addresses.remote6 if ":" in wanted else addresses.remote4
    if target is None:
        raise UsageError(
            f"--lan-address {wanted}: the tunnel has no IPv6", "name an IPv4 address of the LAN"
        )
    where = interface_of(wanted, site.shared)
    if where is not None:
        yield Appearance(where, wanted, str(ipaddress.ip_interface(target).ip))


def interface_of(address: str, shared: Sequence[InterfaceAddress]) -> str | None:
    """Return the shared adapter in whose network ``address`` is, None where there is none."""
    wanted = ipaddress.ip_address(address)
    for here in shared:
        if wanted in ipaddress.ip_network(here.network):
            return here.interface
    return None


# The services ------------------------------------------------------------------------------


def services_of(site: Site) -> tuple[Service, ...]:
    """Return the services of ``--publish``, each with its port at the server's end, if any."""
    used: set[tuple[bool, int]] = set()
    services = []
    for spec in site.profile.publish:
        target = _target(spec)
        port = None
        if site.can_configure and _is_translatable(site, spec, target):
            is_ipv6 = ":" in target.host
            wanted = (target.port, *_SPARE_PORTS)
            port = next(one for one in wanted if (is_ipv6, one) not in used)
            used.add((is_ipv6, port))
        # ssh is told the user's own word: sshd tries all addresses that localhost has, and
        # permitopen compares words.
        services.append(Service(spec, target if port is not None else _of_tcp(spec), port))
    return tuple(services)


def _of_tcp(spec: ForwardSpec) -> TcpEndpoint:
    if not isinstance(spec.target, TcpEndpoint):
        raise UsageError(f"--publish {spec.text}: not a TCP service", "name a port")
    return spec.target


def _target(spec: ForwardSpec) -> TcpEndpoint:
    """Return what packets are sent on to."""
    target = _of_tcp(spec)
    return TcpEndpoint(LOOPBACK4, target.port) if target.host == "localhost" else target


def _is_translatable(site: Site, spec: ForwardSpec, target: TcpEndpoint) -> bool:
    """Whether the kernels can lead to ``target``, from one of our addresses at least."""
    is_ipv6 = ":" in target.host
    if all(here.is_ipv6 != is_ipv6 for here in listen_addresses(spec, site.shared)):
        return False
    if spec.bind in (LOOPBACK4, LOOPBACK6, "localhost") or target.host == LOOPBACK6:
        return False
    try:
        address = ipaddress.ip_address(target.host)
    except ValueError:
        return False
    # Nothing is forwarded at the server for a service alone: its sshd connects to it.
    return site.remote is not None and server_routes.is_led_to(site.profile, site.remote, address)


def _listen_port(spec: ForwardSpec) -> int:
    if not isinstance(spec.listen, int):
        raise SshvpnError(f"--publish {spec.text}: not a TCP port")
    return spec.listen


# The server's end --------------------------------------------------------------------------


def remote_end(
    site: Site,
    addresses: TunnelAddresses,
    services: Sequence[Service],
    *,
    gives_way: bool = False,
) -> protocol.RemoteEnd:
    """Return what the agent shall make of the server's end.

    Raises UsageError for a LAN that would be routed here while the server itself is in it, and
    TakenError where the server has another route to it; one that ``gives_way`` leaves it out.
    """
    profile = site.profile
    own = [ipaddress.ip_interface(one) for one in addresses.local]
    versions = {one.version for one in own}
    returns = [lan for lan in _returns(site) if lan.version in versions]
    return protocol.RemoteEnd(
        addresses=tuple(ipaddress.ip_interface(one) for one in addresses.remote),
        mtu=site.mtu,
        routes=tuple(_free(site, returns, gives_way=gives_way)),
        # This machine's own packets always: nobody beyond the server knows these addresses.
        masquerade=tuple(ipaddress.ip_network(one.ip) for one in own) if profile.routes else (),
        forward=tuple(server_routes.ways_out(profile, site.remote)) if site.remote else (),
        published=tuple(_publications(addresses, services)),
        is_guarded=site.is_guarded,
    )


def _returns(site: Site) -> list[prefixes.Network]:
    """Return the networks of the LAN to which the server's answers go, unless they are masked."""
    return [] if site.profile.nat else [prefixes.parse(lan.network) for lan in _lans(site.shared)]


def _free(
    site: Site, returns: Iterable[prefixes.Network], *, gives_way: bool
) -> Iterator[prefixes.Network]:
    """Yield those of ``returns`` with nothing of the server's in their way. Raises what is."""
    for lan in returns:
        error = None
        if site.remote is not None and site.can_configure:
            error = server_routes.in_the_way(site.remote, lan)
        if error is None:
            yield lan
        elif not gives_way:
            raise error


def _publications(
    addresses: TunnelAddresses, services: Sequence[Service]
) -> Iterator[protocol.Publication]:
    for service in services:
        listen = addresses.remote6 if ":" in service.target.host else addresses.remote4
        if service.port is None or listen is None:
            continue
        host = str(ipaddress.ip_interface(listen).ip)
        yield protocol.Publication(host, service.port, service.target.host, service.target.port)

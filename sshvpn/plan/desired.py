"""What a tunnel wants of this machine's kernel; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from sshvpn.errors import TakenError, UsageError
from sshvpn.plan import marks, prefixes
from sshvpn.plan.request import (
    BypassCgroup,
    BypassMark,
    BypassUser,
    Facts,
    KnownRoute,
    TunnelPlan,
)
from sshvpn.plan.settings import confined, wanted_sysctls
from sshvpn.plan.state import (
    MAIN_TABLE,
    Accept,
    Address,
    Firewall,
    Link,
    NetworkState,
    PolicyRule,
    ProxyNeighbour,
    Route,
)

_TO_USER, _SPECIFIC, _REST = range(3)
"""The places of a default route's rules; the lower is looked at first."""


def desired(tunnel: TunnelPlan, facts: Facts) -> NetworkState:
    """Return the state that ``tunnel`` wants on a machine like ``facts``.

    Raises UsageError for what cannot be meant (a route that covers this machine's own network),
    TakenError for what another tunnel or somebody else has.
    """
    device = marks.device_name(tunnel.unit)
    networks = _networks(tunnel, facts)
    _check_appearances(tunnel, facts)
    routes = frozenset(_routes(tunnel, facts, networks))
    reachable = [str(ipaddress.ip_interface(a).ip) for a in tunnel.addresses.remote]
    hosts = {str(ipaddress.ip_network(address)) for address in reachable}
    bypass = tunnel.bypass
    sysctls = wanted_sysctls(tunnel, facts)
    return NetworkState(
        label=tunnel.label,
        link=Link(
            tunnel.unit, tunnel.label, tunnel.owner, tunnel.mtu, has_queues=tunnel.has_queues
        ),
        addresses=frozenset(Address(device, cidr) for cidr in tunnel.addresses.local),
        routes=routes,
        rules=frozenset(_rules(tunnel, facts)) if tunnel.has_default else frozenset(),
        neighbours=frozenset(ProxyNeighbour(a.interface, a.address) for a in tunnel.appearances),
        table=Firewall(
            label=tunnel.label,
            device=device,
            gate=tunnel.gate,
            is_guarded=tunnel.is_guarded,
            own=frozenset(str(ipaddress.ip_interface(a).ip) for a in tunnel.addresses.local),
            lans=frozenset(tunnel.lans),
            routed=frozenset({r.prefix for r in routes if r.device} | hosts) - _at(tunnel),
            published=frozenset(tunnel.published),
            appearances=frozenset(tunnel.appearances),
            confined=frozenset(confined(sysctls, facts)),
            has_nat=tunnel.has_nat,
            ssh_cgroup=bypass.path if isinstance(bypass, BypassCgroup) else None,
            mark=bypass.mark if isinstance(bypass, BypassCgroup) else None,
        ),
        sysctls=sysctls,
        accepts=frozenset(_accepts(tunnel, facts)),
    )


def _networks(tunnel: TunnelPlan, facts: Facts) -> list[prefixes.Network]:
    """Return the networks behind the server, cut to size, once they are known to be free."""
    excluded = [prefixes.parse(text) for text in (*tunnel.exclude, *tunnel.peers)]
    wanted = [prefixes.parse(text) for text in tunnel.routes]
    while True:
        networks = prefixes.without(wanted, excluded)
        found = next(_in_the_way(tunnel, facts, networks), None)
        if found is None:
            return networks
        other, error = found
        if other is None or not tunnel.gives_way:
            raise error
        excluded.append(other)


def _in_the_way(
    tunnel: TunnelPlan, facts: Facts, networks: Iterable[prefixes.Network]
) -> Iterator[tuple[prefixes.Network | None, UsageError | TakenError]]:
    """Yield what is here already of ``networks``, None for another tunnel's, and the error."""
    devices = {marks.device_name(unit) for unit in range(marks.UNITS)}
    for network in networks:
        for known in facts.addresses:
            own = ipaddress.ip_interface(known.cidr).network
            if known.interface in devices or own.num_addresses == 1:
                continue
            if prefixes.has_overlap(network, own):
                yield (
                    own,
                    UsageError(
                        f"the route {network} overlaps {own}, this machine's own network on "
                        f"{known.interface}",
                        f"leave that one out: -x {own}",
                    ),
                )
        for route in facts.routes:
            yield from _taken(tunnel, network, route)


def _taken(
    tunnel: TunnelPlan, network: prefixes.Network, route: KnownRoute
) -> Iterator[tuple[prefixes.Network | None, TakenError]]:
    other = ipaddress.ip_network(route.prefix)
    if other.prefixlen == 0 or route.unit == tunnel.unit:
        return
    if route.unit is not None and prefixes.has_overlap(network, other):
        yield (
            None,
            TakenError(
                f"the route {network} overlaps {other} of another tunnel "
                f"({marks.device_name(route.unit)})",
                f"leave that one out with -x {other}, or take the other tunnel down",
            ),
        )
    if route.unit is None and network == other:
        yield (
            other,
            TakenError(
                f"this machine has a route to {other} already, "
                f"by {route.interface or 'another way'}",
                f"see: ip route show {other}",
            ),
        )


def _check_appearances(tunnel: TunnelPlan, facts: Facts) -> None:
    own = {str(ipaddress.ip_interface(known.cidr).ip) for known in facts.addresses}
    for wanted in tunnel.appearances:
        if wanted.address in own:
            raise TakenError(f"{wanted.address} is this machine's own address", "name a free one")
        _refuse_anothers(tunnel, facts, wanted.address)
        here = [lan.network for lan in tunnel.lans if lan.interface == wanted.interface]
        address = ipaddress.ip_address(wanted.address)
        if not any(address in ipaddress.ip_network(network) for network in here):
            raise UsageError(
                f"{wanted.address} is not in the shared network of {wanted.interface}",
                f"name a free address of {', '.join(here) or 'a shared network'}",
            )
        for network in here:
            why = prefixes.why_no_machine(wanted.address, network)
            if why:
                raise UsageError(f"{wanted.address} is {why}", "name a free address of it")


def _refuse_anothers(tunnel: TunnelPlan, facts: Facts, address: str) -> None:
    """Raise TakenError where another tunnel of ours appears under ``address``: nobody else hears.

    This machine does not ask itself who has it.
    """
    host = str(ipaddress.ip_network(address))
    for route in facts.routes:
        if route.prefix == host and route.unit not in (None, tunnel.unit):
            device = marks.device_name(route.unit)
            raise TakenError(f"{address} is another tunnel's already ({device})", "name a free one")


def _at(tunnel: TunnelPlan) -> set[str]:
    # The way to an appearance is for its own rules of access.
    return {str(ipaddress.ip_network(a.address)) for a in tunnel.appearances}


def _routes(tunnel: TunnelPlan, facts: Facts, networks: list[prefixes.Network]) -> Iterator[Route]:
    for prefix in [*map(str, networks), *sorted(_at(tunnel))]:
        yield from _with_twin(tunnel, prefix, MAIN_TABLE)
    if not tunnel.has_default:
        return
    table = marks.routing_table(tunnel.unit)
    excluded = [prefixes.parse(text) for text in tunnel.exclude]
    everything = [prefixes.parse(prefixes.ALL4)]
    if _uses_ipv6(facts):
        everything.append(prefixes.parse(prefixes.ALL6))
    crosses_ipv6 = facts.has_ipv6 and tunnel.reaches_ipv6
    for network in prefixes.without(everything, excluded):
        if ":" in str(network) and not crosses_ipv6:
            yield Route(str(network), None, marks.twin_metric(tunnel.unit), table)
        else:
            yield from _with_twin(tunnel, str(network), table)


def _uses_ipv6(facts: Facts) -> bool:
    """Whether anything here may send by IPv6: what new devices have not, older ones may have."""
    return facts.has_ipv6 or any(":" in one.cidr for one in facts.addresses)


def _with_twin(tunnel: TunnelPlan, prefix: str, table: int) -> Iterator[Route]:
    yield Route(prefix, marks.device_name(tunnel.unit), marks.METRIC, table)
    yield Route(prefix, None, marks.twin_metric(tunnel.unit), table)


def _rules(tunnel: TunnelPlan, facts: Facts) -> Iterator[PolicyRule]:
    """Yield the rules of a default route: what main knows, then (not for ssh) our own table."""
    others = {r.unit for r in facts.routes if r.unit is not None and r.table != MAIN_TABLE}
    if others - {tunnel.unit}:
        name = marks.device_name(min(others - {tunnel.unit}))
        raise TakenError(
            f"another tunnel ({name}) has the default route", "take it down, or name networks"
        )
    bypass = tunnel.bypass
    if bypass is None:
        raise ValueError("a default route without a bypass would swallow the connection itself")
    table = marks.routing_table(tunnel.unit)
    mark = bypass.mark if isinstance(bypass, BypassMark | BypassCgroup) else None
    for is_ipv6 in (False, True) if _uses_ipv6(facts) else (False,):
        if isinstance(bypass, BypassUser):
            place = marks.rule_priority(tunnel.unit, _TO_USER)
            yield PolicyRule(place, is_ipv6, MAIN_TABLE, uid=bypass.uid)
        place = marks.rule_priority(tunnel.unit, _SPECIFIC)
        yield PolicyRule(place, is_ipv6, MAIN_TABLE, is_specific_only=True)
        place = marks.rule_priority(tunnel.unit, _REST)
        yield PolicyRule(place, is_ipv6, table, mark=mark, is_not=mark is not None)


def _accepts(tunnel: TunnelPlan, facts: Facts) -> Iterator[Accept]:
    device = marks.device_name(tunnel.unit)
    for lan in tunnel.lans:
        is_ipv6 = ":" in lan.network
        for chain in facts.chains:
            if chain.family == "inet" or (chain.family == "ip6") == is_ipv6:
                yield Accept(chain, lan.interface, device)
                yield Accept(chain, device, lan.interface)

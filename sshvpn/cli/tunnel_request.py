"""From the words of ``sshvpn up`` to profiles: HOSTs, options, configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, TypeVar

from sshvpn import __version__
from sshvpn.cli.hosts import checked_name, default_host, joined, understood, with_keepalive
from sshvpn.cli.lan_options import TypedWishes, refuse_portal_alone, refuse_portal_twice
from sshvpn.cli.typed import keep
from sshvpn.errors import UsageError
from sshvpn.frozen import dataclass
from sshvpn.model import (
    DEFAULT_ROUTE,
    STREAMS_MAX,
    ForwardSpec,
    SshOptions,
    TcpEndpoint,
    Transport,
    TunnelProfile,
)
from sshvpn.spec import (
    is_host,
    parse_address_port,
    parse_destination,
    parse_interface,
    parse_publish,
    published_twins,
    twins_error,
)

if TYPE_CHECKING:
    from sshvpn.config import Config, ForwardEntry, TunnelEntry

T = TypeVar("T")

IPV6_MTU_MIN = 1280
"""RFC 8200, 5: the smallest MTU of a link that carries IPv6."""


@dataclass(frozen=True, slots=True)
class TunnelWords:
    """What was typed. None, or an empty tuple: nothing was said.

    ``default_timeout_s`` holds where neither the words nor the configuration say one.
    """

    hosts: tuple[str, ...]
    name: str | None = None
    routes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    lan: bool | None = None
    lan_interfaces: tuple[str, ...] = ()
    lan_address: str | None = None
    publish: tuple[str, ...] = ()
    nat: bool | None = None
    transport: Transport | None = None
    streams: int | None = None
    mtu: int | None = None
    address: str | None = None
    metrics: str | None = None
    timeout_s: float | None = None
    keepalive_s: int | None = None
    default_timeout_s: float | None = None
    ssh: SshOptions = field(default_factory=SshOptions)
    wishes: TypedWishes = field(default_factory=TypedWishes)


def build_profiles(typed: TunnelWords) -> tuple[TunnelProfile, ...]:
    """Return what the words and the configuration mean together, one profile a HOST.

    What is typed goes before what the configuration says, option by option. Raises UsageError,
    and ConfigError for a configuration that is wrong.
    """
    from sshvpn.config import load

    hosts = _checked_hosts(typed)
    _refuse_contradictions(typed)
    wishes = _parsed(typed)
    config = load()
    if not hosts:
        ways = "sshvpn up HOST, $SSHVPN_HOST or default_host"
        hosts = (default_host(config, config.tunnels, ways),)
    return tuple(_merged(wishes, host, config) for host in hosts)


# What was typed ------------------------------------------------------------------------------


def _checked_hosts(typed: TunnelWords) -> tuple[str, ...]:
    for host in typed.hosts:
        if not is_host(host):
            raise UsageError(
                f"'{host}' is no HOST", f"to forward a port: sshvpn forward HOST {host}"
            )
    twice = [host for host in typed.hosts if typed.hosts.count(host) > 1]
    if twice:
        raise UsageError(f"HOST twice: {twice[0]}", "say it once")
    alone = [
        option
        for option, value in (
            ("--name", typed.name),
            ("--route", typed.routes),
            ("--exclude", typed.exclude),
            ("--publish", typed.publish),
            ("--lan-address", typed.lan_address),
            ("--address", typed.address),
            ("--metrics", typed.metrics),
        )
        if value
    ]
    if alone and len(typed.hosts) > 1:
        raise UsageError(
            f"{alone[0]} is for one HOST, and there are {len(typed.hosts)}",
            "start them one by one, or give each a profile: sshvpn config edit",
        )
    return typed.hosts


def _refuse_contradictions(typed: TunnelWords) -> None:
    if typed.lan is False and (typed.lan_interfaces or typed.lan_address):
        option = "--lan-interface" if typed.lan_interfaces else "--lan-address"
        raise UsageError(f"--no-lan and {option} exclude each other", "say one of them")
    if typed.streams is not None and not 1 <= typed.streams <= STREAMS_MAX:
        raise UsageError(
            f"--streams {typed.streams}: not that many", f"name a number from 1 to {STREAMS_MAX}"
        )
    if (typed.streams or 1) > 1 and typed.transport is Transport.W:
        raise UsageError(
            f"--transport w and --streams {typed.streams} exclude each other",
            "--streams is of the transport stream",
        )


def _not_yet(what: str) -> UsageError:
    return UsageError(f"{what} is not in this version ({__version__})", "leave it out")


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What was typed, understood: the same for each HOST."""

    typed: TunnelWords
    name: str | None
    routes: tuple[str, ...]
    exclude: tuple[str, ...]
    lan_interfaces: tuple[str, ...]
    lan_address: str | None
    publish: tuple[ForwardSpec, ...]
    mtu: int | None
    address: str | None
    metrics: TcpEndpoint | None


def _parsed(typed: TunnelWords) -> _Wishes:
    from sshvpn.config import schema

    return _Wishes(
        typed=typed,
        name=None if typed.name is None else checked_name(typed.name),
        routes=_each("--route", schema.parse_route, typed.routes),
        exclude=_each("--exclude", schema.parse_network, typed.exclude),
        lan_interfaces=_each("--lan-interface", parse_interface, typed.lan_interfaces),
        lan_address=_one("--lan-address", schema.parse_lan_address, typed.lan_address),
        publish=_each("--publish", parse_publish, typed.publish),
        mtu=_checked_mtu(typed.mtu, schema.MTU_MIN, schema.MTU_MAX),
        address=_one("--address", schema.parse_tunnel_address, typed.address),
        metrics=_one("--metrics", parse_address_port, typed.metrics),
    )


def _each(option: str, parser: Callable[[str], T], words: Sequence[str]) -> tuple[T, ...]:
    return tuple(understood(option, parser, word) for word in words)


def _one(option: str, parser: Callable[[str], T], word: str | None) -> T | None:
    return None if word is None else understood(option, parser, word)


def _checked_mtu(mtu: int | None, least: int, most: int) -> int | None:
    if mtu is not None and not least <= mtu <= most:
        raise UsageError(f"--mtu {mtu} is not from {least} to {most}", "leave it out for the best")
    return mtu


# With the configuration ----------------------------------------------------------------------


def _merged(wishes: _Wishes, host: str, config: Config) -> TunnelProfile:
    from sshvpn.config import TunnelEntry

    typed = wishes.typed
    section = config.tunnels.get(host) or config.forwards.get(host)
    if isinstance(section, TunnelEntry):
        entry = section
        _refuse_later_keys(entry)
    else:
        entry = _entry_of(host, section)
    lan = _lan(typed, entry)
    keepalive_s = typed.keepalive_s or entry.keepalive_s
    profile = TunnelProfile(
        name=wishes.name or host,
        host=entry.host,
        destination=entry.destination,
        routes=_folded(wishes.routes or entry.routes),
        exclude=tuple(dict.fromkeys(wishes.exclude or entry.exclude)),
        lan=lan,
        lan_trusts=bool(typed.lan),
        lan_interfaces=()
        if lan is False
        else tuple(dict.fromkeys(wishes.lan_interfaces or entry.lan_interfaces)),
        lan_address=None if lan is False else wishes.lan_address or entry.lan_address,
        publish=wishes.publish or entry.publish,
        nat=entry.nat if typed.nat is None else typed.nat,
        transport=typed.transport or entry.transport,
        streams=typed.streams or entry.streams,
        mtu=wishes.mtu or entry.mtu,
        address=wishes.address or entry.address,
        remote_device=entry.remote_device,
        metrics=wishes.metrics or entry.metrics,
        ssh=joined(with_keepalive(typed.ssh, keepalive_s), entry.ssh),
        keepalive_s=keepalive_s,
        timeout_s=typed.timeout_s or entry.timeout_s or typed.default_timeout_s,
        tuning=entry.tuning,
        typed=keep(replace(typed, hosts=(host,))),
        wishes=typed.wishes.over(entry.announce, entry.portal),
    )
    refuse_portal_alone(typed.wishes, is_shared=lan is not False)
    _check(profile)
    return profile


def _entry_of(host: str, section: ForwardEntry | None) -> TunnelEntry:
    """Return an entry of defaults for a HOST that is no tunnel's profile.

    Of a forward's profile it has where to log in, and how.
    """
    from sshvpn.config import TunnelEntry

    if section is not None:
        return TunnelEntry(
            host,
            section.host,
            section.destination,
            ssh=section.ssh,
            keepalive_s=section.keepalive_s,
            tuning=section.tuning,
        )
    return TunnelEntry(host, host, parse_destination(host))


def _refuse_later_keys(entry: TunnelEntry) -> None:
    later = [key for key, is_wanted in (("portal_tokens", entry.portal_tokens),) if is_wanted]
    if later:
        error = _not_yet(f"profile {entry.name}: {later[0]}")
        raise UsageError(error.message, "take it out: sshvpn config edit")


def _lan(typed: TunnelWords, entry: TunnelEntry) -> bool | None:
    if typed.lan is not None:
        return typed.lan
    # Who names an adapter or an address of the LAN wants it shared; trust is another question.
    return True if typed.lan_interfaces or typed.lan_address else entry.lan


def _folded(routes: Sequence[str]) -> tuple[str, ...]:
    """Return ``routes`` less those that stand in a wider one.

    Beside ``default`` they stay: it leaves to other routes of this machine what is theirs.
    """
    if routes.count(DEFAULT_ROUTE) > 1:
        raise UsageError("--route default twice", "say it once")
    wide = [ipaddress.ip_network(route) for route in routes if route != DEFAULT_ROUTE]
    return tuple(
        route
        for route in dict.fromkeys(routes)
        if route == DEFAULT_ROUTE or not any(_is_wider(other, route) for other in wide)
    )


def _is_wider(other: ipaddress.IPv4Network | ipaddress.IPv6Network, route: str) -> bool:
    network = ipaddress.ip_network(route)
    return other != network and _is_within(network, other)


def _is_within(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
    other: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _check(profile: TunnelProfile) -> None:
    """Raise UsageError for wishes that do not go together."""
    twins = published_twins(profile.publish)
    if twins is not None:
        raise twins_error(profile.publish, twins)
    refuse_portal_twice(profile.wishes, profile.publish)
    if profile.exclude and not profile.routes:
        raise UsageError(
            f"--exclude {profile.exclude[0]} without --route: there is nothing to leave it out of",
            "say what is routed: --route CIDR or --route default",
        )
    excluded = [ipaddress.ip_network(prefix) for prefix in profile.exclude]
    for route in profile.routes:
        if route == DEFAULT_ROUTE:
            continue
        for hole in excluded:
            if _is_within(ipaddress.ip_network(route), hole):
                raise UsageError(
                    f"--exclude {hole} leaves nothing of --route {route}", "leave out one of them"
                )
    six = next((prefix for prefix in _prefixes(profile) if ":" in prefix), None)
    if six is not None and (profile.mtu or IPV6_MTU_MIN) < IPV6_MTU_MIN:
        raise UsageError(
            f"--mtu {profile.mtu} is too small for {six}",
            f"IPv6 wants {IPV6_MTU_MIN} at least (RFC 8200)",
        )


def _prefixes(profile: TunnelProfile) -> Iterator[str]:
    yield from profile.routes
    if profile.address is not None:
        yield profile.address

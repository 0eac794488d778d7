"""The text of our nft table, made from its description; pure.

It is the same text that the helper loads and that ``--dry-run`` prints. Where a packet of a LAN
machine goes::

    lan0 ── dnat ──> route ──> forward: clamp, to_server ──> masquerade ── guard ──> sshvpnN
    lan0 <──────── route <──── forward: clamp, from_server (answers only) <───────── sshvpnN

The priorities put our chains just before those of Docker, ufw and firewalld, which stand at the
usual places (nft(8), "standard priority names"): accepting in one table never overrides a drop
in another, so order decides nothing here but what NAT sees first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from sshvpn.plan import marks
from sshvpn.plan.state import Firewall, Gate, family

_UNREACHABLE = "reject with icmpx type host-unreachable"
_FORBIDDEN = "reject with icmpx type admin-prohibited"
_ANSWERS = "ct state established,related accept"
_DEVICES = "sshvpn*"
"""The devices of all tunnels, as nft(8) has it."""
# Of an IPv4 header without options: such a packet has no payload, and OpenSSH's tun dies of it.
_EMPTY_PACKET = 20


def ruleset(wall: Firewall) -> str:
    """Return the input of ``nft -f -`` that makes the table what ``wall`` says, in one transaction.

    What the table held before is gone with the same transaction; loading twice changes nothing.
    The first line is there because ``delete`` fails on a table that is not, and ``destroy`` is
    newer than nft 1.0.6.
    """
    table = f"table inet {marks.table_name(wall.label)}"
    body = "".join(
        f"\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"
        for name, lines in _chains(wall)
    )
    return f"{table}\ndelete {table}\n{table} {{\n{body}}}\n"


def _chains(wall: Firewall) -> Iterator[tuple[str, list[str]]]:
    # Chains that others jump to must stand before them.
    device = f'"{wall.device}"'
    yield "honest", [*_honest(wall, device)]
    yield "to_server", [*_to_server(wall)]
    yield "from_server", [_ANSWERS, "drop"]
    yield (
        "forward",
        [
            "type filter hook forward priority -5; policy accept;",
            f"iifname {device} jump from_server",
            f"oifname {device} jump to_server",
            *_confined(wall),
        ],
    )
    yield (
        "clamp",
        [
            # Each side may send segments as long as the other's path carries, not longer.
            "type filter hook forward priority -150; policy accept;",
            f"oifname {device} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
            f"iifname {device} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
        ],
    )
    yield "input", [*_input(wall, device)]
    yield "output", [*_output(wall, device)]
    yield "prerouting", [*_prerouting(wall)]
    yield "local", [*_local(wall)]
    yield "postrouting", [*_postrouting(wall, device)]
    if wall.is_guarded:
        yield (
            "guard",
            [
                # After all else has changed the packet. Longer than the MTU none can be here:
                # the kernel cuts it first, or tells the sender.
                "type filter hook postrouting priority 300; policy accept;",
                f"oifname {device} meta nfproto ipv4 meta length <= {_EMPTY_PACKET} drop",
            ],
        )
    if wall.ssh_cgroup is not None and wall.mark is not None:
        level = marks.cgroup_level(wall.ssh_cgroup)
        yield (
            "ssh",
            [
                # A chain of type route looks the route up again after the mark has changed.
                "type route hook output priority -150; policy accept;",
                f'socket cgroupv2 level {level} "{wall.ssh_cgroup}" meta mark set {wall.mark:#x}',
            ],
        )


def _honest(wall: Firewall, device: str) -> Iterator[str]:
    """Yield what drops all that comes out of the tunnel from where that does not lead.

    Or the other end could answer for others, in connections of other adapters. Errors of routers
    on the way are anybody's.
    """
    yield "type filter hook prerouting priority -300; policy accept;"
    # By nft's own words: another name is one of /etc/protocols, which not every machine has.
    for kind, errors in (("ip", "icmp"), ("ip6", "icmpv6")):
        sources = collapse(p for p in wall.routed if family(p) == kind)
        lans = collapse(lan.network for lan in wall.lans if family(lan.network) == kind)
        payload = f"iifname {device} meta l4proto != {errors}"
        if not sources:
            yield f"{payload} meta nfproto {'ipv6' if kind == 'ip6' else 'ipv4'} drop"
        elif not any(source.endswith("/0") for source in sources):
            yield f"{payload} {kind} saddr != {_set(sources)} drop"
        elif lans:
            yield f"{payload} {kind} saddr {_set(lans)} drop"


def _to_server(wall: Firewall) -> Iterator[str]:
    if wall.gate is not Gate.OPEN:
        yield _UNREACHABLE
        return
    yield _ANSWERS
    for lan in sorted(wall.lans, key=str):
        kind = family(lan.network)
        source = f'ct state new iifname "{lan.interface}" {kind} saddr {lan.network}'
        targets = collapse(p for p in wall.routed if family(p) == kind)
        if any(target.endswith("/0") for target in targets):
            yield f"{source} accept"
        elif targets:
            yield f"{source} {kind} daddr {_set(targets)} accept"
        for port in sorted(wall.published, key=str):
            if family(port.address) == kind:
                yield (
                    f"{source} ct status dnat ct original {kind} daddr {port.address}"
                    f" meta l4proto tcp ct original proto-dst {port.port} accept"
                )
        for appearance in sorted(wall.appearances, key=str):
            if family(appearance.address) == kind and appearance.interface == lan.interface:
                yield (
                    f"{source} ct status dnat ct original {kind} daddr {appearance.address} accept"
                )
    yield _FORBIDDEN


def _confined(wall: Firewall) -> Iterator[str]:
    """Yield what keeps adapters that forward because of us from doing so between each other."""
    for adapter in sorted(wall.confined, key=str):
        protocol = "meta nfproto ipv6" if adapter.family == "ip6" else "meta nfproto ipv4"
        others = f'{protocol} oifname != "{_DEVICES}"'
        if adapter.interface is None:
            yield f'{others} iifname != "{_DEVICES}" drop'
        else:
            # What stays on the adapter may be a bridge's own, seen here by br_netfilter.
            name = f'"{adapter.interface}"'
            yield f"{others} iifname {name} oifname != {name} drop"


def _input(wall: Firewall, device: str) -> Iterator[str]:
    yield "type filter hook input priority -5; policy accept;"
    yield f"iifname {device} {_ANSWERS}"
    yield f"iifname {device} drop"
    # The weak host model would answer a neighbour under the tunnel's address (RFC 1122, 3.3.4.2).
    for address in sorted(wall.own):
        here = f'iifname != "lo" {family(address)} daddr {address}'
        if wall.mark is not None:  # what ssh was answered, see _postrouting
            yield f"{here} ct status snat {_ANSWERS}"
        yield f"{here} drop"


def _output(wall: Firewall, device: str) -> Iterator[str]:
    yield "type filter hook output priority -5; policy accept;"
    if wall.gate is Gate.AWAY:
        if wall.mark is not None:
            # The adapter that a hook is told is the one from before the mark changed the way.
            yield f"meta mark {wall.mark:#x} accept"
        yield f"oifname {device} {_UNREACHABLE}"


def _prerouting(wall: Firewall) -> Iterator[str]:
    # Whatever the gate: a closed one must refuse, not let a service of this machine answer.
    yield "type nat hook prerouting priority -105; policy accept;"
    for lan in sorted(wall.lans, key=str):
        kind = family(lan.network)
        source = f'iifname "{lan.interface}" {kind} saddr {lan.network}'
        for line in _translations(wall, kind, lan.interface):
            yield f"{source} {line}"


def _local(wall: Firewall) -> Iterator[str]:
    # What this machine itself sends to the published addresses finds the same services.
    yield "type nat hook output priority -105; policy accept;"
    for kind in ("ip", "ip6"):
        yield from _translations(wall, kind, None)


def _translations(wall: Firewall, kind: str, interface: str | None) -> Iterator[str]:
    for port in sorted(wall.published, key=str):
        if family(port.address) == kind:
            host = f"[{port.target}]" if kind == "ip6" else port.target
            yield (
                f"{kind} daddr {port.address} tcp dport {port.port}"
                f" dnat {kind} to {host}:{port.target_port}"
            )
    for appearance in sorted(wall.appearances, key=str):
        if family(appearance.address) == kind and interface in (None, appearance.interface):
            yield f"{kind} daddr {appearance.address} dnat {kind} to {appearance.target}"


def _postrouting(wall: Firewall, device: str) -> Iterator[str]:
    yield "type nat hook postrouting priority 95; policy accept;"
    if wall.mark is not None:
        # connect(2) chose the source for a way into the tunnel: the mark comes with the packet.
        for address in sorted(wall.own):
            out = f"oifname != {device} meta mark {wall.mark:#x}"
            yield f"{out} {family(address)} saddr {address} masquerade"
    if not wall.has_nat:
        return
    for kind in ("ip", "ip6"):
        own = sorted(address for address in wall.own if family(address) == kind)
        if own:
            yield f"oifname {device} {kind} saddr != {_set(own)} masquerade"


def collapse(prefixes: Iterable[str]) -> list[str]:
    """Return the same addresses in as few prefixes as possible, sorted; nft refuses overlaps.

    All are of one family.
    """
    networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
    four = [n for n in networks if isinstance(n, ipaddress.IPv4Network)]
    six = [n for n in networks if isinstance(n, ipaddress.IPv6Network)]
    found = [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]
    return [str(network) for network in found]


def _set(members: list[str]) -> str:
    return f"{{ {', '.join(members)} }}"

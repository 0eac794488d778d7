"""The packet filter's rules at the server's end, for nft and for iptables; pure.

The agent makes the same of the same configuration (``agent/11-rules.sh``, ``12-loading.sh``), in
sh; tests/contract/test_agent_twin.py holds the two together.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sshvpn.frozen import dataclass
from sshvpn.remote.protocol import GROUP, Publication, RemoteEnd

FAMILIES: Final = (4, 6)
_LOOPBACK: Final = ipaddress.ip_network("127.0.0.0/8")

CHAINS: Final = {
    "raw": "filter hook prerouting priority -300",
    "nat_in": "nat hook prerouting priority -105",
    "forward": "filter hook forward priority -5",
    "nat_out": "nat hook postrouting priority 95",
    "guard": "filter hook postrouting priority 300",
}
"""The chains of our nft table, in its order, with what hooks them in."""
TABLES: Final = ("raw", "mangle", "nat")
"""The tables of iptables that our own rules are in, in the order of loading."""

_IPTABLES_CHAIN: Final = re.compile(
    r"(?P<family>[46]) (?P<program>ip6?tables(?:-nft|-legacy)?) "
    r"(?P<chain>FORWARD|DOCKER-USER|INPUT)"
)
_NFT_CHAIN: Final = re.compile(
    r"46 nft (?P<where>(?:ip|ip6|inet) [\w./-]+ [\w./-]+) (?P<hook>forward|input)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in both tongues.

    ``chain`` is of our nft table, and ``nft`` what stands in it. ``table`` is of iptables, the
    rule is ``-A PLACE MATCH -j TARGET`` there, for each of ``families``.
    """

    chain: str
    nft: str
    families: tuple[int, ...]
    table: str
    place: str
    match: str
    target: str


@dataclass(frozen=True, slots=True)
class Accept:
    """A labelled rule at the head of a chain of somebody else.

    ``program`` is the iptables that knows the chain, of ``family``; None: nft knows it.
    """

    family: int | None
    program: str
    chain: str
    match: str


def is_localnet_needed(end: RemoteEnd) -> bool:
    """Whether something that listens on 127.0.0.0/8 is published."""
    return any(ipaddress.ip_address(one.target) in _LOOPBACK for one in end.published)


def rules(
    end: RemoteEnd, device: str, forwarded_before: Mapping[tuple[int, str], bool]
) -> Iterator[Rule]:
    """Yield the rules that ``end`` means, in their order.

    ``forwarded_before`` says of (family, adapter) whether it forwarded before any of us.
    """
    if end.is_guarded:
        # Without payload such a packet is what OpenSSH's tun dies of.
        yield Rule(
            "guard", f'oifname "{device}" meta nfproto ipv4 meta length <= 20 drop',
            (4,), "mangle", "POSTROUTING", f"-o {device} -m length --length 0:20", "DROP",
        )  # fmt: skip
    for source in end.masquerade:
        yield from _masquerade(str(source), source.version, device)
    for one in end.published:
        yield _publish(one, device)
    if is_localnet_needed(end):
        # What was published is let through to 127.0.0.1, and nothing else of it.
        for nft, option in (("daddr", "-d"), ("saddr", "-s")):
            yield Rule(
                "raw", f'iifname "{device}" ip {nft} {_LOOPBACK} drop',
                (4,), "raw", "PREROUTING", f"-i {device} {option} {_LOOPBACK}", "DROP",
            )  # fmt: skip
    yield from _forward(end.forward, device, forwarded_before)


def _masquerade(source: str, family: int, device: str) -> Iterator[Rule]:
    nft = f'{_kind(family)} saddr {source} oifname != {{ "lo", "{device}" }} masquerade'
    out = "nat", "POSTROUTING"
    # iptables has no set of adapters: what stays here is let go first.
    yield Rule("nat_out", "", (family,), *out, f"-s {source} -o lo", "ACCEPT")
    yield Rule("nat_out", nft, (family,), *out, f"-s {source} ! -o {device}", "MASQUERADE")


def _publish(one: Publication, device: str) -> Rule:
    listen, target = ipaddress.ip_address(one.listen), ipaddress.ip_address(one.target)
    kind = _kind(listen.version)
    host = f"[{target}]" if listen.version == 6 else str(target)  # noqa: PLR2004 (the family)
    place = f"{host}:{one.target_port}"
    return Rule(
        "nat_in",
        f'iifname "{device}" {kind} daddr {listen} tcp dport {one.port} dnat {kind} to {place}',
        (listen.version,), "nat", "PREROUTING",
        f"-i {device} -d {listen} -p tcp --dport {one.port}", f"DNAT --to-destination {place}",
    )  # fmt: skip


def _forward(
    adapters: Sequence[str], device: str, forwarded_before: Mapping[tuple[int, str], bool]
) -> Iterator[Rule]:
    chain = FAMILIES, "mangle", "FORWARD"
    for name in adapters:
        nft = f'iifname "{device}" oifname "{name}" accept'
        yield Rule("forward", nft, *chain, f"-i {device} -o {name}", "ACCEPT")
    yield Rule("forward", f'iifname "{device}" drop', *chain, f"-i {device}", "DROP")
    # An adapter that only we made forward does so for tunnels, and not between others.
    for name in adapters:
        for family in FAMILIES:
            if not forwarded_before[family, name]:
                yield Rule(
                    "forward",
                    f'meta nfproto ipv{family} iifname "{name}" oifname != "{name}"'
                    f" oifgroup != {GROUP} drop",
                    (family,), "mangle", "FORWARD",
                    f"-i {name} ! -o {name} -m devgroup ! --dst-group {GROUP}", "DROP",
                )  # fmt: skip


def _kind(family: int) -> str:
    return {4: "ip", 6: "ip6"}[family]


def accepts(closed: Sequence[str], device: str) -> Iterator[Accept]:
    """Yield what lets us through the chains ``closed``, which are in the words of the facts.

    Each is put before the one that came before it. What is no such chain is passed over.
    """
    for text in closed:
        if found := _IPTABLES_CHAIN.fullmatch(text):
            for match in _iptables_matches(found["chain"], device):
                yield Accept(int(found["family"]), found["program"], found["chain"], match)
        elif found := _NFT_CHAIN.fullmatch(text):
            for match in _nft_matches(found["hook"], device):
                yield Accept(None, "nft", found["where"], match)


def _iptables_matches(chain: str, device: str) -> tuple[str, ...]:
    if chain == "INPUT":
        return (f"-i {device} -m conntrack --ctstate DNAT",)
    return (f"-i {device}", f"-o {device} -m conntrack --ctstate RELATED,ESTABLISHED")


def _nft_matches(hook: str, device: str) -> tuple[str, ...]:
    if hook == "input":
        return (f'iifname "{device}" ct status dnat',)
    return (f'iifname "{device}"', f'oifname "{device}" ct state established,related')

"""Steps as commands that a person can type into a root shell; pure.

``--dry-run`` and ``-v`` print them. Typed in their order they make the same as the helper.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from typing import Any

from sshvpn.plan import marks, nft
from sshvpn.plan.state import (
    MAIN_TABLE,
    Accept,
    ForeignChain,
    Link,
    PolicyRule,
    ProxyNeighbour,
    Route,
    family,
)
from sshvpn.plan.steps import (
    AddAccept,
    AddAddress,
    AddLink,
    AddNeighbour,
    AddRoute,
    AddRule,
    DeleteAccept,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRule,
    DropTable,
    LoadTable,
    RestoreSysctl,
    SetLink,
    SetSysctl,
    Step,
)


def render(step: Step) -> str:
    """Return ``step`` as lines of sh(1), for iproute2, nft, sysctl and iptables."""
    return _RENDERERS[type(step)](step)


def _flag(text: str) -> str:
    return "-6 " if family(text) == "ip6" else ""


def _added_link(link: Link) -> str:
    queues = " multi_queue" if link.has_queues else ""
    made = f"ip tuntap add dev {link.name} mode tun user {link.owner}{queues}\n"
    return made + _changed_link(
        SetLink(
            dataclasses.replace(link, is_up=False),
            Link(link.unit, "", link.owner, mtu=0, is_up=False, ssh_name=False),
        )
    )


def _changed_link(step: SetLink) -> str:
    link, before = step.link, step.before
    lines = []
    if link.label != before.label:
        alias = shlex.quote(marks.alias(link.label)) if link.label else "''"
        lines.append(f"ip link set dev {link.name} alias {alias}")
    if link.ssh_name != before.ssh_name:
        verb = "add" if link.ssh_name else "del"
        name = marks.ssh_device_name(link.unit)
        lines.append(f"ip link property {verb} dev {link.name} altname {name}")
    if before.is_up and not link.is_up:
        lines.append(f"ip link set dev {link.name} down")
    if link.mtu != before.mtu:
        lines.append(f"ip link set dev {link.name} mtu {link.mtu}")
    if link.is_up and not before.is_up:
        lines.append(f"ip link set dev {link.name} up")
    return "\n".join(lines)


def _route(route: Route, verb: str) -> str:
    what = route.prefix if route.device else f"unreachable {route.prefix}"
    where = f" dev {route.device}" if route.device else ""
    table = "" if route.table == MAIN_TABLE else f" table {route.table}"
    head = f"ip {_flag(route.prefix)}route {verb} {what}"
    return f"{head}{where}{table} proto {marks.PROTOCOL} metric {route.metric}"


def _rule(rule: PolicyRule, verb: str) -> str:
    words = ["ip", "-6" if rule.is_ipv6 else "-4", "rule", verb, "priority", str(rule.priority)]
    if rule.is_not:
        words.append("not")
    if rule.mark is not None:
        words += ["fwmark", f"{rule.mark:#x}"]
    if rule.uid is not None:
        words += ["uidrange", f"{rule.uid}-{rule.uid}"]
    words += ["lookup", "main" if rule.table == MAIN_TABLE else str(rule.table)]
    if rule.is_specific_only:
        words += ["suppress_prefixlength", "0"]
    return " ".join([*words, "protocol", str(marks.PROTOCOL)])


def _neighbour(neighbour: ProxyNeighbour, verb: str) -> str:
    flag = _flag(neighbour.address)
    where = f"proxy {neighbour.address} dev {neighbour.interface}"
    return f"ip {flag}neigh {verb} {where} protocol {marks.PROTOCOL}"


def iptables_rule(accept: Accept, label: str) -> str:
    """Return the rule as iptables(8) takes it behind the name of the chain."""
    match = f"-i {accept.incoming} -o {accept.outgoing}"
    return f"{match} -m comment --comment {marks.alias(label)} -j ACCEPT"


def _accept(accept: Accept, label: str) -> str:
    if accept.chain is ForeignChain.FIREWALLD:
        return f"nft insert rule {accept.chain.value} {nft_accept(accept, label)}"
    program = iptables(accept.chain)
    return f"{program} -w -I {accept.chain.chain} {iptables_rule(accept, label)}"


def _no_accept(accept: Accept, label: str) -> str:
    if accept.chain is ForeignChain.FIREWALLD:
        found = f"nft -a list chain {accept.chain.value}"
        words = f'iifname "{accept.incoming}" oifname "{accept.outgoing}".*"{marks.alias(label)}"'
        handle = f"$({found} | sed -n 's/.*{words} # handle //p')"
        return f"nft delete rule {accept.chain.value} handle {handle}"
    program = iptables(accept.chain)
    return f"{program} -w -D {accept.chain.chain} {iptables_rule(accept, label)}"


def nft_accept(accept: Accept, label: str) -> str:
    """Return the rule as nft(8) takes it, for chains that iptables does not see."""
    match = f'iifname "{accept.incoming}" oifname "{accept.outgoing}"'
    comment = f'comment "{marks.alias(label)}"'
    return f"{match} accept {comment}"


def iptables(chain: ForeignChain) -> str:
    """Return the program that knows ``chain``."""
    return "ip6tables" if chain.family == "ip6" else "iptables"


_RENDERERS: dict[type[Any], Callable[[Any], str]] = {
    AddLink: lambda s: _added_link(s.link),
    DeleteLink: lambda s: f"ip link delete dev {s.link.name}",
    SetLink: _changed_link,
    AddAddress: lambda s: f"ip address add {s.address.cidr} dev {s.address.device}",
    DeleteAddress: lambda s: f"ip address delete {s.address.cidr} dev {s.address.device}",
    AddRoute: lambda s: _route(s.route, "add"),
    DeleteRoute: lambda s: _route(s.route, "delete"),
    AddRule: lambda s: _rule(s.rule, "add"),
    DeleteRule: lambda s: _rule(s.rule, "delete"),
    AddNeighbour: lambda s: _neighbour(s.neighbour, "add"),
    DeleteNeighbour: lambda s: _neighbour(s.neighbour, "delete"),
    LoadTable: lambda s: f"nft -f - <<'EOF'\n{nft.ruleset(s.table)}EOF",
    DropTable: lambda s: f"nft delete table inet {marks.table_name(s.table.label)}",
    SetSysctl: lambda s: f"sysctl -qw {s.sysctl.path}={s.sysctl.value}",
    RestoreSysctl: lambda s: f"sysctl -qw {s.sysctl.path}={s.sysctl.before}",
    AddAccept: lambda s: _accept(s.accept, s.label),
    DeleteAccept: lambda s: _no_accept(s.accept, s.label),
}

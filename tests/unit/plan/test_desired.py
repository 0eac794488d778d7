"""What a tunnel wants, as it would be typed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sshvpn.errors import SshvpnError, TakenError, UsageError
from sshvpn.plan import marks
from sshvpn.plan.desired import desired
from sshvpn.plan.diff import diff
from sshvpn.plan.render import render
from sshvpn.plan.request import (
    BypassMark,
    BypassUser,
    Facts,
    KnownAddress,
    KnownRoute,
    TunnelAddresses,
    TunnelPlan,
)
from sshvpn.plan.state import (
    MAIN_TABLE,
    Appearance,
    ForeignChain,
    Gate,
    Lan,
    Published,
    Setting,
    nothing,
)

LABEL = marks.label_of(1000, "office")
SETTINGS = {
    f"net/ipv{version}/conf/{name}/{setting}": value
    for name in ("all", "default", "lan0", "wan0")
    for version, setting, value in (
        (4, "forwarding", "0"),
        (4, "rp_filter", "1" if name == "wan0" else "0"),
        (6, "forwarding", "0"),
        (6, "force_forwarding", "0"),
        (6, "accept_ra", "1"),
        (6, "proxy_ndp", "0"),
    )
}
FACTS = Facts(
    addresses=frozenset(
        {KnownAddress("lan0", "192.168.77.1/24"), KnownAddress("wan0", "203.0.113.10/24")}
    ),
    settings=SETTINGS,
)


def plan(**changes: Any) -> TunnelPlan:
    words: dict[str, Any] = {
        "label": LABEL,
        "unit": 0,
        "owner": 1000,
        "mtu": 16380,
        "addresses": TunnelAddresses(
            "100.64.0.1/30", "100.64.0.2/30", "fd5a::1/126", "fd5a::2/126"
        ),
    }
    return TunnelPlan(**{**words, **changes})


def commands(facts: Facts = FACTS, **changes: Any) -> list[str]:
    steps = diff(nothing(LABEL), desired(plan(**changes), facts))
    text = "\n".join(render(step) for step in steps)
    head, _, rest = text.partition("nft -f - <<'EOF'\n")
    table, _, tail = rest.partition("\nEOF\n")
    assert table
    return [*head.splitlines(), "nft …", *tail.splitlines()]


def table_of(facts: Facts = FACTS, **changes: Any) -> str:
    from sshvpn.plan.nft import ruleset
    from sshvpn.plan.state import Firewall

    table = desired(plan(**changes), facts).table
    assert isinstance(table, Firewall)
    return ruleset(table)


def test_a_tunnel_with_a_route_as_it_would_be_typed() -> None:
    assert commands(routes=("10.20.0.0/16",)) == [
        "ip tuntap add dev sshvpn0 mode tun user 1000",
        f"ip link set dev sshvpn0 alias sshvpn:{LABEL}",
        "ip link property add dev sshvpn0 altname tun5300",
        "ip link set dev sshvpn0 mtu 16380",
        "nft …",
        "sysctl -qw net/ipv6/conf/sshvpn0/accept_ra=0",
        "sysctl -qw net/ipv6/conf/sshvpn0/addr_gen_mode=1",
        "sysctl -qw net/ipv6/conf/sshvpn0/router_solicitations=0",
        "ip link set dev sshvpn0 up",
        "ip address add 100.64.0.1/30 dev sshvpn0",
        "ip address add fd5a::1/126 dev sshvpn0",
        "ip route add unreachable 10.20.0.0/16 proto 83 metric 51",
        "ip route add 10.20.0.0/16 dev sshvpn0 proto 83 metric 50",
    ]


def test_sharing_raises_forwarding_on_the_two_adapters_and_nowhere_else() -> None:
    made = commands(
        lans=(Lan("lan0", "192.168.77.0/24"), Lan("lan0", "fd77::/64")),
        facts=Facts(FACTS.addresses, settings=SETTINGS, chains=frozenset({ForeignChain.DOCKER4})),
    )
    assert [line for line in made if "forwarding" in line or "iptables" in line] == [
        "sysctl -qw net/ipv6/conf/sshvpn0/force_forwarding=1",
        "sysctl -qw net/ipv4/conf/sshvpn0/forwarding=1",
        "sysctl -qw net/ipv6/conf/lan0/force_forwarding=1",
        "sysctl -qw net/ipv4/conf/lan0/forwarding=1",
        f"iptables -w -I DOCKER-USER -i lan0 -o sshvpn0 -m comment --comment sshvpn:{LABEL}"
        " -j ACCEPT",
        f"iptables -w -I DOCKER-USER -i sshvpn0 -o lan0 -m comment --comment sshvpn:{LABEL}"
        " -j ACCEPT",
    ]
    assert "ip_forward" not in "\n".join(made)


LANS = (Lan("lan0", "192.168.77.0/24"), Lan("lan0", "fd77::/64"))


def test_what_comes_out_of_the_tunnel_comes_from_where_that_leads() -> None:
    table = table_of(routes=("10.20.0.0/16",), lans=LANS)
    four = "ip saddr != { 10.20.0.0/16, 100.64.0.2/32 } drop"
    assert f'iifname "sshvpn0" meta l4proto != icmp {four}' in table
    assert 'iifname "sshvpn0" meta l4proto != icmpv6 ip6 saddr != { fd5a::2/128 } drop' in table
    alone = table_of(addresses=TunnelAddresses("100.64.0.1/30", "100.64.0.2/30", None, None))
    assert 'iifname "sshvpn0" meta l4proto != icmpv6 meta nfproto ipv6 drop' in alone
    everything = table_of(has_default=True, bypass=BypassUser(1000), lans=LANS, reaches_ipv6=True)
    assert 'iifname "sshvpn0" meta l4proto != icmp ip saddr { 192.168.77.0/24 } drop' in everything


def test_an_adapter_that_forwards_because_of_us_forwards_to_tunnels_only() -> None:
    table = table_of(lans=LANS)
    for version in (4, 6):
        rule = 'oifname != "sshvpn*" iifname "lan0" oifname != "lan0" drop'
        assert f"meta nfproto ipv{version} {rule}" in table
    assert "wan0" not in table


def test_older_kernels_forward_ipv6_to_tunnels_only_whatever_the_adapter() -> None:
    older = {k: v for k, v in SETTINGS.items() if "force_" not in k}
    table = table_of(lans=LANS, facts=Facts(settings=older))
    assert 'meta nfproto ipv6 oifname != "sshvpn*" iifname != "sshvpn*" drop' in table


@pytest.mark.parametrize("ipv6", ["all/forwarding", "lan0/force_forwarding"])
def test_a_machine_that_forwards_already_goes_on_doing_so(ipv6: str) -> None:
    already = {"net/ipv4/conf/lan0/forwarding": "1", f"net/ipv6/conf/{ipv6}": "1"}
    assert "oifname !=" not in table_of(lans=LANS, facts=Facts(settings={**SETTINGS, **already}))


def test_older_kernels_forward_ipv6_by_one_switch_and_keep_their_routers() -> None:
    older = {k: v for k, v in SETTINGS.items() if "force_" not in k}
    made = commands(lans=(Lan("lan0", "fd77::/64"),), facts=Facts(settings=older))
    assert [line for line in made if "/lan0/" in line or "/wan0/" in line or "/all/" in line] == [
        "sysctl -qw net/ipv6/conf/lan0/accept_ra=2",
        "sysctl -qw net/ipv6/conf/wan0/accept_ra=2",
        "sysctl -qw net/ipv6/conf/all/forwarding=1",
    ]


def test_everything_goes_through_by_rules_that_ssh_escapes() -> None:
    made = commands(has_default=True, bypass=BypassMark(0x53), exclude=("128.0.0.0/1",))
    assert [line for line in made if "5300 proto" in line or "rule" in line] == [
        "ip route add unreachable 0.0.0.0/1 table 5300 proto 83 metric 51",
        # Without a way out for IPv6 behind the server, it leads nowhere instead of around.
        "ip -6 route add unreachable ::/0 table 5300 proto 83 metric 51",
        "ip route add 0.0.0.0/1 dev sshvpn0 table 5300 proto 83 metric 50",
        "ip -4 rule add priority 5301 lookup main suppress_prefixlength 0 protocol 83",
        "ip -6 rule add priority 5301 lookup main suppress_prefixlength 0 protocol 83",
        "ip -4 rule add priority 5302 not fwmark 0x53 lookup 5300 protocol 83",
        "ip -6 rule add priority 5302 not fwmark 0x53 lookup 5300 protocol 83",
    ]
    # Answers to ssh come where the unmarked table would not send: only the strict adapter.
    assert "sysctl -qw net/ipv4/conf/wan0/rp_filter=2" in made
    assert "sysctl -qw net/ipv4/conf/lan0/rp_filter=2" not in made


def test_a_users_processes_can_be_what_escapes() -> None:
    made = commands(has_default=True, bypass=BypassUser(1000))
    assert "ip -4 rule add priority 5300 uidrange 1000-1000 lookup main protocol 83" in made
    assert "ip -4 rule add priority 5302 lookup 5300 protocol 83" in made


def test_a_default_route_needs_a_way_around_it() -> None:
    with pytest.raises(ValueError, match="bypass"):
        commands(has_default=True)


def test_the_connection_itself_is_cut_out_of_its_routes() -> None:
    made = commands(routes=("198.51.100.0/30",), peers=("198.51.100.1",))
    assert [line.split()[3] for line in made if "dev sshvpn0 proto" in line] == [
        "198.51.100.0/32",
        "198.51.100.2/31",
    ]


@pytest.mark.parametrize("route", ["192.168.77.0/24", "192.168.0.0/16", "192.168.77.128/25"])
def test_a_route_over_the_own_network_is_refused_with_the_reason(route: str) -> None:
    with pytest.raises(UsageError, match=r"overlaps 192\.168\.77\.0/24.* lan0") as refused:
        commands(routes=(route,))
    assert "-x 192.168.77.0/24" in refused.value.hint


def test_one_that_gives_way_leaves_the_own_networks_and_foreign_routes_out() -> None:
    route = KnownRoute("10.20.0.0/16", "wan0", MAIN_TABLE)
    facts = dataclasses.replace(FACTS, routes=frozenset({route}))
    wanted = ("192.168.76.0/23", "10.20.0.0/16", "10.30.0.0/16")
    made = desired(plan(routes=wanted, gives_way=True), facts)
    kept = {route.prefix for route in made.routes}
    assert kept == {"192.168.76.0/24", "10.30.0.0/16"}
    another = KnownRoute("10.30.0.0/16", "sshvpn7", MAIN_TABLE, unit=7)
    facts = dataclasses.replace(FACTS, routes=frozenset({another}))
    with pytest.raises(TakenError, match="another tunnel"):
        desired(plan(routes=wanted, gives_way=True), facts)


def test_leaving_the_own_network_out_is_enough() -> None:
    made = commands(routes=("192.168.76.0/23",), exclude=("192.168.77.0/24",))
    assert "ip route add 192.168.76.0/24 dev sshvpn0 proto 83 metric 50" in made


@pytest.mark.parametrize(
    "known",
    [
        KnownRoute("10.20.0.0/16", "sshvpn3", 254, unit=3),
        KnownRoute("10.20.5.0/24", "sshvpn3", 254, unit=3),
        KnownRoute("10.0.0.0/8", None, 254, unit=3),
        KnownRoute("10.20.0.0/16", "eth9", 254),
    ],
)
def test_a_route_that_somebody_has_is_taken(known: KnownRoute) -> None:
    facts = Facts(FACTS.addresses, frozenset({known}), SETTINGS)
    with pytest.raises(TakenError) as refused:
        commands(facts, routes=("10.20.0.0/16",))
    assert refused.value.exit_code == 7


def test_own_routes_and_wider_foreign_ones_are_in_nobodys_way() -> None:
    known = {
        KnownRoute("10.20.0.0/16", "sshvpn0", 254, unit=0),
        KnownRoute("10.0.0.0/8", "eth9", 254),
        KnownRoute("0.0.0.0/0", "wan0", 254),
        KnownRoute("0.0.0.0/0", "sshvpn3", 5303, unit=3),
    }
    commands(Facts(FACTS.addresses, frozenset(known), SETTINGS), routes=("10.20.0.0/16",))


def test_there_is_one_default_route() -> None:
    known = frozenset({KnownRoute("0.0.0.0/0", "sshvpn3", 5303, unit=3)})
    with pytest.raises(TakenError, match="sshvpn3"):
        commands(Facts(routes=known), has_default=True, bypass=BypassMark(1))


@pytest.mark.parametrize(("route", "word"), [("10.20.0.1/16", "10.20.0.0/16"), ("x", "network")])
def test_a_wrong_prefix_is_refused(route: str, word: str) -> None:
    with pytest.raises(UsageError) as refused:
        commands(routes=(route,))
    assert word in f"{refused.value} {refused.value.hint}"


def test_only_shared_networks_get_in_and_only_where_they_may() -> None:
    text = table_of(
        gate=Gate.OPEN,
        routes=("10.20.0.0/16",),
        lans=(Lan("lan0", "192.168.77.0/24"),),
        published=(Published("192.168.77.1", 80, "100.64.0.2", 8080),),
    )
    assert "reject with icmpx type host-unreachable" not in text.split("chain output")[0]
    inside = text.split("chain to_server")[1].split("}\n\tchain")[0]
    assert 'iifname "lan0" ip saddr 192.168.77.0/24' in inside
    assert "{ 10.20.0.0/16, 100.64.0.2/32 }" in inside
    assert "ct original ip daddr 192.168.77.1 meta l4proto tcp ct original proto-dst 80" in inside


@pytest.mark.parametrize(
    ("appearance", "kind"),
    [
        (Appearance("lan0", "192.168.77.1", "100.64.0.2"), TakenError),
        (Appearance("lan0", "192.168.99.5", "100.64.0.2"), UsageError),
        (Appearance("wan0", "192.168.77.5", "100.64.0.2"), UsageError),
    ],
)
def test_an_address_of_the_lan_must_be_free_and_of_the_lan(
    appearance: Appearance, kind: type[SshvpnError]
) -> None:
    with pytest.raises(kind):
        commands(lans=(Lan("lan0", "192.168.77.0/24"),), appearances=(appearance,))


@pytest.mark.parametrize(
    ("network", "address", "host"),
    [
        ("192.168.77.0/24", "192.168.77.50", "192.168.77.50/32"),
        ("fd77::/64", "fd77::50", "fd77::50/128"),
    ],
)
def test_an_address_of_the_lan_is_one_tunnels(network: str, address: str, host: str) -> None:
    another = KnownRoute(host, "sshvpn7", MAIN_TABLE, unit=7)
    with pytest.raises(TakenError, match=rf"{address} is another tunnel's already \(sshvpn7\)"):
        commands(
            dataclasses.replace(FACTS, routes=frozenset({another})),
            lans=(Lan("lan0", network),),
            appearances=(Appearance("lan0", address, "100.64.0.2"),),
        )


@pytest.mark.parametrize(
    ("network", "address", "what"),
    [
        ("192.168.77.0/24", "192.168.77.255", "the broadcast address of 192.168.77.0/24"),
        ("192.168.77.0/24", "192.168.77.0", "the address of 192.168.77.0/24 itself"),
        ("fd77::/64", "fd77::", "the address of fd77::/64 itself"),
    ],
)
def test_an_address_of_the_lan_must_be_one_that_a_machine_can_have(
    network: str, address: str, what: str
) -> None:
    with pytest.raises(UsageError, match=f"{address} is {what}"):
        commands(
            lans=(Lan("lan0", network),), appearances=(Appearance("lan0", address, "100.64.0.2"),)
        )


def test_a_network_of_two_has_nothing_but_machines() -> None:
    """RFC 3021."""
    made = commands(
        lans=(Lan("lan0", "192.168.99.4/31"),),
        appearances=(Appearance("lan0", "192.168.99.5", "100.64.0.2"),),
    )
    assert "ip neigh add proxy 192.168.99.5 dev lan0 protocol 83" in made


def test_an_address_of_the_lan_is_answered_for_and_has_a_way() -> None:
    made = commands(
        lans=(Lan("lan0", "fd77::/64"),), appearances=(Appearance("lan0", "fd77::50", "fd5a::2"),)
    )
    assert "ip -6 neigh add proxy fd77::50 dev lan0 protocol 83" in made
    assert "ip -6 route add fd77::50/128 dev sshvpn0 proto 83 metric 50" in made
    assert "sysctl -qw net/ipv6/conf/lan0/proxy_ndp=1" in made


def test_without_ipv6_nothing_of_it_is_wanted() -> None:
    state = desired(
        plan(addresses=TunnelAddresses("100.64.0.1/30", "100.64.0.2/30")),
        Facts(settings=SETTINGS, has_ipv6=False),
    )
    assert not [s for s in state.sysctls if "ipv6" in s.path]
    assert Setting.ADDR_GEN_MODE not in {s.setting for s in state.sysctls}


@pytest.mark.parametrize("reaches", [True, False])
def test_ipv6_that_older_devices_have_does_not_leak_past_a_tunnel_without(*, reaches: bool) -> None:
    """New devices have none (net.ipv6.conf.default.disable_ipv6), and what stood before does."""
    facts = Facts(
        addresses=FACTS.addresses | {KnownAddress("wan0", "2001:db8:113::10/64")},
        settings=SETTINGS,
        has_ipv6=False,
    )
    four = TunnelAddresses("100.64.0.1/30", "100.64.0.2/30")
    wanted = {"addresses": four, "has_default": True, "reaches_ipv6": reaches}
    state = desired(plan(**wanted, bypass=BypassMark(5300)), facts)
    six = [route for route in state.routes if ":" in route.prefix]
    assert [(route.prefix, route.device) for route in six] == [("::/0", None)]
    assert {rule.is_ipv6 for rule in state.rules} == {True, False}

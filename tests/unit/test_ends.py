"""What each end of a tunnel shall be: addresses, ways out, published services."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Any

import pytest

from sshvpn import ends
from sshvpn.ends import Site
from sshvpn.errors import TakenError, TunnelRefusedError, UsageError
from sshvpn.model import Destination, InterfaceAddress, TunnelProfile
from sshvpn.plan import marks
from sshvpn.plan.request import Facts, KnownAddress, KnownRoute, TunnelAddresses
from sshvpn.plan.state import Appearance, Gate, Lan, Published
from sshvpn.remote import protocol
from sshvpn.remote.protocol import Adapter, Device, RemoteAddress, RemoteRoute, Rights
from sshvpn.spec import parse_publish

LABEL = marks.label_of(1000, "office")
LAN4 = InterfaceAddress("lan0", "192.168.77.1", 24, 2)
LAN6 = InterfaceAddress("lan0", "fd77::1", 64, 2)
ADDRESSES = TunnelAddresses("100.64.0.1/30", "100.64.0.2/30", "fd99::1/126", "fd99::2/126")


def route(prefix: str, *interfaces: str, kind: str = "unicast") -> RemoteRoute:
    return RemoteRoute(kind, ipaddress.ip_network(prefix), None, interfaces, "main")


def address(interface: str, cidr: str, peer: str | None = None) -> RemoteAddress:
    own = ipaddress.ip_interface(cidr)
    network = ipaddress.ip_network(peer) if peer else own.network
    return RemoteAddress(interface, own.ip, network)


SERVER = protocol.Facts(
    protocol=1,
    user="root",
    uid=0,
    rights=Rights.ROOT,
    rights_code="",
    rights_reason="",
    system="Linux",
    ip="iproute2",
    firewall="nft",
    device=Device("tun0", 7, is_up=False, mtu=1500, owner=None),
    addresses=(address("eth0", "203.0.113.20/24"), address("inner0", "10.20.0.1/24")),
    routes=(
        route("0.0.0.0/0", "eth0"),
        route("203.0.113.0/24", "eth0"),
        route("10.20.0.0/24", "inner0"),
        route("10.30.0.0/16", "inner1"),
        route("fd20::/64", "inner0"),
        route("10.66.0.0/16", kind="unreachable"),
    ),
    adapters=(Adapter("default", 0, 0, 0, 0, 0),),
    closed=(),
    has_all_routes=True,
)
GATEWAY = Facts(
    addresses=frozenset({KnownAddress("lan0", "192.168.77.1/24")}),
    routes=frozenset({KnownRoute("192.168.77.0/24", "lan0", 254)}),
)


def profile(**fields: Any) -> TunnelProfile:
    publish = tuple(parse_publish(text) for text in fields.pop("publish", ()))
    return TunnelProfile("office", "gpu-box", Destination("gpu-box"), publish=publish, **fields)


def site(*, remote: protocol.Facts | None = SERVER, local: Facts = GATEWAY,
         shared: tuple[InterfaceAddress, ...] = (LAN4, LAN6), peers: tuple[str, ...] = (),
         **wanted: Any) -> Site:  # fmt: skip
    return Site(
        profile(**wanted), LABEL, 3, 1000, local, remote, shared=shared, peers=peers
    )  # fmt: skip


def without_rights(*addresses: RemoteAddress, mtu: int = 1500) -> protocol.Facts:
    return dataclasses.replace(
        SERVER,
        rights=Rights.NONE,
        device=Device("tun8", 8, is_up=True, mtu=mtu, owner=1000),
        addresses=(*SERVER.addresses, *addresses),
    )


# Addresses ---------------------------------------------------------------------------------


def test_the_addresses_of_a_tunnel_are_the_same_every_time() -> None:
    assert ends.choose_addresses(site()) == ends.choose_addresses(site())


@pytest.mark.parametrize("side", ["gateway", "server"])
def test_a_side_that_sits_in_the_pool_moves_the_tunnel_away(side: str) -> None:
    first = ends.choose_addresses(site())
    taken = ipaddress.ip_interface(first.local4).network
    if side == "gateway":
        known = KnownRoute(str(taken), "wan0", 254)
        other = site(local=dataclasses.replace(GATEWAY, routes=GATEWAY.routes | {known}))
    else:
        there = dataclasses.replace(SERVER, routes=(*SERVER.routes, route(str(taken))))
        other = site(remote=there)
    moved = ends.choose_addresses(other)
    assert not taken.overlaps(ipaddress.ip_interface(moved.local4).network)


def test_what_the_tunnel_itself_has_does_not_move_it() -> None:
    first = ends.choose_addresses(site())
    own = frozenset({KnownAddress("sshvpn3", first.local4)})
    routes = frozenset(
        {KnownRoute(str(ipaddress.ip_interface(first.local4).network), "sshvpn3", 254, 3)}
    )
    there = address("tun0", first.remote4)
    again = site(
        local=Facts(GATEWAY.addresses | own, GATEWAY.routes | routes),
        remote=dataclasses.replace(SERVER, addresses=(*SERVER.addresses, there)),
    )
    assert ends.choose_addresses(again) == first


def test_the_addresses_stay_out_of_the_routed_networks() -> None:
    chosen = ends.choose_addresses(site(routes=("100.64.0.0/10", "default")))
    assert ipaddress.ip_interface(chosen.local4).ip not in ipaddress.ip_network("100.64.0.0/10")


def test_an_address_that_is_asked_for_and_taken_is_refused() -> None:
    with pytest.raises(TakenError):
        ends.choose_addresses(site(address="192.168.77.9/30"))


@pytest.mark.parametrize("reason", ["the server has none", "this machine has none", "MTU"])
def test_without_ipv6_on_either_side_there_is_none(reason: str) -> None:
    if reason == "the server has none":
        adapters = (Adapter("default", 0, 0, None, None, None),)
        one = site(remote=dataclasses.replace(SERVER, adapters=adapters))
    elif reason == "MTU":
        one = site(mtu=1279)
    else:
        one = site(local=dataclasses.replace(GATEWAY, has_ipv6=False))
    assert ends.choose_addresses(one).local6 is None


@pytest.mark.parametrize(
    ("given", "pair"),
    [
        (address("tun8", "10.99.0.2/30"), ("10.99.0.1/30", "10.99.0.2/30")),
        (address("tun8", "10.99.0.1/30"), ("10.99.0.2/30", "10.99.0.1/30")),
        (address("tun8", "10.99.0.1/31"), ("10.99.0.0/31", "10.99.0.1/31")),
        (address("tun8", "10.99.0.2", "10.99.0.1/32"), ("10.99.0.1/32", "10.99.0.2/32")),
    ],
)
def test_addresses_of_the_administrator_decide_ours(
    given: RemoteAddress, pair: tuple[str, str]
) -> None:
    chosen = ends.choose_addresses(site(remote=without_rights(given)))
    assert (chosen.local4, chosen.remote4) == pair


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (address("tun8", "192.168.77.130/25"), TakenError),
        (address("tun8", "192.168.0.2/16"), TakenError),
        (address("tun8", "10.99.0.2", "192.168.77.5/32"), TakenError),
        (address("tun8", "10.0.0.2/7"), TunnelRefusedError),
        (address("tun8", "1.0.0.2/8"), TunnelRefusedError),
        (address("tun8", "0.0.0.2/1"), TunnelRefusedError),
        (address("tun8", "127.0.0.2/8"), TunnelRefusedError),
    ],
)
def test_addresses_that_would_lead_our_own_traffic_into_the_tunnel_are_refused(
    given: RemoteAddress, error: type[Exception]
) -> None:
    with pytest.raises(error):
        ends.choose_addresses(site(remote=without_rights(given)))


def test_a_server_that_would_swallow_the_connection_to_itself_is_refused() -> None:
    given = address("tun8", "10.66.0.2/24")
    with pytest.raises(TakenError):
        ends.choose_addresses(site(remote=without_rights(given), peers=("10.66.0.20/32",)))


def test_a_device_without_address_and_without_rights_is_refused_with_what_mends_it() -> None:
    with pytest.raises(TunnelRefusedError) as refused:
        ends.choose_addresses(site(remote=without_rights()))
    assert re.fullmatch(
        r"on the server, as root: ip address add 100\.\d+\.\d+\.\d+/30 dev tun8 && "
        r"ip link set tun8 up",
        refused.value.hint,
    )


def test_a_login_without_agent_goes_by_the_address_that_is_said() -> None:
    chosen = ends.choose_addresses(site(remote=None, address="10.99.0.1/30"))
    assert (chosen.local4, chosen.remote4) == ("10.99.0.1/30", "10.99.0.2/30")


def test_nor_does_one_that_is_said_collide_with_a_network_of_this_machine() -> None:
    for said, peers in (("192.168.77.9/30", ()), ("10.66.0.9/30", ("10.66.0.10/32",))):
        with pytest.raises(TakenError):
            ends.choose_addresses(site(remote=None, address=said, peers=peers))


def test_the_mtu_is_what_both_ends_carry() -> None:
    assert site().mtu == 16380
    assert site(mtu=1400).mtu == 1400
    assert site(remote=without_rights(mtu=1500)).mtu == 1500


# The server's end --------------------------------------------------------------------------


def remote(one: Site) -> protocol.RemoteEnd:
    return ends.remote_end(one, ADDRESSES, ends.services_of(one))


@pytest.mark.parametrize(
    ("routes", "ways"),
    [
        (("10.20.0.0/24",), ("inner0",)),
        (("10.20.0.7/32",), ("inner0",)),
        (("10.0.0.0/8",), ("eth0", "inner0", "inner1")),
        (("8.8.8.0/24",), ("eth0",)),
        (("fd20::/48",), ("inner0",)),
        (("default",), ("eth0", "inner0", "inner1")),
        ((), ()),
    ],
)
def test_the_server_forwards_by_the_adapters_that_lead_there(
    routes: tuple[str, ...], ways: tuple[str, ...]
) -> None:
    assert remote(site(routes=routes)).forward == ways


@pytest.mark.parametrize("wanted", ["10.40.0.0/16", "10.40.7.0/24", "10.40.0.0/15"])
def test_the_server_forwards_by_all_next_hops_of_a_route(wanted: str) -> None:
    spread = route("10.40.0.0/16", "inner2", "inner0", "lo", "tun0")
    server = dataclasses.replace(SERVER, routes=(*SERVER.routes, spread))
    ways = remote(site(remote=server, routes=(wanted,))).forward
    around = {"eth0"} if wanted.endswith("/15") else set()  # for what is beside it
    assert set(ways) == {"inner0", "inner2"} | around


def test_who_wants_all_does_not_mean_the_tunnels_of_other_gateways() -> None:
    other = route("100.64.9.0/30", "sshvpnr5601")
    server = dataclasses.replace(SERVER, routes=(*SERVER.routes, other))
    assert remote(site(remote=server, routes=("default",))).forward == ("eth0", "inner0", "inner1")
    named = remote(site(remote=server, routes=("100.64.9.0/30",)))
    assert named.forward == ("sshvpnr5601",)


def test_the_gateways_own_packets_are_masqueraded_and_without_nat_lan_routes_lead_back() -> None:
    own = tuple(ipaddress.ip_network(text) for text in ("100.64.0.1/32", "fd99::1/128"))
    with_nat = remote(site(routes=("10.20.0.0/24",)))
    assert (with_nat.masquerade, with_nat.routes) == (own, ())
    plain = remote(site(routes=("10.20.0.0/24",), nat=False))
    assert plain.masquerade == own
    assert [str(one) for one in plain.routes] == ["192.168.77.0/24", "fd77::/64"]


def without_nat(*addresses: RemoteAddress, routes: tuple[RemoteRoute, ...] = ()) -> Site:
    server = dataclasses.replace(
        SERVER,
        addresses=(*SERVER.addresses, *addresses),
        routes=(*SERVER.routes, *routes),
    )
    return site(remote=server, nat=False)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (address("eth1", "192.168.77.20/24"), "192.168.77.0/24"),
        (address("eth1", "192.168.1.20/16"), "192.168.0.0/16"),
        (address("eth1", "192.168.77.130/25"), "192.168.77.128/25"),
        (address("eth1", "192.168.77.20/32"), "192.168.77.20/32"),
        (address("ppp0", "10.9.9.9/32", "192.168.77.20/32"), "192.168.77.20/32"),
        (address("ppp0", "192.168.77.20/32", "10.9.9.9/32"), "192.168.77.20/32"),
        (address("eth1", "fd77::20/64"), "fd77::/64"),
    ],
)
def test_a_lan_that_the_server_is_in_too_is_refused_without_nat(
    there: RemoteAddress, said: str
) -> None:
    one = without_nat(there)
    with pytest.raises(UsageError, match=f"overlaps {said}, the server's own .* {there.interface}"):
        remote(one)
    with pytest.raises(UsageError) as refused:
        remote(one)
    assert "--no-nat" in refused.value.hint


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (route("192.168.77.0/24", "eth1"), "192.168.77.0/24 already, by eth1"),
        (route("192.168.77.0/24", kind="blackhole"), "192.168.77.0/24 already, by another way"),
        (route("192.168.77.0/24", "sshvpnr5601"), "192.168.77.0/24 already, by sshvpnr5601"),
        (route("192.168.77.1/32", "eth1"), "192.168.77.1/32 already, by eth1"),
    ],
)
def test_a_lan_to_which_the_server_has_another_way_is_taken_without_nat(
    there: RemoteRoute, said: str
) -> None:
    with pytest.raises(TakenError, match=said):
        remote(without_nat(routes=(there,)))


@pytest.mark.parametrize(
    "there",
    [
        without_nat(routes=(route("192.168.0.0/16", "wg0"),)),  # a wider one loses nothing else
        without_nat(routes=(route("0.0.0.0/1", "wg0"), route("128.0.0.0/1", "wg0"))),
        without_nat(routes=(route("::/0"),)),
        without_nat(routes=(route("192.168.77.0/24", "tun0"),)),  # the tunnel's own
        without_nat(address("tun0", "192.168.77.20/24")),
        without_nat(
            routes=(
                dataclasses.replace(route("192.168.77.0/24", "wg0"), table="52"),
                dataclasses.replace(route("192.168.77.128/25", "eth1"), via="203.0.113.9"),
            )
        ),
        without_nat(address("eth1", "192.168.78.1/24"), address("lo", "127.0.0.1/8")),
    ],
)
def test_other_routes_of_the_server_are_no_reason_to_refuse_the_lan(there: Site) -> None:
    assert [str(one) for one in remote(there).routes] == ["192.168.77.0/24", "fd77::/64"]


def test_only_what_is_changed_at_the_server_can_be_in_its_way() -> None:
    there = (address("eth1", "192.168.77.20/24"), address("eth1", "fd77::20/64"))
    assert remote(dataclasses.replace(without_nat(*there), profile=profile())).routes == ()
    assert remote(dataclasses.replace(without_nat(*there), shared=())).routes == ()
    bare = without_rights(address("tun8", "10.99.0.2/30"), *there)
    assert len(remote(site(remote=bare, nat=False)).routes) == 2
    only4 = TunnelAddresses("100.64.0.1/30", "100.64.0.2/30", None, None)
    end = ends.remote_end(without_nat(there[1]), only4, ())
    assert [str(one) for one in end.routes] == ["192.168.77.0/24"]


def test_a_dry_run_for_which_there_is_no_device_yet_refuses_the_same() -> None:
    for one, kind in (
        (without_nat(address("eth1", "192.168.77.20/24")), UsageError),
        (without_nat(routes=(route("192.168.77.0/24", kind="blackhole"),)), TakenError),
    ):
        assert one.remote is not None
        looked = dataclasses.replace(one, remote=dataclasses.replace(one.remote, device=None))
        with pytest.raises(kind):
            remote(looked)


def test_one_that_gives_way_leaves_out_the_lan_that_the_server_is_in() -> None:
    one = without_nat(address("eth1", "192.168.77.20/24"))
    end = ends.remote_end(one, ADDRESSES, (), gives_way=True)
    assert [str(one) for one in end.routes] == ["fd77::/64"]


# What is published -------------------------------------------------------------------------


def published(one: Site) -> tuple[Published, ...]:
    plan = ends.local_plan(one, ADDRESSES, ends.services_of(one), Gate.OPEN)
    return plan.published


def test_a_service_on_the_servers_localhost_is_led_to_through_the_tunnels_address() -> None:
    one = site(publish=("9999:8888",))
    assert published(one) == (Published("192.168.77.1", 9999, "100.64.0.2", 8888),)
    assert remote(one).published == (
        protocol.Publication("100.64.0.2", 8888, "127.0.0.1", 8888),
    )  # fmt: skip


def test_two_services_of_one_port_get_two_places_at_the_server() -> None:
    one = site(publish=("8888", "9999:10.20.0.10:8888"), routes=("10.20.0.0/24",))
    assert {p.target_port for p in published(one)} == {8888, 49152}
    assert {(p.port, p.target) for p in remote(one).published} == {
        (8888, "127.0.0.1"),
        (49152, "10.20.0.10"),
    }


def test_an_ipv6_service_is_published_at_ipv6_addresses() -> None:
    one = site(publish=("9999:[fd20::10]:80",), routes=("fd20::/64",))
    assert published(one) == (Published("fd77::1", 9999, "fd99::2", 80),)


@pytest.mark.parametrize("spec", ["9999:db.internal:5432", "127.0.0.1:9999:localhost:8888"])
def test_what_the_kernel_cannot_lead_to_is_left_to_ssh(spec: str) -> None:
    (service,) = ends.services_of(site(publish=(spec,)))
    assert service.port is None


@pytest.mark.parametrize(
    ("target", "routes", "is_led_to"),
    [
        ("10.20.0.10", (), False),
        ("172.17.0.2", (), False),
        ("10.20.0.10", ("10.20.0.0/24",), True),
        ("10.20.0.10", ("10.20.0.77/32",), True),  # by the same adapter
        ("10.20.0.10", ("10.30.0.0/16",), False),
        ("10.20.0.10", ("default",), True),
        ("8.8.8.8", ("10.20.0.0/24",), False),
        ("8.8.8.8", ("default",), True),
        ("10.40.0.10", ("default",), False),  # the tunnel of another gateway
        ("10.50.0.10", ("default",), False),  # no adapter is told
        ("10.60.0.10", ("default",), True),
        ("10.60.0.10", ("10.20.0.0/24",), False),  # by one of two next hops
        ("10.20.0.1", (), True),
        ("203.0.113.20", (), True),
        ("127.0.0.2", (), True),
        ("[fd20::10]", (), False),
        ("[fd20::10]", ("fd20::/64",), True),
        ("[fd20::1]", (), True),
        ("0.0.0.0", ("default",), False),  # ssh takes it for the server itself
        ("[::]", ("default",), False),
    ],
)
def test_what_the_server_forwards_nothing_to_is_left_to_ssh(
    target: str, routes: tuple[str, ...], is_led_to: bool
) -> None:
    others = (
        route("10.40.0.0/16", "sshvpnr5601"),
        route("10.50.0.0/16"),
        route("10.60.0.0/16", "inner0", "inner2"),
    )
    server = dataclasses.replace(
        SERVER,
        addresses=(*SERVER.addresses, address("inner0", "fd20::1/64")),
        routes=(*SERVER.routes, route("::/0"), *others),
    )
    one = site(remote=server, publish=(f"9999:{target}:80",), routes=routes)
    (service,) = ends.services_of(one)
    assert (service.port is not None) is is_led_to
    assert (published(one) != ()) is is_led_to
    assert (remote(one).published != ()) is is_led_to
    assert str(service.target) == f"{target}:80"


def test_where_no_address_is_of_the_services_family_it_is_left_to_ssh() -> None:
    six = tuple(one for one in site().shared if one.is_ipv6)
    assert six
    for shared, spec in ((six, "8888"), (site().shared, "192.168.77.9:8888:8888")):
        one = site(shared=shared, publish=(spec,))
        assert [service.port for service in ends.services_of(one)] == [None]
        assert published(one) == ()


def test_without_rights_or_without_a_lan_everything_is_left_to_ssh() -> None:
    bare = without_rights(address("tun8", "10.99.0.2/30"))
    assert [s.port for s in ends.services_of(site(remote=bare, publish=("8888",)))] == [None]
    assert [s.port for s in ends.services_of(site(shared=(), publish=("8888",)))] == [None]


def test_ssh_is_told_localhost_as_its_user_says_and_packets_go_to_its_address() -> None:
    """A key that is limited to it by permitopen is limited to the word."""
    (packets,) = ends.services_of(site(publish=("8888",)))
    (by_ssh,) = ends.services_of(site(shared=(), publish=("8888",)))
    assert [str(packets.target), str(by_ssh.target)] == ["127.0.0.1:8888", "localhost:8888"]


def test_one_address_of_the_lan_may_be_chosen() -> None:
    other = InterfaceAddress("lan1", "192.168.78.1", 24, 3)
    one = site(shared=(LAN4, other), publish=("192.168.78.1:9999:localhost:8888",))
    assert [p.address for p in published(one)] == ["192.168.78.1"]


# This machine's end ------------------------------------------------------------------------


def test_the_lan_is_let_in_by_network_and_the_peers_stay_outside() -> None:
    plan = ends.local_plan(
        site(routes=("203.0.113.0/24",), peers=("203.0.113.20/32",)), ADDRESSES, (), Gate.OPEN
    )
    assert plan.lans == (Lan("lan0", "192.168.77.0/24"), Lan("lan0", "fd77::/64"))
    assert plan.peers == ("203.0.113.20/32",)


def test_the_remote_host_appears_where_its_address_belongs() -> None:
    plan = ends.local_plan(site(lan_address="192.168.77.50"), ADDRESSES, (), Gate.OPEN)
    assert plan.appearances == (Appearance("lan0", "192.168.77.50", "100.64.0.2"),)


def test_an_ipv6_appearance_wants_a_tunnel_with_ipv6() -> None:
    four = TunnelAddresses("100.64.0.1/30", "100.64.0.2/30")
    with pytest.raises(UsageError):
        ends.local_plan(site(lan_address="fd77::50"), four, (), Gate.OPEN)


@pytest.mark.parametrize(("prefix", "reaches"), [("::/0", True), ("2000::/3", False)])
def test_ipv6_goes_into_a_default_route_only_where_the_server_has_a_way_out(
    prefix: str, reaches: bool
) -> None:
    there = dataclasses.replace(SERVER, routes=(*SERVER.routes, route(prefix)))
    plan = ends.local_plan(site(remote=there, routes=("default",)), ADDRESSES, (), Gate.OPEN)
    assert (plan.has_default, plan.reaches_ipv6) == (True, reaches)

"""The tunnel's own addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, strategies as st

from sshvpn.errors import TakenError, UsageError
from sshvpn.plan import prefixes
from sshvpn.plan.addresses import POOLS, pick
from tests.unit.plan.worlds import calm


def test_the_same_tunnel_gets_the_same_addresses() -> None:
    assert pick("3e8_1", ()) == pick("3e8_1", ["0.0.0.0/0", "192.168.1.0/24", "::/0"])
    assert pick("3e8_1", ()) != pick("3e8_2", ())


_networks = st.one_of(
    st.tuples(st.sampled_from(POOLS), st.integers(0, 2**22), st.integers(8, 32)).map(
        lambda t: str(
            ipaddress.ip_network(
                (int(ipaddress.ip_network(t[0]).network_address) + t[1] * 4, t[2]), strict=False
            )
        )
    ),
    st.ip_addresses(v=6, network="fd00::/8").map(lambda a: f"{a}/64"),
)


@calm
@given(st.text(min_size=1, max_size=8), st.lists(_networks, max_size=12))
def test_they_collide_with_nothing(seed: str, taken: list[str]) -> None:
    try:
        found = pick(seed, taken)
    except TakenError:
        return
    for cidr in (*found.local, *found.remote):
        network = ipaddress.ip_interface(cidr).network
        for other in taken:
            assert not prefixes.has_overlap(network, ipaddress.ip_network(other, strict=False))
    for local, remote in zip(found.local, found.remote, strict=True):
        one, other_end = ipaddress.ip_interface(local), ipaddress.ip_interface(remote)
        assert one.network == other_end.network
        assert one.ip != other_end.ip


def test_a_pool_that_is_taken_leaves_the_next() -> None:
    found = pick("x", ["100.64.0.0/10"])
    assert ipaddress.ip_interface(found.local4) in ipaddress.ip_network("172.16.0.0/12")
    with pytest.raises(TakenError, match="no addresses are left"):
        pick("x", POOLS)


def test_the_last_free_place_of_a_pool_is_found() -> None:
    pool = ipaddress.ip_network("100.64.0.0/10")
    free = ipaddress.ip_network("100.100.7.8/30")
    taken = [str(n) for n in prefixes.without([pool], [free])]
    assert pick("x", taken).local4 == "100.100.7.9/30"


@pytest.mark.parametrize(
    ("wanted", "local", "remote"),
    [
        ("10.99.0.0/30", "10.99.0.1/30", "10.99.0.2/30"),
        ("10.99.0.2/30", "10.99.0.2/30", "10.99.0.1/30"),
        ("10.99.0.9/24", "10.99.0.9/24", "10.99.0.2/24"),
        ("10.99.0.0/31", "10.99.0.0/31", "10.99.0.1/31"),
    ],
)
def test_addresses_can_be_named(wanted: str, local: str, remote: str) -> None:
    found = pick("x", (), wanted=wanted)
    assert (found.local4, found.remote4) == (local, remote)
    assert found.local6 == pick("x", ()).local6


def test_an_ipv6_address_can_be_named() -> None:
    found = pick("x", (), wanted="fd99::1/64")
    assert (found.local6, found.remote6) == ("fd99::1/64", "fd99::2/64")
    assert pick("x", (), has_ipv6=False).local6 is None


@pytest.mark.parametrize("wanted", ["10.99.0.1", "10.99.0.1/32", "x", "10.99.0.1/40"])
def test_what_has_no_room_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError):
        pick("x", (), wanted=wanted)


def test_a_named_address_that_is_taken_is_refused() -> None:
    with pytest.raises(TakenError, match=r"10\.99\.0\.0/16"):
        pick("x", ["10.99.0.0/16"], wanted="10.99.0.1/30")


@calm
@given(st.lists(_networks, max_size=4), st.lists(_networks, max_size=4))
def test_prefixes_less_prefixes_cover_exactly_the_rest(one: list[str], less: list[str]) -> None:
    def nets(texts: list[str]) -> list[prefixes.Network]:
        return [ipaddress.ip_network(text, strict=False) for text in texts]

    rest = prefixes.without(nets(one), nets(less))
    for network in rest:
        assert not any(prefixes.has_overlap(network, hole) for hole in nets(less))
    # What is in the one and not in the others is still there.
    for network in nets(one):
        address = network.network_address
        is_cut = any(h.version == network.version and address in h for h in nets(less))
        assert is_cut != any(n.version == network.version and address in n for n in rest)

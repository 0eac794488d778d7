"""Who has an address of the LAN, and which ports of this machine are free."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.contract.prober_site import ask, firewall
from tests.lab import Lab, LabMachine

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


# Who has an address ---------------------------------------------------------------------------


LAN = pytest.mark.parametrize("address", ["192.168.77.10", "fd77::10"])


def mac_of(machine: LabMachine, interface: str) -> str:
    return str(json.loads(machine.ip("-json", "link", "show", interface))[0]["address"])


def holder(lab: Lab, address: str, interface: str = "lan0") -> dict[str, Any]:
    (answer,) = ask(lab, ("holder_of", interface, address))
    return answer


def forget(lab: Lab) -> None:
    for family in ("-4", "-6"):
        lab.gateway.ip(family, "neigh", "flush", "dev", "lan0")


def make_stale(lab: Lab, mac: str) -> None:
    """Let the gateway know both addresses of lan by MAC, from long ago."""
    for address in ("192.168.77.10", "fd77::10"):
        lab.gateway.ip("neigh", "replace", address, "lladdr", mac, "dev", "lan0", "nud", "stale")


@contextmanager
def silence(lab: Lab) -> Iterator[None]:
    """Let lan answer to nothing but ARP and NDP."""
    keep = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
    with firewall(lab.lan, "input", keep, "drop"):
        yield


@contextmanager
def absence(lab: Lab) -> Iterator[None]:
    """Let lan be away: nothing reaches it."""
    lab.lan.nft(
        "table netdev probe {\n"
        "chain c { type filter hook ingress device eth0 priority 0; policy drop; }\n}"
    )
    try:
        yield
    finally:
        lab.lan.nft("delete table netdev probe")


@LAN
def test_a_machine_that_is_there_has_its_address(lab: Lab, address: str) -> None:
    forget(lab)
    found = holder(lab, address)
    assert found["result"] == mac_of(lab.lan, "eth0")
    assert found["took_s"] < 1
    assert found["quiet_s"] is None


@LAN
def test_one_that_answers_to_nothing_has_it_too(lab: Lab, address: str) -> None:
    forget(lab)
    with silence(lab):
        assert holder(lab, address)["result"] == mac_of(lab.lan, "eth0")


def test_an_address_of_nobody_is_free_also_when_it_is_answered_for_here(lab: Lab) -> None:
    free = ["192.168.77.200", "fd77::200", "192.168.77.201", "fd77::201"]
    for address in free[2:]:
        lab.gateway.ip("neigh", "add", "proxy", address, "dev", "lan0")
    try:
        answers = ask(lab, *(("holder_of", "lan0", one) for one in free), how="together")
    finally:
        for address in free[2:]:
            lab.gateway.ip("neigh", "delete", "proxy", address, "dev", "lan0")
    assert [answer["result"] for answer in answers] == [None] * 4
    assert max(answer["took_s"] for answer in answers) < 4
    # Long before that it is told that nobody has answered at once.
    assert all(0.3 <= answer["quiet_s"] < answer["took_s"] - 1 for answer in answers)


@LAN
def test_an_old_entry_is_confirmed_at_once_where_the_machine_answers(
    lab: Lab, address: str
) -> None:
    make_stale(lab, mac_of(lab.lan, "eth0"))
    found = holder(lab, address)
    assert found["result"] == mac_of(lab.lan, "eth0")
    assert found["took_s"] < 1


def both(lab: Lab) -> list[str | None]:
    answers = ask(
        lab, ("holder_of", "lan0", "192.168.77.10"), ("holder_of", "lan0", "fd77::10"),
        how="together",
    )  # fmt: skip
    return [answer["result"] for answer in answers]


def test_an_old_entry_of_a_silent_machine_is_confirmed_by_the_kernel(lab: Lab) -> None:
    mac = mac_of(lab.lan, "eth0")
    make_stale(lab, mac)
    with silence(lab):
        found = holder(lab, "192.168.77.10")
        assert (found["result"], found["quiet_s"]) == (mac, None), "it speaks for that machine"
        make_stale(lab, mac)
        assert both(lab) == [mac, mac]


def test_an_old_entry_of_a_machine_that_has_gone_does_not_count(lab: Lab) -> None:
    make_stale(lab, mac_of(lab.lan, "eth0"))
    with absence(lab):
        assert both(lab) == [None, None]


def test_a_machine_that_took_the_place_of_another_has_the_address(lab: Lab) -> None:
    make_stale(lab, "02:00:00:00:77:77")
    with silence(lab):
        mac = mac_of(lab.lan, "eth0")
        assert both(lab) == [mac, mac]


def test_an_address_is_looked_for_on_the_adapter_whatever_the_routes_say(lab: Lab) -> None:
    lab.lan.ip("address", "add", "10.9.9.9/32", "dev", "eth0")
    routes = [("192.168.77.10/32", "dev", "wan0"), ("fd77::10/128", "dev", "wan0")]
    for route in routes:
        lab.gateway.ip("route", "add", *route)
    try:
        forget(lab)
        addresses = ["10.9.9.9", "192.168.77.10", "fd77::10"]
        answers = ask(lab, *(("holder_of", "lan0", one) for one in addresses))
    finally:
        for route in routes:
            lab.gateway.ip("route", "delete", *route)
        lab.lan.ip("address", "delete", "10.9.9.9/32", "dev", "eth0")
    assert [answer["result"] for answer in answers] == [mac_of(lab.lan, "eth0")] * 3


def test_it_is_found_where_a_firewall_keeps_our_datagrams_back(lab: Lab) -> None:
    forget(lab)
    with firewall(lab.gateway, "output", "meta l4proto udp drop"):
        found = holder(lab, "192.168.77.10")
    assert found["result"] == mac_of(lab.lan, "eth0")


def test_an_address_of_this_machine_is_in_use_and_an_adapter_that_is_not_has_none(
    lab: Lab,
) -> None:
    mine = mac_of(lab.gateway, "lan0")
    assert [holder(lab, one)["result"] for one in ("192.168.77.1", "fd77::1")] == [mine, mine]
    assert holder(lab, "192.168.77.10", "lan9")["result"] is None


# Ports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [80, 8080])
@pytest.mark.parametrize(
    ("listens", "taken"),
    [
        ("192.168.77.1", {"192.168.77.1"}),
        ("0.0.0.0", {"192.168.77.1", "127.0.0.1"}),
        ("::", {"192.168.77.1", "127.0.0.1", "fd77::1"}),
        ("fd77::1", {"fd77::1"}),
    ],
)
def test_a_port_is_taken_where_something_listens_privileged_or_not(
    lab: Lab, port: int, listens: str, taken: set[str]
) -> None:
    lab.gateway.tcp_server(port, listens)
    asked = ["192.168.77.1", "127.0.0.1", "fd77::1"]
    try:
        answers = ask(lab, *(("check_free", one, port) for one in asked))
        other = ask(lab, ("check_free", "192.168.77.1", port + 1))
    finally:
        lab.gateway.undo()
    assert {one for one, answer in zip(asked, answers, strict=True) if answer["result"]} == taken
    assert other[0]["result"] is None

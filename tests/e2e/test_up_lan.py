"""`sshvpn up` for the machines of the local network: what they reach, and by which way.

    lan ──eth0 ── lan0 gateway wan0 ══ssh══ server ── inner
    .77.10          .77.1                     :8080 all addresses   :8000 all addresses
                                              127.0.0.1:8888        UDP :7007
                                              UDP :7007

The gateway is lan's default route; where that is taken away, lan types what `routes` prints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.e2e.office import Office
from tests.e2e.vpn import (
    DATAGRAMS,
    INNER,
    INNER_HOSTS,
    SHARED,
    Vpn,
    answers_ping,
    answers_udp,
    either_transport,
    fetch,
)
from tests.lab import Lab, LabMachine, Wan, wait_until

pytestmark = pytest.mark.lab

APPEARANCE: Final = "192.168.77.50"
APPEARANCE6: Final = "fd77::50"
DELAY_MS: Final = 20.0


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes alice's tunnels, in a laboratory of its own."""
    return Vpn(lab)


@pytest.fixture(scope="module")
def standing(transport: str) -> Iterator[Vpn]:
    """Return a tunnel that is up, for tests that only look at it."""
    with Lab() as lab:
        vpn = Vpn(lab, transport=transport)
        lab.server.udp_server(DATAGRAMS, "::")
        lab.inner.udp_server(DATAGRAMS, "::")
        vpn.up(*SHARED, "--lan-address", APPEARANCE)
        yield vpn
        vpn.down()
        lab.check()


@pytest.fixture(scope="module")
def resting() -> Iterator[Vpn]:
    """Return an office in which nothing is up, for tests of what is refused."""
    with Lab() as lab:
        yield Vpn(lab)
        lab.check()


def tunnel_hosts(vpn: Vpn) -> list[str]:
    """Return the server's addresses in the tunnel."""
    return [cidr.partition("/")[0] for cidr in vpn.record()["remote_addresses"]]


# -- what a machine of the LAN reaches ---------------------------------------------------------


def test_the_lan_reaches_all_that_is_shared(standing: Vpn) -> None:
    assert standing.unreachable(standing.everything()) == []


def test_ping_and_udp_go_both_ways(standing: Vpn) -> None:
    lan = standing.lab.lan
    for address in (*tunnel_hosts(standing), *INNER_HOSTS):
        assert answers_ping(lan, address), address
        assert answers_udp(lan, address), address


def test_what_is_published_is_at_the_gateway_itself_too(standing: Vpn) -> None:
    pages = standing.everything()
    assert standing.unreachable(pages, standing.lab.gateway) == []


def test_the_remote_host_appears_on_the_lan_under_an_address_of_its_own(standing: Vpn) -> None:
    lab = standing.lab
    lab.lan.ip("route", "delete", "default")
    lab.lan.ip("-6", "route", "delete", "default")
    try:
        pages = {f"http://{APPEARANCE}:8080/": "server", f"http://{APPEARANCE}:8888/": "notebook"}
        assert standing.unreachable(pages) == []
        assert answers_ping(lab.lan, APPEARANCE)
        assert answers_udp(lab.lan, APPEARANCE)
        assert not fetch(lab.lan, "http://10.20.0.10:8000/", 0.5), "there is no route any more"
    finally:
        lab.lan.ip("route", "add", "default", "via", "192.168.77.1")
        lab.lan.ip("-6", "route", "add", "default", "via", "fd77::1")


def test_a_machine_with_another_router_types_what_routes_prints(standing: Vpn) -> None:
    lab = standing.lab
    routes = lab.sshvpn("routes", "server").stdout
    lab.lan.ip("route", "delete", "default")
    lab.lan.ip("-6", "route", "delete", "default")
    try:
        assert standing.unreachable(standing.inner(), timeout=0.5) == [*standing.inner()]
        lab.lan.run(["sh", "-ec", routes], user="root")
        assert standing.unreachable(standing.everything()) == []
        lab.lan.run(["sh", "-ec", routes.replace(" add ", " delete ")], user="root")
    finally:
        lab.lan.ip("route", "add", "default", "via", "192.168.77.1")
        lab.lan.ip("-6", "route", "add", "default", "via", "fd77::1")


@either_transport
def test_the_remote_host_has_an_ipv6_address_of_the_lan(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, transport=transport)
    lan = lab.lan
    vpn.up("server", "--lan", "--lan-address", APPEARANCE6)
    assert vpn.unreachable({f"http://[{APPEARANCE6}]:8080/": "server"}) == []
    assert answers_ping(lan, APPEARANCE6)
    vpn.down()


@pytest.mark.parametrize(
    ("code", "address"),
    [
        (7, "192.168.77.10"),  # lan's
        (7, "fd77::10"),
        (7, "192.168.77.1"),  # the gateway's own
        (7, "fd77::1"),
        (2, "192.168.79.50"),
        (2, "10.20.0.50"),
        (2, "fd79::50"),
    ],
)
def test_an_address_that_is_not_free_is_refused(resting: Vpn, code: int, address: str) -> None:
    with resting.lab.unchanged():
        told = Office(resting.lab).refused(code, "up", "server", "--lan", "--lan-address", address)
        assert address in told


@contextlib.contextmanager
def late(machine: LabMachine, address: str) -> Iterator[None]:
    """Give MACHINE an ADDRESS more, for which it answers from the third solicitation on: 2 s."""
    question, size = f"arp daddr ip {address}", 28
    if ":" in address:  # RFC 4861, section 2.3: the solicited-node multicast address
        question, size = f"ip6 daddr ff02::1:ff00:{address.rpartition(':')[2]}", 72
    machine.nft(
        "table netdev late {\nchain c {\n"
        "type filter hook ingress device eth0 priority 0; policy accept;\n"
        f"{question} quota until {3 * size - 1} bytes drop\n}}\n}}"
    )
    machine.ip("address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    try:
        yield
    finally:
        machine.ip("address", "delete", address, "dev", "eth0")
        machine.nft("delete table netdev late")


@pytest.mark.parametrize("address", ["192.168.77.60", "fd77::60"])
def test_an_address_for_which_somebody_answers_late_is_given_up(vpn: Vpn, address: str) -> None:
    lab = vpn.lab
    with lab.unchanged(), late(lab.lan, address):
        vpn.up(*SHARED, "--lan-address", address)
        wait_until(lambda: vpn.record()["last_error"] is not None)
        record = vpn.record()
        assert record["state"] == "running"
        assert record["last_error"]["code"] == "taken"
        assert f"{address} is in use on lan0, by " in record["last_error"]["message"]
        wait_until(lambda: not any(address in route for route in vpn.record()["routes"]))
        family = "-6" if ":" in address else "-4"
        assert lab.gateway.ip(family, "neigh", "show", "proxy") == ""
        assert answers_ping(lab.gateway, address), "its owner"
        assert vpn.unreachable(vpn.everything()) == []
        vpn.down()


@pytest.mark.parametrize("host", ["10.20.0.10", "[fd20::10]"])
@either_transport
def test_a_service_behind_the_server_is_published_without_a_route(
    lab: Lab, host: str, transport: str | None
) -> None:
    vpn = Vpn(lab, transport=transport)
    vpn.up("server", "--lan", "--publish", f"9999:{host}:8000")
    pages = {"http://192.168.77.1:9999/": "inner", "http://[fd77::1]:9999/": "inner"}
    assert vpn.unreachable(pages) == []
    assert {one["survives_reconnect"] for one in vpn.record()["published"]} == {False}
    assert vpn.unreachable(vpn.inner(), timeout=0.5) == [*vpn.inner()]
    vpn.down()


def test_a_service_to_which_a_route_leads_is_published_by_the_kernel(vpn: Vpn) -> None:
    vpn.up("server", "--lan", "--publish", "9999:10.20.0.10:8000", "--route", "10.20.0.10/32")
    assert vpn.unreachable({"http://192.168.77.1:9999/": "inner"}) == []
    assert [one["survives_reconnect"] for one in vpn.record()["published"]] == [True]
    vpn.down()


# -- what is left out --------------------------------------------------------------------------


def test_without_the_lan_all_is_for_this_machine_only(vpn: Vpn) -> None:
    vpn.up("server", "--no-lan", "--publish", "8888", *SHARED[4:])
    pages = {**vpn.published("127.0.0.1"), **vpn.inner(), **vpn.remote()}
    assert vpn.unreachable(pages, vpn.lab.gateway) == []
    pages = {**vpn.published(), **vpn.inner(), **vpn.remote()}
    assert vpn.unreachable(pages, timeout=0.5) == [*pages]
    record = vpn.record()
    assert record["lan"] == []
    assert [one["listen"] for one in record["published"]] == ["127.0.0.1:8888"]
    vpn.down()


@either_transport
def test_without_nat_the_lan_keeps_its_addresses(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, transport=transport)
    vpn.up(*SHARED, "--no-nat")
    assert vpn.unreachable(vpn.everything()) == []
    lan = vpn.lab.lan
    for host, source in zip(INNER_HOSTS, (lan.address, lan.address6), strict=True):
        name = f"[{host}]" if ":" in host else host
        seen = fetch(lan, f"http://{name}:8000/peer").removeprefix("::ffff:")
        assert seen == source
    vpn.down()


def test_without_nat_a_lan_that_the_server_is_in_too_is_refused(vpn: Vpn) -> None:
    server = vpn.lab.server
    server.ip("address", "add", "192.168.77.20/24", "dev", "inner0")
    vpn.lab.checkpoint()
    with vpn.lab.unchanged():
        told = Office(vpn.lab).refused(2, "up", "server", "--lan", "--no-nat")
        assert "192.168.77.0/24, the server's own network on inner0" in told
        assert "--no-nat" in told.splitlines()[-1]
    vpn.up("server", "--lan", "--publish", "8888")
    assert vpn.unreachable(vpn.published()) == []
    vpn.down()


@either_transport
def test_what_is_excluded_does_not_go_through_the_tunnel(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, transport=transport)
    vpn.up(*SHARED, "--exclude", "10.20.0.8/29", "--exclude", "fd20::10/124")
    kept = {"http://10.20.0.1:8080/": "server", "http://[fd20::1]:8080/": "server"}
    assert vpn.unreachable(kept) == []
    for machine in (vpn.lab.lan, vpn.lab.gateway):
        assert vpn.unreachable(vpn.inner(), machine, 0.5) == [*vpn.inner()]
    assert not set(INNER) & set(vpn.record()["routes"])
    vpn.down()


# -- status ------------------------------------------------------------------------------------


@either_transport
def test_status_knows_all_and_agrees_with_the_kernel(
    wan_lab: Callable[[Wan], Lab], transport: str | None
) -> None:
    vpn = Vpn(wan_lab(Wan(delay_ms=DELAY_MS)), transport=transport)
    vpn.up()
    assert vpn.unreachable(vpn.inner()) == []
    before = counters(vpn)
    record = vpn.record()
    after = counters(vpn)
    unknown = {key for key, value in record.items() if value is None}
    assert unknown == {"last_error", "retry_at"}
    assert before[0] <= record["rx_bytes"] <= after[0]
    assert before[1] <= record["tx_bytes"] <= after[1]
    assert 2 * DELAY_MS <= record["rtt_ms"] <= 2 * DELAY_MS + 25
    vpn.down()


def counters(vpn: Vpn) -> tuple[int, int]:
    """Return the bytes that the tunnel's device has received and sent, as the kernel has them."""
    for line in vpn.lab.gateway.run(["cat", "/proc/net/dev"]).stdout.splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "sshvpn0":
            return int(rest.split()[0]), int(rest.split()[8])
    raise AssertionError("no device")


def test_a_real_jupyter_is_reached_by_every_address_that_the_server_has_here(lab: Lab) -> None:
    vpn = Vpn(lab, services=False)
    jupyter = lab.server.start_jupyter(8888)
    vpn.up("server", "--lan", "--publish", "8888", "--lan-address", "192.168.77.200")
    inside = str(vpn.record()["remote_address"]).partition("/")[0]
    for host in ("192.168.77.1", inside, "192.168.77.200"):
        told = fetch(lab.lan, f"http://{host}:8888/api/status?token={jupyter.token}", timeout=10)
        assert '"kernels": 0' in told, host
    vpn.down()

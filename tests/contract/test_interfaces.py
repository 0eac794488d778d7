"""The adapters of a machine that is made on the spot.

::

    router 10.1.0.254 ── lan0 10.1.0.1 [machine] docker0, br0, tun0 …
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from sshvpn.model import InterfaceAddress, LanNetwork
from sshvpn.system.network.interfaces import SystemInterfaces
from tests.contract.netns import Namespace

pytestmark = pytest.mark.lab

ROUTER_MAC = "02:00:00:00:00:fe"
LAN4 = InterfaceAddress("lan0", "10.1.0.1", 24)
LAN6 = InterfaceAddress("lan0", "fd01::1", 64)


@pytest.fixture
def interfaces() -> SystemInterfaces:
    return SystemInterfaces()


@pytest.fixture
def router(namespace: Callable[[], Namespace]) -> Namespace:
    return namespace()


@pytest.fixture
def machine(namespace: Callable[[], Namespace], router: Namespace) -> Namespace:
    made = namespace()
    made.link_to(router, "lan0", "eth0")
    # A link-local address that the kernel makes itself is not used for a second, nor answered to.
    made.ip(
        "addr add 10.1.0.1/24 dev lan0",
        "addr add fd01::1/64 dev lan0 nodad",
        "addr add fe80::1/64 dev lan0 nodad",
    )
    router.ip(
        f"link set eth0 address {ROUTER_MAC}",
        "addr add 10.1.0.254/24 dev eth0",
        "addr add fe80::fe/64 dev eth0 nodad",
    )
    return made


def test_addresses_of_an_adapter(machine: Namespace, interfaces: SystemInterfaces) -> None:
    machine.ip("addr add 10.1.0.2/24 dev lan0 label lan0:1", "addr add 169.254.1.1/16 dev lan0")
    assert list(machine.run(interfaces.addresses, "lan0")) == [
        LAN4,
        InterfaceAddress("lan0", "10.1.0.2", 24),
        LAN6,
    ]
    assert machine.run(interfaces.names) == ["lo", "lan0"]


def test_an_adapters_bytes_are_the_kernels_own(
    machine: Namespace, router: Namespace, interfaces: SystemInterfaces
) -> None:
    machine.run(subprocess.check_call, ["ping", "-q", "-c2", "-i0.1", "10.1.0.254"])
    machine.ip("link set lan0 down")  # from here on nothing is counted
    router.ip("link set eth0 down")
    told = machine.run(interfaces.counters, "lan0")
    assert machine.run(interfaces.counters, "lan7") is None
    table = machine.run(Path("/proc/thread-self/net/dev").read_text)
    line = next(line for line in table.splitlines() if "lan0:" in line)
    words = line.partition(":")[2].split()
    assert told == (int(words[0]), int(words[8]))
    assert min(told) >= 2 * 98, "two pings and their answers"


def test_ipv6_addresses_that_go_are_left_out(
    machine: Namespace, interfaces: SystemInterfaces
) -> None:
    machine.ip(
        "addr add fd01::2/64 dev lan0 nodad preferred_lft 0",
        "addr add 2001:db8::1/64 dev lan0 nodad",
    )
    assert [one.address for one in machine.run(interfaces.addresses, "lan0")] == [
        "10.1.0.1",
        "2001:db8::1",
        "fd01::1",
    ]


def test_the_lan_is_what_stands_on_a_cable_and_no_container_nor_vpn(
    machine: Namespace, interfaces: SystemInterfaces
) -> None:
    made = {
        "docker0": "docker0 type bridge",
        "br0": "br0 type bridge",
        "veth1": "veth1 type veth peer name peer1",
        "mac0": "link lan0 name mac0 type macvlan",
        "mac1": "link docker0 name mac1 type macvlan",
    }
    for number, (name, words) in enumerate(made.items(), start=2):
        machine.ip(f"link add {words}", f"link set {name} up")
        machine.ip(f"addr add 10.{number}.0.1/24 dev {name}")
    machine.ip("tuntap add tun0 mode tun", "link set tun0 up", "addr add 10.99.0.1/24 dev tun0")
    machine.ip("tuntap add tap0 mode tap", "link set tap0 up", "addr add 10.98.0.1/24 dev tap0")
    machine.ip("addr add 192.0.2.1/24 dev lan0")

    found = machine.run(interfaces.lan)

    assert LAN4 in found
    assert LAN6 in found
    assert {one.interface for one in found} == {"lan0", "br0", "mac0"}
    assert "192.0.2.1" not in {one.address for one in found}
    machine.ip("link set lan0 down")
    assert "lan0" not in {one.interface for one in machine.run(interfaces.lan)}


def test_a_macvlan_whose_adapter_is_in_another_namespace_is_an_uplink(
    machine: Namespace, namespace: Callable[[], Namespace], interfaces: SystemInterfaces
) -> None:
    container = namespace()
    machine.ip(f"link add link lan0 name eth7 netns {container.path} type macvlan")
    container.ip("link set eth7 up", "addr add 10.1.0.7/24 dev eth7")
    assert list(container.run(interfaces.lan)) == [InterfaceAddress("eth7", "10.1.0.7", 24)]


@pytest.mark.parametrize(
    "route",
    [
        "default via 10.1.0.254",
        "default metric 50 nexthop via 10.1.0.254 dev lan0 nexthop via 10.9.0.254 dev other",
        "default via inet6 fe80::fe dev lan0",
    ],
)
def test_the_router_is_asked_for_its_mac(
    machine: Namespace, interfaces: SystemInterfaces, route: str
) -> None:
    machine.ip("link add other type bridge", "link set other up", "addr add 10.9.0.1/24 dev other")
    machine.ip(f"route add {route}")
    assert machine.run(interfaces.network_of, LAN4) == LanNetwork("lan0", "10.1.0.0/24", ROUTER_MAC)


def test_without_ipv4_the_router_is_that_of_ipv6(
    machine: Namespace, interfaces: SystemInterfaces
) -> None:
    machine.ip("addr del 10.1.0.1/24 dev lan0", "route add default via fe80::fe dev lan0")
    found = machine.run(interfaces.network_of, LAN6)
    assert found == LanNetwork("lan0", "fd01::/64", ROUTER_MAC)


def test_default_routes_of_others_do_not_count(
    machine: Namespace, interfaces: SystemInterfaces
) -> None:
    machine.ip(
        "route add default via 10.1.0.254 table 52",
        "route add 0.0.0.0/1 via 10.1.0.254",
        "link add other type bridge",
        "link set other up",
        "addr add 10.9.0.1/24 dev other",
        "route add default via 10.9.0.254",
    )
    assert machine.run(interfaces.network_of, LAN4) == LanNetwork("lan0", "10.1.0.0/24", None)


def test_of_two_routers_the_one_with_the_lower_metric_counts(
    machine: Namespace, router: Namespace, interfaces: SystemInterfaces
) -> None:
    router.ip("addr add 10.1.0.253/24 dev eth0")
    machine.ip("route add default via 10.1.0.253 metric 200")
    machine.ip("route add default via 10.1.0.254 metric 100")
    machine.ip("neigh replace 10.1.0.253 lladdr 02:00:00:00:00:01 dev lan0")
    assert machine.run(interfaces.network_of, LAN4).router_mac == ROUTER_MAC


def test_a_router_that_does_not_answer_has_no_mac(
    machine: Namespace, router: Namespace, interfaces: SystemInterfaces
) -> None:
    machine.ip("route add default via 10.1.0.254")
    router.ip("link set eth0 down")
    assert machine.run(interfaces.network_of, LAN4).router_mac is None


def test_it_may_be_asked_from_a_running_loop(
    machine: Namespace, interfaces: SystemInterfaces
) -> None:
    async def ask() -> list[InterfaceAddress]:
        return list(interfaces.lan())

    assert machine.run(asyncio.run, ask()) == [LAN4, LAN6]


def ip_batch(commands: str) -> None:
    """Run ``ip`` on each line; the loop stands still meanwhile."""
    done = subprocess.run(["ip", "-batch", "-"], input=commands.encode(), check=False)
    assert done.returncode == 0


def test_changes_follow_links_addresses_and_routes(
    machine: Namespace, interfaces: SystemInterfaces
) -> None:
    steps = [
        "link add br0 type bridge",
        "link set br0 up",
        "addr add 10.5.0.1/24 dev br0",
        "addr add fd05::1/64 dev br0 nodad",
        "route add 10.6.0.0/24 via 10.5.0.2",
        "addr del 10.5.0.1/24 dev br0",
        "link del br0",
    ]
    seen: list[list[str]] = []

    async def scenario() -> None:
        async with aclosing(interfaces.changes()) as changes:
            await anext(changes)
            for step in steps:
                ip_batch(step)
                await asyncio.wait_for(anext(changes), 10)
                seen.append([one.address for one in interfaces.lan() if one.interface == "br0"])

    machine.run(lambda: asyncio.run(scenario()))
    assert seen == [
        [],
        [],
        ["10.5.0.1"],
        ["10.5.0.1", "fd05::1"],
        ["10.5.0.1", "fd05::1"],
        ["fd05::1"],
        [],
    ]


def test_a_flood_of_changes_is_one_and_does_not_end_it(
    machine: Namespace, interfaces: SystemInterfaces
) -> None:
    """More than the socket's buffer holds: the kernel says ENOBUFS."""
    adding = "\n".join(f"route add 10.7.{n // 256}.{n % 256} dev lan0" for n in range(4000))

    async def scenario() -> None:
        async with aclosing(interfaces.changes()) as changes:
            await anext(changes)
            ip_batch(adding)
            await asyncio.wait_for(anext(changes), 10)
            ip_batch("link add br0 type bridge")
            await asyncio.wait_for(anext(changes), 10)

    machine.run(lambda: asyncio.run(scenario()))


def test_following_ends_when_it_is_cancelled(
    machine: Namespace, interfaces: SystemInterfaces
) -> None:
    async def follow(started: asyncio.Event) -> None:
        async for _ in interfaces.changes():
            started.set()

    async def scenario() -> bool:
        started = asyncio.Event()
        task = asyncio.create_task(follow(started))
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        return task.cancelled()

    assert machine.run(lambda: asyncio.run(scenario()))


_FOLLOW = """
import asyncio, subprocess, sys
if sys.argv[1] == "ours":
    from sshvpn.system.imports import leave_out_unused
    leave_out_unused()
from sshvpn.system.network.interfaces import SystemInterfaces

async def follow():
    told = SystemInterfaces().changes()
    await anext(told)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    await anext(told)

asyncio.run(follow())
print(*sorted(name for name in sys.modules if name.startswith("pyroute2")))
"""


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_who_follows_loads_a_reader_and_a_users_own_program_nothing(
    machine: Namespace, whose: str
) -> None:
    machine.ip("link set lo down")
    words = [sys.executable, "-c", _FOLLOW, whose]
    loaded = machine.run(lambda: subprocess.check_output(words, text=True, timeout=30)).split()
    assert "pyroute2.iproute" not in loaded
    assert ("pyroute2.netlink.marshal" in loaded) is (whose == "ours")
    assert whose == "ours" or not loaded

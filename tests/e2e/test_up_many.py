"""Many tunnels at once, addresses that collide with nothing, and what is refused before it harms.

               ┌ sshvpn0  ══ssh══ tun0  ┐
lan ── gateway ┤ sshvpn1  ══ssh══ tun1  ├ server ── inner
               └ …19      ══ssh══ …19   ┘
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from typing import Any

import pytest

from tests.e2e.office import HOME, exit_code
from tests.e2e.vpn import Vpn, fetch
from tests.lab import ALICE_PASSWORD, Lab, LabMachine, wait_until

NAMES = [f"host{number:02}" for number in range(20)]
LONG = "a-name-of-more-than-sixteen-characters.and-then-some.example.com"
POOLS = [ipaddress.ip_network(text) for text in ("100.64.0.0/10", "172.16.0.0/12", "10.0.0.0/8")]


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes alice's tunnels as root."""
    return Vpn(lab)


def call_it(vpn: Vpn, *names: str) -> None:
    """Let alice's ssh_config give the server NAMES."""
    lines = [f"Host {name}\n  HostName server\n  HostKeyAlias server\n" for name in names]
    text = "".join([*lines, "Host *\n  User root\n"])
    vpn.lab.gateway.write(f"{HOME}/.ssh/config", text)


def records(vpn: Vpn) -> dict[str, dict[str, Any]]:
    """Return all tunnels of `status --json`, by name."""
    found = json.loads(vpn.lab.sshvpn("status", "--json").stdout)["tunnels"]
    return {record["name"]: record for record in found}


def refused(vpn: Vpn, code: int, *args: str) -> str:
    """Assert that `up ARGS` ends with CODE and leaves all as it was; return what it said."""
    with vpn.lab.unchanged():
        result = vpn.lab.sshvpn("up", *args, check=False)
        assert result.returncode == code, result
        assert 1 <= len(result.stderr.splitlines()) <= 2, result.stderr
    return result.stderr


def ip_lines(machine: LabMachine) -> list[str]:
    """Return the addresses, routes and rules of MACHINE, a line each."""
    script = "ip -o address; ip route show table all; ip -6 route show table all; ip rule"
    return machine.run(["sh", "-c", script], user="root").stdout.splitlines()


def add_adapter(machine: LabMachine, name: str) -> None:
    """Give MACHINE an adapter that is up, without an address."""
    machine.ip("link", "add", name, "type", "bridge")
    machine.ip("link", "set", name, "addrgenmode", "none")
    machine.ip("link", "set", name, "up")


# Many -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "transport"), [(NAMES, "auto"), (NAMES[:3], "w")], ids=["twenty", "three, w"]
)
def test_many_hosts_are_up_together_and_none_touches_another(
    vpn: Vpn, names: list[str], transport: str
) -> None:
    call_it(vpn, *names)
    gateway, server = vpn.lab.gateway, vpn.lab.server
    words = ("--lan", "--no-announce", "--transport", transport)
    with vpn.lab.unchanged():
        out = vpn.lab.sshvpn("up", *names, *words, timeout=180).stdout
        assert [line for line in out.splitlines() if line.endswith(" is up")] == [
            f"{name} is up" for name in names
        ]
        seen = records(vpn)
        assert set(seen) == set(names)
        assert {record["state"] for record in seen.values()} == {"running"}
        assert len({record["device"] for record in seen.values()}) == len(names)
        assert len({record["pid"] for record in seen.values()}) == len(names)
        nets = [
            ipaddress.ip_interface(address).network
            for record in seen.values()
            for address in record["local_addresses"]
        ]
        assert len(set(nets)) == 2 * len(names)
        for machine in (gateway, server):
            tables = machine.run(["nft", "list", "tables"], user="root").stdout
            assert len(set(re.findall(r"sshvpn_\w+", tables))) == len(names), tables
        one_goes_alone(vpn, seen, names[7 % len(names)])
        vpn.lab.sshvpn("down", "--all", timeout=120)


def one_goes_alone(vpn: Vpn, seen: dict[str, dict[str, Any]], name: str) -> None:
    """Take NAME down, and assert that nothing but what is its own is gone."""
    gone = seen[name]
    before = {machine: vpn.lab.machines[machine].dump() for machine in ("gateway", "server")}
    vpn.lab.sshvpn("down", name)
    for machine, text in before.items():
        after = vpn.lab.machines[machine].dump()
        # Whatever their order: a table that is loaded anew goes to the end.
        added = Counter(after.splitlines()) - Counter(text.splitlines())
        assert not added, (machine, added)
    for address in ip_lines(vpn.lab.gateway):
        assert gone["device"] + " " not in address
        assert gone["local_address"].partition("/")[0] not in address
    for other, record in records(vpn).items():
        assert record == {**seen[other], **{k: record[k] for k in ("rtt_ms", *BYTES)}}
        page = f"http://{record['remote_address'].partition('/')[0]}:8080/"
        for asker in (vpn.lab.gateway, vpn.lab.lan):
            assert fetch(asker, page), f"{other} carries nothing for {asker.name}"
    assert len(records(vpn)) == len(seen) - 1


BYTES = ("rx_bytes", "tx_bytes")


def test_several_hosts_want_one_password_of_sudo(lab: Lab) -> None:
    vpn = Vpn(lab, sudo=False)
    call_it(vpn, *NAMES[:3])
    terminal = lab.sshvpn_pty("up", *NAMES[:3], "--no-lan")
    terminal.expect_exact("password for alice: ")
    terminal.sendline(ALICE_PASSWORD)
    assert exit_code(terminal, 40) == 0, terminal.before
    assert "password" not in terminal.before
    assert set(records(vpn)) == set(NAMES[:3])
    lab.sshvpn("down", "--all")


def test_one_host_that_fails_leaves_the_others_up(vpn: Vpn) -> None:
    call_it(vpn, "first", "second")
    vpn.lab.gateway.write(
        f"{HOME}/.ssh/config",
        vpn.lab.gateway.read(f"{HOME}/.ssh/config") + "Host away\n  HostName 203.0.113.99\n",
    )
    words = ("--no-lan", "--timeout", "4")
    result = vpn.lab.sshvpn("up", "first", "away", "second", *words, check=False)
    assert result.returncode == 6, result
    assert "away" in result.stderr
    assert set(records(vpn)) == {"first", "second"}
    vpn.lab.sshvpn("down", "--all")


def test_two_tunnels_share_two_services_of_one_port_at_two_adapters(lab: Lab) -> None:
    lab2 = lab.lan2
    vpn = Vpn(lab)
    call_it(vpn, "first", "second")
    with lab.unchanged():
        for name, interface, page in (("first", "lan0", "8888"), ("second", "lan1", "8888:8080")):
            lab.sshvpn("up", name, "--lan", "--lan-interface", interface, "--publish", page)
        assert "notebook" in fetch(lab.lan, "http://192.168.77.1:8888/")
        assert "server" in fetch(lab2, "http://192.168.78.1:8888/")
        lab.sshvpn("down", "first")
        assert not fetch(lab.lan, "http://192.168.77.1:8888/", 0.5)
        assert "server" in fetch(lab2, "http://192.168.78.1:8888/")
        lab.sshvpn("down", "second")


def test_a_network_that_another_tunnel_leads_to_is_taken(vpn: Vpn) -> None:
    call_it(vpn, "first", "second")
    vpn.lab.sshvpn("up", "first", "--no-lan", "--route", "10.20.0.0/24")
    said = refused(vpn, 7, "second", "--no-lan", "--route", "10.20.0.0/24")
    assert "10.20.0.0/24" in said
    assert "inner" in fetch(vpn.lab.gateway, "http://10.20.0.10:8000/")
    vpn.lab.sshvpn("down")


# Addresses ------------------------------------------------------------------------------------


def usual(vpn: Vpn) -> dict[str, Any]:
    """Return the record of a tunnel that was up for a moment."""
    vpn.up("server", "--no-lan")
    record = vpn.record()
    vpn.down()
    return record


def test_the_addresses_are_those_of_the_last_time(vpn: Vpn) -> None:
    first, second = usual(vpn), usual(vpn)
    for key in ("local_addresses", "remote_addresses"):
        assert first[key] == second[key]


@pytest.mark.parametrize("side", ["gateway", "server"])
def test_addresses_that_a_side_has_are_left_to_it(vpn: Vpn, side: str) -> None:
    before = usual(vpn)
    machine = vpn.lab.machines[side]
    taken = [ipaddress.ip_interface(cidr).network for cidr in before["local_addresses"]]
    add_adapter(machine, "other")
    # An address in the one, and a route to a network around the other.
    machine.ip("address", "add", f"{taken[0][2]}/24", "dev", "other")
    machine.ip("-6", "route", "add", str(taken[1].supernet(16)), "dev", "other")
    with vpn.lab.unchanged():
        vpn.up("server", "--no-lan")
        record = vpn.record()
        four, six = (ipaddress.ip_interface(cidr).network for cidr in record["local_addresses"])
        assert not four.overlaps(ipaddress.ip_network(f"{taken[0][2]}/24", strict=False))
        assert not six.overlaps(taken[1].supernet(16))
        for address in record["remote_addresses"]:
            host = ipaddress.ip_interface(address).ip
            url = f"http://{f'[{host}]' if host.version == 6 else host}:8080/"
            assert "server" in fetch(vpn.lab.gateway, url)
        vpn.down()
    machine.ip("link", "delete", "other")


def test_a_gateway_and_a_server_in_the_pools_get_others(vpn: Vpn) -> None:
    gateway, server = vpn.lab.gateway, vpn.lab.server
    for machine, pool in ((gateway, POOLS[0]), (server, POOLS[1])):
        add_adapter(machine, "pool")
        machine.ip("address", "add", f"{pool[1]}/{pool.prefixlen}", "dev", "pool")
    with vpn.lab.unchanged():
        vpn.up("server", "--no-lan")
        local = ipaddress.ip_interface(vpn.record()["local_address"])
        assert not any(local.network.overlaps(pool) for pool in POOLS[:2])
        assert local.network.subnet_of(POOLS[2])  # type: ignore[arg-type]
        assert not local.network.overlaps(ipaddress.ip_network("10.20.0.0/24"))
        vpn.down()
    for machine in (gateway, server):
        machine.ip("link", "delete", "pool")


@pytest.mark.parametrize("cidr", ["192.168.77.5/30", "10.20.0.77/30", "fd77::5/126"])
def test_an_address_of_ones_own_that_collides_is_taken(vpn: Vpn, cidr: str) -> None:
    assert cidr in refused(vpn, 7, "server", "--no-lan", "--address", cidr)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network", ["192.168.77.0/24", "192.168.0.0/16", "192.168.77.128/25", "fd77::/48"]
)
def test_a_route_over_ones_own_lan_is_refused(vpn: Vpn, network: str) -> None:
    said = refused(vpn, 2, "server", "--lan", "--route", network)
    assert network in said
    assert "lan0" in said, "the reason is the network of that adapter"


def test_a_route_around_ones_own_lan_goes_with_an_exception(vpn: Vpn) -> None:
    with vpn.lab.unchanged():
        vpn.up("server", "--lan", "--route", "192.168.0.0/16", "--exclude", "192.168.77.0/24")
        assert fetch(vpn.lab.lan, f"http://{vpn.record()['remote_address'].split('/')[0]}:8080/")
        vpn.down()


@pytest.mark.parametrize("name", ["exactly-sixteen-", LONG, "a@b:c+d_e"])
def test_a_name_of_any_length_has_a_device(vpn: Vpn, name: str) -> None:
    with vpn.lab.unchanged():
        vpn.up("server", "--no-lan", f"--name={name}")
        record = vpn.record()
        assert record["name"] == name
        assert len(record["device"]) < 16
        vpn.lab.sshvpn("down", "--", name)


def test_a_host_of_any_length_has_a_device(vpn: Vpn) -> None:
    call_it(vpn, LONG, LONG[:-1])  # cut to any length of the kernel's, they would be one
    with vpn.lab.unchanged():
        vpn.lab.sshvpn("up", LONG, LONG[:-1], "--no-lan")
        assert set(records(vpn)) == {LONG, LONG[:-1]}
        vpn.lab.sshvpn("down", LONG)
        assert set(records(vpn)) == {LONG[:-1]}
        vpn.lab.sshvpn("down", LONG[:-1])


def test_a_port_that_another_tunnel_publishes_is_taken(vpn: Vpn) -> None:
    call_it(vpn, "first", "second")
    with vpn.lab.unchanged():
        vpn.up("first", "--lan", "--publish", "8888")
        said = refused(vpn, 7, "second", "--lan", "--publish", "8888")
        assert "port 8888 of 192.168.77.1 is published by another tunnel" in said
        vpn.up("second", "--lan", "--publish", "9999:8888")
        vpn.lab.server.sshd.kill_sessions()
        wait_until(lambda: {one["reconnects"] for one in records(vpn).values()} == {1}, 20)
        assert vpn.unreachable(vpn.published()) == []
        assert vpn.unreachable({"http://192.168.77.1:9999/": "notebook"}) == []
        vpn.lab.sshvpn("down", "--all")

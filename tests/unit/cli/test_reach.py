"""What ``up`` says in the end, as text."""

from __future__ import annotations

from typing import Any

import pytest

from sshvpn.cli.reach import reach
from sshvpn.model import NO_LAN
from tests.unit.cli.records import service, tunnel


def said(**changes: Any) -> str:
    return "\n".join(reach(tunnel(**changes)))


def test_one_network_is_one_line_for_each_system() -> None:
    assert said() == (
        "  here         alice@vpn.example.com is 100.64.0.2\n"
        "               and fd5a::2\n"
        "  routes       10.20.0.0/16\n"
        "  published    http://192.168.1.5:8888/ -> localhost:8888\n"
        "  shared with  192.168.1.0/24 on eth0\n"
        "  A machine there that has another router needs one line, as administrator:\n"
        "    Linux     ip route add 10.20.0.0/16 via 192.168.1.5\n"
        "    macOS     sudo route -n add -net 10.20.0.0/16 192.168.1.5\n"
        "    Windows   route -p ADD 10.20.0.0 MASK 255.255.0.0 192.168.1.5\n"
        "    a router  sshvpn routes office --format dnsmasq|openwrt"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"routes": ["10.20.0.0/16", "10.30.0.0/16"]},
        {"routes": ["0.0.0.0/0", "::/0"]},
        {
            "lan": [
                {"interface": "eth0", "network": "192.168.1.0/24", "address": "192.168.1.5"},
                {"interface": "eth1", "network": "192.168.2.0/24", "address": "192.168.2.5"},
            ]
        },
    ],
    ids=["two networks", "everything", "two LANs"],
)
def test_what_is_longer_has_a_command(changes: dict[str, Any]) -> None:
    assert said(**changes).splitlines()[-2:] == [
        "  What a machine there needs, or the router for all of them:",
        "    sshvpn routes office --format linux|macos|windows|dnsmasq|openwrt",
    ]


def test_a_tunnel_for_this_machine_alone_says_how_it_is_shared() -> None:
    assert said(lan=[], routes=[], published=[]) == (
        "  here         alice@vpn.example.com is 100.64.0.2\n"
        "               and fd5a::2\n"
        "  shared with  nobody: sshvpn up office --lan shares it"
    )


def test_who_wanted_it_alone_is_not_told_how_it_is_shared() -> None:
    assert reach(tunnel(lan=[]), [NO_LAN])[-1] == "  shared with  nobody"


def test_without_routes_the_remote_host_alone_can_be_reached() -> None:
    assert said(routes=[]).splitlines()[-1] == (
        "  What a machine there needs to reach 100.64.0.2: sshvpn routes office"
    )


def test_a_remote_host_without_an_address_of_ipv6_has_the_other_one() -> None:
    lines = said(remote_addresses=["100.64.0.2/30"]).splitlines()
    assert lines[0] == "  here         alice@vpn.example.com is 100.64.0.2"


def test_an_address_of_the_lan_is_no_network_behind_the_host() -> None:
    lines = said(routes=["192.168.1.77/32"]).splitlines()
    assert "  there it is  192.168.1.77" in lines
    assert not any(line.startswith("  routes") for line in lines)


def test_it_stays_within_a_dozen_lines_of_80_cells() -> None:
    routes = [f"10.{number}.0.0/16" for number in range(40)]
    lan = [
        {"interface": "eth0", "network": "192.168.1.0/24", "address": "192.168.1.5"},
        {"interface": "eth0", "network": "fd00:1:2:3::/64", "address": "fd00:1:2:3::5"},
    ]
    published = [service()] * 9
    for changes in ({"routes": routes}, {"routes": routes[:1]}):
        lines = reach(tunnel(lan=lan, published=published, **changes))
        assert len(lines) <= 12
        assert max(map(len, lines)) <= 80
    assert any(line.endswith("and 7 more: sshvpn status office") for line in lines)

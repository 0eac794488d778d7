"""What machines of a LAN need for a tunnel's networks, in the words of each system."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sshvpn.client_routes import (
    Lan,
    System,
    client_routes,
    destinations_of,
    lans_of,
    one_line_per_system,
)

FOUR = Lan("lan0", "192.168.77.0/24", "192.168.77.1")
SIX = Lan("lan0", "fd77::/64", "fd77::1")
ROUTED = Lan("lan0", "192.168.77.0/24", "192.168.77.1", router="192.168.77.254")
WANTED = ["10.20.0.0/16", "100.64.0.2/32", "fd20::/48"]


def test_linux() -> None:
    assert client_routes(WANTED, [FOUR, SIX], System.LINUX) == (
        "# as root, on a machine of 192.168.77.0/24, until its next boot:\n"
        "ip route add 10.20.0.0/16 via 192.168.77.1\n"
        "ip route add 100.64.0.2/32 via 192.168.77.1\n"
        "\n"
        "# as root, on a machine of fd77::/64, until its next boot:\n"
        "ip -6 route add fd20::/48 via fd77::1\n"
    )


def test_macos() -> None:
    assert client_routes(WANTED, [FOUR, SIX], System.MACOS) == (
        'echo "on a Mac of 192.168.77.0/24, until its next boot:"\n'
        "sudo route -n add -net 10.20.0.0/16 192.168.77.1\n"
        "sudo route -n add -net 100.64.0.2/32 192.168.77.1\n"
        "\n"
        'echo "on a Mac of fd77::/64, until its next boot:"\n'
        "sudo route -n add -inet6 fd20::/48 fd77::1\n"
    )


def test_windows() -> None:
    assert client_routes(WANTED, [FOUR, SIX], System.WINDOWS) == (
        'echo "as administrator, on a machine of 192.168.77.0/24, for ever:"\n'
        "route -p ADD 10.20.0.0 MASK 255.255.0.0 192.168.77.1\n"
        "route -p ADD 100.64.0.2 MASK 255.255.255.255 192.168.77.1\n"
        "\n"
        'echo "as administrator, on a machine of fd77::/64, for ever:"\n'
        "route -p ADD fd20::/48 fd77::1\n"
    )


def test_dnsmasq_has_the_default_route_that_clients_would_lose() -> None:
    routes = "10.20.0.0/16,192.168.77.1,100.64.0.2/32,192.168.77.1"
    assert client_routes(WANTED, [ROUTED, SIX], System.DNSMASQ) == (
        "# dnsmasq.conf of the DHCP server for 192.168.77.0/24\n"
        "# a client that is given routes ignores the router of option 3 (RFC 3442), so the\n"
        "# default route is among them: by 192.168.77.254, as this gateway has it\n"
        f"dhcp-option=option:classless-static-route,0.0.0.0/0,192.168.77.254,{routes}\n"
        "# the same for Windows before Vista\n"
        f"dhcp-option=249,0.0.0.0/0,192.168.77.254,{routes}\n"
        "\n"
        "# for fd77::/64: DHCPv6 has no routes; router advertisements do (RFC 4191), and\n"
        "# dnsmasq has no option for those; radvd has, on this gateway, in radvd.conf:\n"
        "#   interface lan0 {\n"
        "#     AdvSendAdvert on;\n"
        "#     AdvDefaultLifetime 0;\n"
        "#     route fd20::/48 { };\n"
        "#   };\n"
    )


def test_a_router_that_is_not_known_has_to_be_written_in() -> None:
    text = client_routes(["10.20.0.0/16"], [FOUR], System.DNSMASQ)
    assert "write the router's address in the place of ROUTER" in text
    line = "dhcp-option=option:classless-static-route,0.0.0.0/0,ROUTER,10.20.0.0/16,192.168.77.1"
    assert line in text.splitlines()


def test_one_dnsmasq_for_several_networks_needs_tags() -> None:
    other = Lan("lan1", "192.168.78.0/24", "192.168.78.1")
    assert "tag:ADAPTER" in client_routes(WANTED[:1], [FOUR, other], System.DNSMASQ)
    assert "tag:ADAPTER" not in client_routes(WANTED[:1], [FOUR], System.DNSMASQ)


def test_openwrt() -> None:
    assert client_routes(["10.20.0.0/16", "fd20::/48"], [ROUTED, SIX], System.OPENWRT) == (
        "# on the OpenWrt router of 192.168.77.0/24, whose interface there is called lan\n"
        "uci add network route\n"
        "uci set network.@route[-1].interface='lan'\n"
        "uci set network.@route[-1].target='10.20.0.0/16'\n"
        "uci set network.@route[-1].gateway='192.168.77.1'\n"
        "uci commit network\n"
        "/etc/init.d/network reload\n"
        "# or by DHCP, so that machines go to this gateway at once (RFC 3442):\n"
        "#   router=$(uci get network.lan.ipaddr); router=${router%%[/ ]*}\n"
        '#   uci add_list dhcp.lan.dhcp_option="121,0.0.0.0/0,$router,10.20.0.0/16,192.168.77.1"\n'
        "#   uci commit dhcp\n"
        "#   /etc/init.d/dnsmasq restart\n"
        "\n"
        "# on the OpenWrt router of fd77::/64, whose interface there is called lan\n"
        "uci add network route6\n"
        "uci set network.@route6[-1].interface='lan'\n"
        "uci set network.@route6[-1].target='fd20::/48'\n"
        "uci set network.@route6[-1].gateway='fd77::1'\n"
        "uci commit network\n"
        "/etc/init.d/network reload\n"
    )


@pytest.mark.skipif(not shutil.which("busybox"), reason="the shell of OpenWrt is busybox's")
@pytest.mark.parametrize("address", ["192.168.77.254", "192.168.77.254/24 10.0.0.1/8"])
def test_the_router_s_shell_finds_its_own_address(tmp_path: Path, address: str) -> None:
    """It is told a list of addresses with their prefixes, where there is one."""
    text = client_routes(["10.20.0.0/16"], [FOUR], System.OPENWRT)
    by_dhcp = "\n".join(line[3:] for line in text.splitlines() if line.startswith("#   "))
    (tmp_path / "uci").write_text(f'#!/bin/sh\n[ $1 = get ] && echo "{address}" || echo "$@"\n')
    (tmp_path / "uci").chmod(0o755)
    done = subprocess.run(
        ["busybox", "sh", "-e"],
        input=by_dhcp.replace("/etc/init.d/dnsmasq", "true"),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout.splitlines()[0] == (
        "add_list dhcp.lan.dhcp_option=121,0.0.0.0/0,192.168.77.254,10.20.0.0/16,192.168.77.1"
    )


def test_of_a_family_that_the_lan_has_no_gateway_for_only_a_comment_is_left() -> None:
    text = client_routes(WANTED, [FOUR], System.LINUX)
    assert text.endswith(
        "\n\n# no way from lan0 to fd20::/48: this gateway has no IPv6 address there\n"
    )
    assert "-6" not in text
    text = client_routes(WANTED, [SIX], System.WINDOWS)
    assert 'echo "no way from lan0 to 10.20.0.0/16, 100.64.0.2/32: this gateway has no' in text
    assert "MASK" not in text


def test_each_network_of_the_lan_has_its_own_gateway() -> None:
    other = Lan("lan1", "192.168.78.0/24", "192.168.78.1")
    text = client_routes(["10.20.0.0/16"], [FOUR, other], System.LINUX)
    assert re.findall("via (.*)", text) == ["192.168.77.1", "192.168.78.1"]


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        (
            System.LINUX,
            [
                "ip route add 0.0.0.0/1 via 192.168.77.1",
                "ip route add 128.0.0.0/1 via 192.168.77.1",
                "ip -6 route add ::/1 via fd77::1",
                "ip -6 route add 8000::/1 via fd77::1",
            ],
        ),
        (
            System.WINDOWS,
            [
                "route -p ADD 0.0.0.0 MASK 128.0.0.0 192.168.77.1",
                "route -p ADD 128.0.0.0 MASK 128.0.0.0 192.168.77.1",
                "route -p ADD ::/1 fd77::1",
                "route -p ADD 8000::/1 fd77::1",
            ],
        ),
    ],
)
def test_everything_is_two_halves_so_that_a_machine_keeps_its_default_route(
    system: System, lines: list[str]
) -> None:
    text = client_routes(["0.0.0.0/0", "::/0"], [FOUR, SIX], system)
    assert [line for line in text.splitlines() if " via " in line or line[:5] == "route"] == lines


@pytest.mark.parametrize("system", [System.DNSMASQ, System.OPENWRT])
def test_everything_by_way_of_the_router_would_go_in_circles(system: System) -> None:
    text = client_routes(["0.0.0.0/0", "::/0"], [FOUR, SIX], system)
    assert text.count("would send this gateway its own packets") == 2
    assert all(line.startswith("#") for line in text.splitlines() if line)


@pytest.mark.parametrize("count", [35, 36])
def test_more_routes_than_an_option_holds_are_told(count: int) -> None:
    """The default route is five bytes, one of eight bits or fewer six, of sixteen seven."""
    wanted = [f"10.{number}.0.0/16" for number in range(count)]
    text = client_routes(wanted, [FOUR], System.DNSMASQ)
    assert ("more routes than a DHCP option holds" in text) == (count > 35)
    assert ("classless-static-route" in text) == (count <= 35)


@pytest.mark.parametrize("system", [System.LINUX, System.MACOS, System.WINDOWS])
def test_a_comment_does_no_harm_where_it_is_taken_for_a_command(system: System) -> None:
    """An interactive zsh knows no comments; what is between quotes must end there."""
    text = client_routes(WANTED, [FOUR], system)
    for line in text.splitlines():
        if line.startswith(("#", "echo")):
            assert not re.search(r"[;&|<>`$%^'\\(){}*?!\[\]]", line), line


# What goes in -------------------------------------------------------------------------------


def test_destinations_are_the_routes_and_the_remote_host_itself() -> None:
    found = destinations_of(["fd20::/48", "10.20.0.0/16"], ["100.64.0.2/30", "fd5a::2/126"])
    assert found == ["10.20.0.0/16", "100.64.0.2/32", "fd20::/48", "fd5a::2/128"]


def test_what_is_inside_of_another_destination_is_left_out() -> None:
    assert destinations_of(["0.0.0.0/0", "10.20.0.0/16"], ["100.64.0.2/30"]) == ["0.0.0.0/0"]
    assert destinations_of(["10.0.0.0/8", "10.0.0.0/8", "10.20.0.0/16"], []) == ["10.0.0.0/8"]


def test_lans_are_read_once_each_with_the_router_that_is_theirs() -> None:
    records = [
        {"interface": "lan0", "network": "192.168.77.0/24", "address": "192.168.77.1"},
        {"interface": "lan0", "network": "172.20.0.0/16", "address": "172.20.0.1"},
        {"interface": "lan0", "network": "fd77::/64", "address": "fd77::1"},
        {"interface": "wlan0", "network": "192.168.77.0/24", "address": "192.168.77.2"},
    ]
    assert lans_of(records, {"lan0": "192.168.77.254"}) == [
        ROUTED,
        Lan("lan0", "172.20.0.0/16", "172.20.0.1"),
        SIX,
    ]


def test_one_line_for_each_system() -> None:
    assert one_line_per_system(["10.20.0.0/16"], [FOUR, SIX]) == {
        "Linux": ["ip route add 10.20.0.0/16 via 192.168.77.1"],
        "macOS": ["sudo route -n add -net 10.20.0.0/16 192.168.77.1"],
        "Windows": ["route -p ADD 10.20.0.0 MASK 255.255.0.0 192.168.77.1"],
    }


def test_without_one_way_for_all_there_is_no_line() -> None:
    other = Lan("lan1", "192.168.78.0/24", "192.168.78.1")
    assert one_line_per_system(["10.20.0.0/16"], [FOUR, other]) == {}
    assert one_line_per_system(["fd20::/48"], [FOUR]) == {}
    assert one_line_per_system([], [FOUR]) == {}


@pytest.mark.parametrize("system", list(System))
def test_the_page_shows_what_is_printed(system: System) -> None:
    page = (Path(__file__).parents[2] / "docs" / "lan-clients.md").read_text()
    wanted = destinations_of(["10.20.0.0/16", "fd20::/48"], ["100.64.0.2/30", "fd5a::2/126"])
    assert client_routes(wanted, [ROUTED, SIX], system) in page

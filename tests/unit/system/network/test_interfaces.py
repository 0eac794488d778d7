"""Which adapters and addresses are the LAN's, and what netifaces' words mean."""

from __future__ import annotations

import socket

import pytest

from sshvpn.model import InterfaceAddress
from sshvpn.system.network.adapter import Adapter, is_lan_adapter, is_lan_address, prefix_length
from sshvpn.system.network.interfaces import SystemInterfaces, _addresses_of, _without_label

ETH0 = Adapter("eth0")
DOCKER0 = Adapter("docker0", kind="bridge")


@pytest.mark.parametrize(
    "adapter",
    [
        ETH0,
        Adapter("wlp3s0"),
        Adapter("br0", kind="bridge"),
        Adapter("br-lan", kind="bridge"),
        Adapter("vmbr0", kind="bridge"),
        Adapter("bond0", kind="bond"),
        Adapter("team0", kind="team"),
        Adapter("eth0.5", kind="vlan", lower=ETH0),
        Adapter("office", kind="vlan", lower=Adapter("br0", kind="bridge")),
        Adapter("vlan-of-a-port", kind="vlan", lower=Adapter("eth0", is_up=False, master=9)),
        Adapter("mac0", kind="macvlan", lower=Adapter("eth0.5", kind="vlan", lower=ETH0)),
        Adapter("mac0", kind="macvlan", lower=None),
        Adapter("eth0", kind="ipvlan", lower=None),
        Adapter("eth0", kind="veth"),
        Adapter("host0", kind="veth"),
        Adapter("lan0", kind="veth"),
    ],
    ids=lambda adapter: f"{adapter.name}-{adapter.kind or 'physical'}",
)
def test_the_lan(adapter: Adapter) -> None:
    assert is_lan_adapter(adapter)


@pytest.mark.parametrize(
    "adapter",
    [
        Adapter("lo", is_loopback=True, is_broadcast=False),
        Adapter("lo", is_loopback=True),
        Adapter("eth0", is_up=False),
        Adapter("eth0", is_broadcast=False),
        Adapter("eth0", master=3),
        Adapter("wwan0"),
        Adapter("wwp0s20u4"),
        Adapter("dummy0", kind="dummy"),
        Adapter("ifb0", kind="ifb"),
        Adapter("tun0", kind="tun", is_broadcast=False),
        Adapter("tap0", kind="tun"),
        Adapter("ztabcdefgh", kind="tun"),
        Adapter("wg0", kind="wireguard", is_broadcast=False),
        Adapter("ppp0", kind="ppp", is_broadcast=False),
        Adapter("vxlan0", kind="vxlan"),
        Adapter("ovs-system", kind="openvswitch"),
        DOCKER0,
        Adapter("docker_gwbridge", kind="bridge"),
        Adapter("br-0123456789ab", kind="bridge"),
        Adapter("virbr0", kind="bridge"),
        Adapter("lxcbr0", kind="bridge"),
        Adapter("lxdbr0", kind="bridge"),
        Adapter("incusbr0", kind="bridge"),
        Adapter("podman1", kind="bridge"),
        Adapter("cni-podman0", kind="bridge"),
        Adapter("cni0", kind="bridge"),
        Adapter("vz-zone", kind="bridge"),
        Adapter("vboxnet0"),
        Adapter("vmnet8"),
        Adapter("veth12ab34", kind="veth"),
        Adapter("ve-machine", kind="veth"),
        Adapter("vb-machine", kind="veth"),
        Adapter("cali0123456789a", kind="veth"),
        Adapter("lxc0123456789a", kind="veth"),
        Adapter("cilium_host", kind="veth"),
        Adapter("eth0", kind="veth", master=2),
        Adapter("mac0", kind="macvlan", lower=DOCKER0),
        Adapter("mac0", kind="macvlan", lower=Adapter("dummy0", kind="dummy")),
        Adapter("vlan5", kind="vlan", lower=Adapter("tap0", kind="tun")),
        Adapter("sshvpn0", kind="tun"),
        Adapter("sshvpn0", kind="veth"),
    ],
    ids=lambda adapter: f"{adapter.name}-{adapter.kind or 'physical'}",
)
def test_not_the_lan(adapter: Adapter) -> None:
    assert not is_lan_adapter(adapter)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", True),
        ("172.16.0.1", True),
        ("172.31.255.254", True),
        ("172.32.0.1", False),
        ("192.168.1.5", True),
        ("192.0.2.2", False),
        ("198.18.0.1", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.1.1", False),
        ("8.8.8.8", False),
        ("fd12:3456::1", True),
        ("fc00::1", True),
        ("fe80::1", False),
        ("2001:db8::1", False),
        ("::1", False),
    ],
)
def test_an_address_of_the_lan_is_rfc_1918_or_unique_local(address: str, *, expected: bool) -> None:
    assert is_lan_address(address) is expected


@pytest.mark.parametrize(
    ("netmask", "is_ipv6", "length"),
    [
        ("255.255.255.0", False, 24),
        ("255.255.255.255", False, 32),
        ("255.0.0.0", False, 8),
        ("0.0.0.0", False, 0),
        (None, False, 32),
        ("ffff:ffff:ffff:ffff::/64", True, 64),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", True, 128),
        ("ffff:ffff:ffff:ffff::", True, 64),
        (None, True, 128),
    ],
)
def test_netmasks(netmask: str | None, is_ipv6: bool, length: int) -> None:
    assert prefix_length(netmask, is_ipv6=is_ipv6) == length


def test_link_local_addresses_are_left_out() -> None:
    found = {
        2: [
            {"addr": "169.254.7.7", "netmask": "255.255.0.0"},
            {"addr": "10.1.2.3", "netmask": "255.255.0.0", "broadcast": "10.1.255.255"},
            {"peer": "10.9.9.9"},
        ],
        10: [
            {"addr": "fe80::1%eth0", "netmask": "ffff:ffff:ffff:ffff::/64"},
            {"addr": "fd00::2", "netmask": "ffff:ffff:ffff:ffff::/64"},
        ],
        17: [{"addr": "02:fc:00:00:00:01"}],
    }
    assert list(_addresses_of("eth0", found)) == [
        InterfaceAddress("eth0", "10.1.2.3", 16),
        InterfaceAddress("eth0", "fd00::2", 64),
    ]


def test_an_address_by_dhcpv6_is_in_the_network_of_the_one_beside_it() -> None:
    whole = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    found: dict[int, list[dict[str, str]]] = {
        socket.AF_INET: [{"addr": "192.168.1.9", "netmask": "255.255.255.255"}],
        socket.AF_INET6: [
            {"addr": "fd00:1::abc", "netmask": f"{whole}/128"},
            {"addr": "fd00:1::5:6:7", "netmask": "ffff:ffff:ffff:ffff::/64"},
            {"addr": "fd00:2::abc", "netmask": f"{whole}/128"},
        ],
    }
    told = [(one.address, one.network) for one in _addresses_of("lo", found)]
    assert told == [
        ("192.168.1.9", "192.168.1.9/32"),
        ("fd00:1::abc", "fd00:1::/64"),
        ("fd00:1::5:6:7", "fd00:1::/64"),
        ("fd00:2::abc", "fd00:2::abc/128"),
    ]


def test_an_alias_is_its_adapter() -> None:
    assert _without_label("eth0:1") == "eth0"
    assert _without_label("eth0") == "eth0"


def test_this_machine_has_loopback() -> None:
    interfaces = SystemInterfaces()
    assert "lo" in interfaces.names()
    assert InterfaceAddress("lo", "127.0.0.1", 8) in interfaces.addresses("lo")


def test_an_adapter_that_is_not_there_has_no_addresses() -> None:
    assert list(SystemInterfaces().addresses("sshvpn-none")) == []


def test_loopback_is_not_the_lan_and_has_no_router() -> None:
    interfaces = SystemInterfaces()
    assert all(address.interface != "lo" for address in interfaces.lan())
    loopback = InterfaceAddress("lo", "127.0.0.1", 8)
    assert str(interfaces.network_of(loopback)) == "127.0.0.0/8 on lo"

"""The server's end as commands: their text, their order, and what is refused."""

from __future__ import annotations

import dataclasses
import ipaddress
import shlex
import subprocess
from collections.abc import Sequence

import pytest

from sshvpn.errors import RefusedError
from sshvpn.remote.protocol import Adapter, Facts, Publication, RemoteEnd, Rights
from sshvpn.remote.render import expected_device, render

LABEL = "3e8_0123456789"
FACTS = Facts(
    protocol=1,
    user="root",
    uid=0,
    rights=Rights.ROOT,
    rights_code="",
    rights_reason="",
    system="Linux 6.18.0",
    ip="iproute2",
    firewall="nft",
    device=None,
    addresses=(),
    routes=(),
    adapters=tuple(Adapter(name, 0, 0, 0, 0, 0, 1) for name in ("all", "default", "eth0")),
    closed=("4 iptables-nft FORWARD", "46 nft inet firewalld filter_INPUT input"),
    has_all_routes=True,
)
END = RemoteEnd(
    addresses=(ipaddress.ip_interface("10.83.0.2/30"),),
    masquerade=(ipaddress.ip_network("10.83.0.1/32"),),
    forward=("eth0",),
    published=(Publication("10.83.0.2", 80, "127.0.0.1", 8080),),
)
TYPED = """\
# sshd makes tun0 for the session, and takes it away with it
ip tuntap add dev tun0 mode tun
ip link set dev tun0 group 21587
nft -f - <<'EOF'
table inet sshvpn_3e8_0123456789
delete table inet sshvpn_3e8_0123456789
table inet sshvpn_3e8_0123456789 {
	chain raw {
		type filter hook prerouting priority -300; policy accept;
		iifname "tun0" ip daddr 127.0.0.0/8 drop
		iifname "tun0" ip saddr 127.0.0.0/8 drop
	}
	chain nat_in {
		type nat hook prerouting priority -105; policy accept;
		iifname "tun0" ip daddr 10.83.0.2 tcp dport 80 dnat ip to 127.0.0.1:8080
	}
	chain forward {
		type filter hook forward priority -5; policy accept;
		iifname "tun0" oifname "eth0" accept
		iifname "tun0" drop
		meta nfproto ipv4 iifname "eth0" oifname != "eth0" oifgroup != 21587 drop
		meta nfproto ipv6 iifname "eth0" oifname != "eth0" oifgroup != 21587 drop
	}
	chain nat_out {
		type nat hook postrouting priority 95; policy accept;
		ip saddr 10.83.0.1/32 oifname != { "lo", "tun0" } masquerade
	}
	chain guard {
		type filter hook postrouting priority 300; policy accept;
		oifname "tun0" meta nfproto ipv4 meta length <= 20 drop
	}
}
EOF
iptables-nft -w -I FORWARD -i tun0 -m comment --comment sshvpn_3e8_0123456789 -j ACCEPT
iptables-nft -w -I FORWARD -o tun0 -m conntrack --ctstate RELATED,ESTABLISHED \
-m comment --comment sshvpn_3e8_0123456789 -j ACCEPT
nft -f - <<'EOF'
insert rule inet firewalld filter_INPUT iifname "tun0" ct status dnat accept \
comment "sshvpn_3e8_0123456789"
EOF
sysctl -qw net/ipv4/conf/tun0/route_localnet=1
sysctl -qw net/ipv4/conf/tun0/forwarding=1
sysctl -qw net/ipv6/conf/tun0/force_forwarding=1
sysctl -qw net/ipv4/conf/eth0/forwarding=1
sysctl -qw net/ipv6/conf/eth0/force_forwarding=1
ip link set dev tun0 mtu 16380
ip address add 10.83.0.2/30 dev tun0
ip link set dev tun0 up
"""


def rendered(
    end: RemoteEnd = END, device: str = "tun0", owner: str | None = None, **facts: object
) -> list[str]:
    changed = dataclasses.replace(FACTS, **facts)  # type: ignore[arg-type]
    return render(end, changed, LABEL, device, owner)


def test_all_that_is_typed() -> None:
    assert "\n".join(rendered()) + "\n" == TYPED


def test_iptables_where_there_is_no_nft() -> None:
    six = Publication("fd83::2", 80, "fd20::10", 8080)
    lines = rendered(dataclasses.replace(END, published=(six,)), firewall="iptables", closed=())
    mark = "-m comment --comment sshvpn_3e8_0123456789"
    rules = [line.replace(f" {mark}", "") for line in lines if "tables" in line]
    assert all(mark in line for line in lines if "tables" in line)
    assert rules == [
        "iptables -w -t mangle -A POSTROUTING -o tun0 -m length --length 0:20 -j DROP",
        "iptables -w -t mangle -A FORWARD -i tun0 -o eth0 -j ACCEPT",
        "iptables -w -t mangle -A FORWARD -i tun0 -j DROP",
        "iptables -w -t mangle -A FORWARD -i eth0 ! -o eth0 -m devgroup ! --dst-group 21587"
        " -j DROP",
        "iptables -w -t nat -A POSTROUTING -s 10.83.0.1/32 -o lo -j ACCEPT",
        "iptables -w -t nat -A POSTROUTING -s 10.83.0.1/32 ! -o tun0 -j MASQUERADE",
        "ip6tables -w -t mangle -A FORWARD -i tun0 -o eth0 -j ACCEPT",
        "ip6tables -w -t mangle -A FORWARD -i tun0 -j DROP",
        "ip6tables -w -t mangle -A FORWARD -i eth0 ! -o eth0 -m devgroup ! --dst-group 21587"
        " -j DROP",
        "ip6tables -w -t nat -A PREROUTING -i tun0 -d fd83::2 -p tcp --dport 80"
        " -j DNAT --to-destination '[fd20::10]:8080'",
    ]


def test_a_device_for_a_login_with_sudo() -> None:
    assert rendered(device="sshvpnr5600", owner="1000")[:3] == [
        "ip tuntap add dev sshvpnr5600 mode tun user 1000",
        "ip link property add dev sshvpnr5600 altname tun5600",
        "ip link set dev sshvpnr5600 group 21587",
    ]


def test_a_device_for_several_streams_has_several_queues() -> None:
    lines = render(
        dataclasses.replace(END, is_guarded=False),
        FACTS,
        LABEL,
        "sshvpnr5600",
        "1000",
        has_queues=True,
    )
    assert lines[0] == "ip tuntap add dev sshvpnr5600 mode tun user 1000 multi_queue"


def test_busybox_makes_no_device_and_knows_no_groups() -> None:
    assert rendered(ip="busybox")[:2] == [
        "# sshd makes tun0 for the session, and takes it away with it",
        "echo 21587 >/sys/class/net/tun0/netdev_group",
    ]


def test_a_busybox_server_has_its_device_from_python() -> None:
    facts = dataclasses.replace(FACTS, ip="busybox", rights=Rights.SUDO, uid=1000)
    assert expected_device(facts) == ("tun5600", "1000")
    assert expected_device(facts, by_ssh=False) == ("sshvpnr5600", "1000")
    lines = render(END, facts, LABEL, *expected_device(facts))
    assert lines[0].startswith("python3 -ISc 'import fcntl, os; ")
    assert r'b"tun5600\x00' in lines[0] or r"b'\''tun5600" in lines[0] or "tun5600" in lines[0]
    assert not any("tuntap" in line or "altname" in line for line in lines)


def test_without_rights_nothing_is_typed() -> None:
    lines = rendered(rights=Rights.NONE, user="alice", rights_reason="sudo wants a password")
    assert lines == ["# alice may change nothing here: sudo wants a password"]


def test_what_an_adapter_has_already_is_not_written() -> None:
    adapters = (*FACTS.adapters[:2], Adapter("eth0", 1, 0, 0, 1, 0, 1))
    lines = rendered(adapters=adapters)
    assert not [line for line in lines if line.startswith("sysctl") and "eth0" in line]
    assert not [line for line in lines if "oifgroup" in line]


def test_an_adapter_that_only_tunnels_made_forward_is_closed_to_others() -> None:
    adapters = (*FACTS.adapters[:2], Adapter("eth0", 1, 0, 0, 1, 0, 1))
    before = (("net/ipv4/conf/eth0/forwarding", 0),)
    text = "\n".join(rendered(adapters=adapters, before=before))
    assert 'meta nfproto ipv4 iifname "eth0" oifname != "eth0" oifgroup != 21587 drop' in text
    assert 'meta nfproto ipv6 iifname "eth0" oifname != "eth0" oifgroup != 21587 drop' not in text


@pytest.mark.parametrize(
    ("of_all", "own", "is_changed"),
    [(0, 0, False), (0, 1, True), (1, 0, True), (1, 1, True), (0, 2, False), (2, 1, False)],
)
def test_strict_is_made_loose_where_strict_counts(of_all: int, own: int, is_changed: bool) -> None:
    adapters = tuple(
        Adapter(name, 0, value, 0, 0, 0, 1)
        for name, value in (("all", of_all), ("default", 0), ("eth0", own))
    )
    lines = rendered(dataclasses.replace(END, loose=("eth0",)), adapters=adapters)
    assert ("sysctl -qw net/ipv4/conf/eth0/rp_filter=2" in lines) is is_changed


def test_one_switch_of_ipv6_moves_all_and_routers_are_still_heard() -> None:
    adapters = tuple(
        Adapter(name, 0, 0, 0, None, 0, accept_ra)
        for name, accept_ra in (("all", 1), ("default", 1), ("eth0", 1), ("wan0", 0))
    )
    lines = [line for line in rendered(adapters=adapters) if "ipv6" in line]
    assert lines[1:] == [
        f"sysctl -qw net/ipv6/conf/{setting}"
        for setting in (
            "eth0/accept_ra=2", "eth0/forwarding=1", "tun0/accept_ra=2", "tun0/forwarding=1",
            "wan0/forwarding=1", "all/forwarding=1",
        )
    ]  # fmt: skip


def test_a_server_without_ipv6() -> None:
    adapters = tuple(Adapter(n, 0, 0, None, None, None) for n in ("all", "default", "eth0"))
    assert not [line for line in rendered(adapters=adapters) if "ipv6" in line]


@pytest.mark.parametrize(
    ("end", "firewall", "words"),
    [
        (RemoteEnd(forward=("nope0",)), "nft", "no adapter nope0"),
        (RemoteEnd(loose=("nope0",)), "nft", "no adapter nope0"),
        (END, None, "neither nft nor iptables"),
    ],
)
def test_what_the_agent_would_refuse(end: RemoteEnd, firewall: str | None, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        rendered(end, firewall=firewall)


def test_without_a_packet_filter_what_needs_none_is_made() -> None:
    end = RemoteEnd(addresses=END.addresses, is_guarded=False)
    assert rendered(end, firewall=None, closed=())[-1] == "ip link set dev tun0 up"


def tried(lines: Sequence[str]) -> str:
    """Return what a shell would run, one word a line, without running it."""
    script = "\n".join(lines)
    quiet = "ip() { :; }; nft() { cat >/dev/null; }; sysctl() { printf '%s\\n' \"$@\"; }; "
    done = subprocess.run(
        ["sh", "-c", quiet + script], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout + done.stderr


def test_what_a_hostile_server_says_is_no_command() -> None:
    bad = "x;echo$IFS(pwned)"
    closed = ("4 rm FORWARD", "4 iptables FORWARD;id", "46 nft inet a;b c forward", "46 nft")
    adapters = (*FACTS.adapters, Adapter(bad, 0, 0, 0, None, 0, 1))
    adapters = tuple(dataclasses.replace(one, force_forwarding6=None) for one in adapters)
    lines = rendered(closed=closed, adapters=adapters)
    assert not [line for line in lines if "-I" in line or "insert" in line]
    assert f"sysctl -qw {shlex.quote(f'net/ipv6/conf/{bad}/forwarding=1')}" in lines
    assert f"net/ipv6/conf/{bad}/forwarding=1\n" in tried(lines)


@pytest.mark.parametrize(("label", "device"), [("x y", "tun0"), (LABEL, "tun0;id"), ("", "tun0")])
def test_a_label_and_a_device_that_are_none(label: str, device: str) -> None:
    with pytest.raises(ValueError, match="not a label and a device"):
        render(END, FACTS, label, device, None)


@pytest.mark.parametrize(
    ("rights", "taken", "expected"),
    [
        (Rights.ROOT, (), ("tun0", None)),
        (Rights.ROOT, ("tun0", "tun2"), ("tun1", None)),
        (Rights.SUDO, (), ("sshvpnr5600", "1000")),
        (Rights.SUDO, ("sshvpnr5600", "tun5601"), ("sshvpnr5602", "1000")),
    ],
)
def test_the_device_that_is_expected(
    rights: Rights, taken: Sequence[str], expected: tuple[str, str | None]
) -> None:
    adapters = tuple(Adapter(name, 0, 0, 0, 0, 0) for name in taken)
    facts = dataclasses.replace(FACTS, rights=rights, uid=1000, adapters=adapters)
    assert expected_device(facts) == expected

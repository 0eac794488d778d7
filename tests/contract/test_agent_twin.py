"""What `--dry-run` says of the server, typed by hand into a twin, makes what the agent makes.

    server: the agent, configured      twin: the agent looks, and the rendered lines are typed

So the rules' two texts, in the agent's sh and in Python, cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Facts, Mode, Publication, RemoteEnd
from sshvpn.remote.render import expected_device, render
from tests.contract.agent_site import (
    BUSYBOX_IP,
    LABEL,
    SETTINGS,
    Agent,
    look,
    make_server,
    other_ip,
    start,
    start_by,
)
from tests.lab import LabMachine, wait_until
from tests.lab.dump import difference

DEVICE = "tun0"

HERE = (ipaddress.ip_interface("10.83.0.2/30"), ipaddress.ip_interface("fd83::2/64"))
MASQUERADE = (ipaddress.ip_network("10.83.0.1/32"), ipaddress.ip_network("fd83::1/128"))
ON_LOOPBACK = Publication("10.83.0.2", 8888, "127.0.0.1", 8889)
BEHIND = (
    Publication("10.83.0.2", 80, "10.20.0.10", 8080),
    Publication("fd83::2", 80, "fd20::10", 8080),
)
BARE = RemoteEnd(HERE, mtu=1500, is_guarded=False, accepts=False)
ENDS = {
    "bare": BARE,
    "guard": dataclasses.replace(BARE, is_guarded=True),
    "masquerade": dataclasses.replace(BARE, masquerade=MASQUERADE, mtu=1400),
    "publish": dataclasses.replace(BARE, published=BEHIND),
    "loopback": dataclasses.replace(BARE, published=(ON_LOOPBACK,)),
    "forward": dataclasses.replace(BARE, forward=("inner0", "wan0")),
    "loose": dataclasses.replace(BARE, forward=("inner0",), loose=("inner0", "wan0")),
    "accepts": dataclasses.replace(BARE, accepts=True),
    "returns": dataclasses.replace(
        BARE,
        routes=(ipaddress.ip_network("192.168.77.0/24"), ipaddress.ip_network("fd77::/64")),
    ),
    "peers": RemoteEnd(
        peers=(
            (ipaddress.ip_interface("10.9.0.1/32"), ipaddress.ip_network("10.9.0.2/32")),
            (ipaddress.ip_interface("fd09::1/128"), ipaddress.ip_network("fd09::2/128")),
        )
    ),
}
ALL = RemoteEnd(
    addresses=HERE,
    routes=ENDS["returns"].routes,
    masquerade=MASQUERADE,
    forward=("inner0", "wan0"),
    loose=("wan0",),
    published=(ON_LOOPBACK, *BEHIND),
)
# Packet filters of others that drop, and an adapter that is strict, and one that forwards.
BUSY = """
sysctl -qw net/ipv4/conf/wan0/rp_filter=1 net/ipv4/conf/wan0/forwarding=1
iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
iptables -I FORWARD -j DOCKER-USER
ip6tables -P FORWARD DROP; ip6tables -P INPUT DROP
"""
FIREWALLD = """
nft -f - <<'EOF'
table inet firewalld {
  chain filter_INPUT { type filter hook input priority 10; policy accept; reject; }
  chain filter_FORWARD { type filter hook forward priority 10; policy accept; reject; }
}
table inet guard { chain gate { type filter hook forward priority 0; policy drop; }; }
EOF
"""


class Twins:
    """Two servers, made alike."""

    def __init__(self, setup: str = "") -> None:
        self.server, self.twin = make_server(setup), make_server(setup)

    def close(self) -> None:
        self.server.close()
        self.twin.close()

    def configure(self, setting: str, end: RemoteEnd, *, before: str = "") -> None:
        """Let the agent make ``end`` on the server."""
        make_device(self.server)
        agent = start(self.server, SETTINGS[setting], tunnel=DEVICE, before=before)
        agent.expect(Facts)
        agent.configure(end)

    def type(self, setting: str, lines: Sequence[str]) -> None:
        """Type ``lines`` at the twin, as root, with the shell and the tools of the setting."""
        # The text goes first to a file, since commands may read their input.
        self.twin.write("/run/typed", "\n".join(lines), "root")
        script = f"{SETTINGS[setting].script()}\nexec /bin/sh -e /run/typed"
        self.twin.run(["unshare", "--mount", "bash", "-c", script], user="root")

    def assert_equal(self, device: str = DEVICE) -> None:
        made = difference(
            settled_dump(self.server, device), settled_dump(self.twin, device), "agent / by hand"
        )
        assert not made, made


def make_device(machine: LabMachine, name: str = DEVICE) -> None:
    """Make what sshd would make."""
    machine.ip("tuntap", "add", "dev", name, "mode", "tun")


def settled_dump(machine: LabMachine, device: str) -> str:
    """Return the dump once the kernel has noticed that nobody holds the device.

    Its number is the count of those before. Whether it notices before an address of IPv6 has got
    its peer's route, or never gets one, is chance: those are left out, the addresses are not.
    """
    show = ["ip", "link", "show", "dev", device]
    wait_until(lambda: "NO-CARRIER" in machine.run(show).stdout, 10)
    dump = re.sub(
        rf"^\S*:\S* dev {device} proto kernel .*linkdown.*\n",
        "",
        machine.dump(),
        flags=re.MULTILINE,
    )
    return re.sub(rf"\d+: {device}", f"N: {device}", dump)


@pytest.fixture
def twins(request: pytest.FixtureRequest) -> Iterator[Twins]:
    made = Twins(getattr(request, "param", ""))
    yield made
    made.close()


def check(twins: Twins, setting: str, end: RemoteEnd) -> None:
    twins.configure(setting, end)
    before = twins.twin.dump()
    facts = look(twins.twin, SETTINGS[setting])
    assert difference(before, twins.twin.dump(), "twin") == ""
    assert expected_device(facts) == (DEVICE, None)
    lines = render(end, facts, LABEL, DEVICE, None)
    if "busybox" in setting:  # whose ip makes none
        make_device(twins.twin)
    twins.type(setting, lines)
    twins.assert_equal()


@pytest.mark.parametrize("setting", ["dash-nft", "dash-iptables"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("twins", ["", BUSY], ids=["plain", "busy"], indirect=True)
def test_each_word_typed_by_hand_makes_the_same(twins: Twins, setting: str, end: RemoteEnd) -> None:
    check(twins, setting, end)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("twins", ["", BUSY + FIREWALLD], ids=["plain", "busy"], indirect=True)
def test_all_typed_by_hand_makes_the_same_everywhere(twins: Twins, setting: str) -> None:
    check(twins, setting, ALL)


def login(machine: LabMachine, mode: Mode, tunnel: str = "") -> Agent:
    """Start the agent as alice."""
    nonce = secrets.token_hex(16)
    command = protocol.remote_command(agent_script(), nonce=nonce, label=LABEL, mode=mode)
    return start_by(machine, ["sh", "-c", command], nonce, user="alice", tunnel=tunnel)


def test_a_device_for_a_login_with_sudo_is_made_by_hand_too(twins: Twins) -> None:
    for machine in (twins.server, twins.twin):
        machine.allow_sudo("alice")
    prepared = login(twins.server, Mode.PREPARE)
    unit = prepared.expect(protocol.Unit).number
    device = f"sshvpnr{unit}"
    agent = login(twins.server, Mode.ADOPT, device)
    agent.expect(Facts)
    agent.configure(ALL)
    facts = login(twins.twin, Mode.LOOK).expect(Facts)
    assert expected_device(facts) == (device, "1000")
    twins.type("dash-nft", render(ALL, facts, LABEL, *expected_device(facts)))
    twins.assert_equal(device)


@pytest.mark.parametrize("by_ssh", [True, False], ids=["w", "stream"])
def test_a_device_where_ip_makes_none_is_made_by_hand_too(twins: Twins, *, by_ssh: bool) -> None:
    end = dataclasses.replace(ALL, is_guarded=by_ssh)
    with ExitStack() as held:
        for machine in (twins.server, twins.twin):
            machine.allow_sudo("alice")
            held.enter_context(other_ip(machine, BUSYBOX_IP))
        made = ""
        if by_ssh:
            made = f"tun{login(twins.server, Mode.PREPARE).expect(protocol.Unit).number}"
        agent = login(twins.server, Mode.ADOPT if by_ssh else Mode.STREAM, made)
        device = agent.expect(Facts).device
        assert device is not None
        agent.configure(end)
        facts = login(twins.twin, Mode.LOOK).expect(Facts)
        assert expected_device(facts, by_ssh=by_ssh) == (device.name, "1000")
        twins.type("dash-nft", render(end, facts, LABEL, device.name, "1000"))
    twins.assert_equal(device.name)


@pytest.mark.parametrize("setting", ["dash-nft", "dash-iptables"])
def test_beside_another_tunnel_it_is_the_same(twins: Twins, setting: str) -> None:
    for machine in (twins.server, twins.twin):
        make_device(machine, "tun9")
        other = start(machine, SETTINGS[setting], label="other", tunnel="tun9")
        other.expect(Facts)
        other.configure(dataclasses.replace(ENDS["forward"], addresses=()))
    # What only tunnels made forward stays closed between others, whoever made it.
    check(twins, setting, ALL)


def test_before_linux_6_17_it_is_the_same(twins: Twins) -> None:
    old = "\n".join(
        f"path=/proc/sys/net/ipv6/conf/{name}/force_forwarding\n"
        "[ ! -e $path ] || { mount --bind $path $path && mount -o remount,bind,ro $path; }"
        for name in (DEVICE, "inner0", "wan0")
    )
    twins.configure("dash-nft", ALL, before=old)
    facts = look(twins.twin)
    facts = dataclasses.replace(
        facts,
        adapters=tuple(
            dataclasses.replace(adapter, force_forwarding6=None) for adapter in facts.adapters
        ),
    )
    lines = render(ALL, facts, LABEL, DEVICE, None)
    assert "sysctl -qw net/ipv6/conf/wan0/accept_ra=2" in lines
    twins.type("dash-nft", lines)
    twins.assert_equal()


def test_what_is_there_is_not_made_again(twins: Twins) -> None:
    for machine in (twins.server, twins.twin):
        make_device(machine)
        for words in (
            "link set up mtu 1400",
            "address add 10.83.0.2/30",
            "route add 192.168.77/24",
        ):
            machine.ip(*words.split(), "dev", DEVICE)
    agent, other = (start(machine, tunnel=DEVICE) for machine in (twins.server, twins.twin))
    agent.expect(Facts)
    agent.configure(ALL)
    facts = other.expect(Facts)
    other.end()
    lines = render(ALL, facts, LABEL, DEVICE, None)
    made = ("tuntap", "10.83.0.2/30", "192.168.77.0/24", f"link set dev {DEVICE} up")
    assert not any(words in line for line in lines for words in made)
    twins.type("dash-nft", lines)
    twins.assert_equal()

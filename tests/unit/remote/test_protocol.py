"""The agent's protocol: what is sent is checked, what comes is understood or refused."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess

import pytest

from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import (
    Applied,
    Beat,
    Changed,
    Ended,
    Facts,
    Failed,
    Left,
    MalformedLineError,
    Mode,
    Publication,
    Reader,
    RemoteEnd,
    Rights,
    Unit,
)

NONCE = "0123456789abcdef0123456789abcdef"
HELLO = """\
hello 1
user alice 1000
rights none no_sudo sudo wants a password: allow alice with NOPASSWD
system Linux 6.1.0
tools ip=iproute2 firewall=none
device tun8 5 up 16380 1000
address lo 127.0.0.1/8
address ppp0 10.9.9.1 10.9.9.2/32
address wan0 fe80::1/64
route 4 unicast default 203.0.113.1 main wan0
route 6 unreachable default - 52 lo
route 4 unicast 10.20.0.7 - main inner0 inner1
route 4 blackhole 10.66.0.0/16 - main
routes-cut 6
adapter wan0 1 2 0 - 0 1
before net/ipv4/conf/wan0/forwarding 0
closed 46 nft inet firewalld filter_FORWARD forward
"""


def read(*lines: str) -> list[protocol.Message]:
    reader = Reader(NONCE)
    messages = (reader.feed(f"{NONCE} {line}\n") for line in lines)
    return [message for message in messages if message is not None]


def test_the_facts_are_one_message() -> None:
    [facts] = read(*HELLO.splitlines(), "ready")
    assert isinstance(facts, Facts)
    assert (facts.protocol, facts.user, facts.uid) == (1, "alice", 1000)
    assert (facts.rights, facts.rights_code) == (Rights.NONE, "no_sudo")
    assert facts.rights_reason.startswith("sudo wants a password")
    assert (facts.system, facts.ip, facts.firewall) == ("Linux 6.1.0", "iproute2", None)
    assert facts.device == protocol.Device("tun8", 5, is_up=True, mtu=16380, owner=1000)
    assert [str(address.network) for address in facts.addresses] == [
        "127.0.0.0/8", "10.9.9.2/32", "fe80::/64",
    ]  # fmt: skip
    assert [(str(r.prefix), r.via, r.kind, r.table, r.interfaces) for r in facts.routes] == [
        ("0.0.0.0/0", "203.0.113.1", "unicast", "main", ("wan0",)),
        ("::/0", None, "unreachable", "52", ("lo",)),
        ("10.20.0.7/32", None, "unicast", "main", ("inner0", "inner1")),
        ("10.66.0.0/16", None, "blackhole", "main", ()),
    ]
    assert facts.adapters == (protocol.Adapter("wan0", 1, 2, 0, None, 0, 1),)
    assert facts.before == (("net/ipv4/conf/wan0/forwarding", 0),)
    assert facts.closed == ("46 nft inet firewalld filter_FORWARD forward",)
    assert not facts.has_all_routes


def test_facts_that_lack_something_are_refused() -> None:
    lines = [line for line in HELLO.splitlines() if not line.startswith("user")]
    with pytest.raises(MalformedLineError):
        read(*lines, "ready")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ok", Applied()),
        ("beat 12", Beat(12)),
        ("changed", Changed()),
        ("unit 5600", Unit(5600)),
        ("bye input ended", Ended("input ended")),
        ("error no_sudo sudo wants\ta password", Failed("no_sudo", "sudo wants a password")),
        ("left /proc/sys/net/x \x1b[2J", Left("/proc/sys/net/x \\x1b[2J")),
    ],
)
def test_a_line_is_a_message(line: str, message: protocol.Message) -> None:
    assert read(line) == [message]


@pytest.mark.parametrize(
    "line", ["", "hi", "beat", "beat x", "unit", "error", "ok then", "changed rules",
             "address lo x", "device tun0", "route 4 unicast 10.0.0.0/8 -",
             "adapter lo a b c d e f", "adapter lo 1 2 0 - 0", "before net/x"],
)  # fmt: skip
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(MalformedLineError):
        read(line)


@pytest.mark.parametrize("noise", ["Welcome!", "hello 1", "ok", "error usage x", "", "0123 ok"])
def test_lines_of_others_are_no_messages(noise: str) -> None:
    assert Reader(NONCE).feed(noise) is None


def test_noise_without_a_line_end_does_not_hide_a_line() -> None:
    assert Reader(NONCE).feed(f"$ prompt> {NONCE} ok\r\n") == Applied()


# -- what is sent ------------------------------------------------------------------------------


def test_the_configuration_as_lines() -> None:
    end = RemoteEnd(
        addresses=(ipaddress.ip_interface("10.83.0.2/30"),),
        peers=((ipaddress.ip_interface("10.9.0.1/32"), ipaddress.ip_network("10.9.0.2/32")),),
        mtu=1400,
        routes=(ipaddress.ip_network("192.168.1.0/24"),),
        masquerade=(ipaddress.ip_network("fd83::/64"),),
        forward=("eth0.7",),
        loose=("eth0.7",),
        published=(Publication("10.83.0.2", 80, "127.0.0.1", 8080),),
    )
    assert end.lines() == (
        "guard", "masquerade fd83::/64", "publish 10.83.0.2 80 127.0.0.1 8080", "forward eth0.7",
        "loose eth0.7", "accept-chains", "mtu 1400", "address 10.83.0.2/30",
        "address 10.9.0.1/32 10.9.0.2/32", "up", "route 192.168.1.0/24", "commit",
    )  # fmt: skip
    assert protocol.encode(end.lines()[:2]) == b"guard\nmasquerade fd83::/64\n"


@pytest.mark.parametrize("mtu", [0, 575, 16381])
def test_an_mtu_that_ssh_does_not_carry_is_refused(mtu: int) -> None:
    with pytest.raises(ValueError, match="MTU"):
        RemoteEnd(mtu=mtu)


@pytest.mark.parametrize("name", ["", "a b", "-x", "..", "a/b", "a;b", "x" * 16, "eth0\n"])
def test_a_name_that_is_no_adapter_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="adapter"):
        RemoteEnd(forward=(name,))


@pytest.mark.parametrize(
    ("listen", "port", "target"),
    [("10.0.0.1", 0, "127.0.0.1"), ("10.0.0.1", 80, "fd00::1"), ("fd00::1", 80, "::1"),
     ("localhost", 80, "127.0.0.1"), ("10.0.0.1", 65536, "127.0.0.1")],
)  # fmt: skip
def test_a_publication_that_cannot_be_is_refused(listen: str, port: int, target: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Publication(listen, port, target, 80)


def test_a_heartbeat_has_a_number() -> None:
    assert protocol.beat(7) == "beat 7"
    with pytest.raises(ValueError, match="heartbeat"):
        protocol.beat(10**9)


# -- how it is delivered -----------------------------------------------------------------------


def test_the_script_has_nothing_that_a_shell_would_lose() -> None:
    script = agent_script()
    assert script.isascii()
    assert not script.endswith("\n")
    assert len(script) < 42_000


def test_the_script_names_no_function_twice() -> None:
    names = re.findall(r"^(\w+)\(\)", agent_script(), re.MULTILINE)
    assert {"say", "commit", "main"} <= set(names)
    assert len(names) == len(set(names))
    assert agent_script().endswith('\nmain "$@"')


@pytest.mark.parametrize(
    "values",
    [{"nonce": "xyz"}, {"nonce": ""}, {"label": "a b"}, {"label": "a';id"}, {"label": ""},
     {"label": "../x"}, {"lease_s": 0}, {"lease_s": 86401}],
)  # fmt: skip
def test_values_that_need_quoting_are_refused(values: dict[str, object]) -> None:
    good: dict[str, object] = {"nonce": NONCE, "label": "3e8_0123456789", "mode": Mode.SERVE}
    with pytest.raises(ValueError, match="not a"):
        protocol.remote_command(agent_script(), **{**good, **values})  # type: ignore[arg-type]


SAY = 'boot=\'{boot}\'\necho "$2 $3 $4 $5"; read -r line; echo "$2 $line"'


@pytest.mark.parametrize(
    "shell", [["sh"], ["bash"], ["busybox", "sh"], ["zsh", "-f"], ["fish"], ["tcsh", "-f"]]
)
def test_every_login_shell_reads_just_the_script(shell: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    boot = agent_script().partition("boot='")[2].partition("'")[0]
    script = SAY.format(boot=boot)
    command = protocol.remote_command(script, nonce=NONCE, label="label", lease_s=60)
    done = subprocess.run(
        [*shell, "-c", command], input=protocol.delivery(script) + b"beat 1\nid\n",
        capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.stdout.decode() == f"{NONCE} serve label 60\n{NONCE} beat 1\n"


def test_a_script_that_comes_in_part_is_not_run() -> None:
    script = agent_script()
    command = protocol.remote_command(script, nonce=NONCE, label="label")
    done = subprocess.run(
        ["sh", "-c", command], input=protocol.delivery(script)[:-1],
        capture_output=True, check=False, timeout=20, text=False,
    )  # fmt: skip
    assert done.returncode == 1
    [failed] = [Reader(NONCE).feed(line) for line in done.stdout.decode().splitlines()]
    assert isinstance(failed, Failed)
    assert failed.code == "delivery"

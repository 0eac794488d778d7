"""Who answers, how fast, and who has an address; asked by alice on the laboratory's gateway.

::

    lan 192.168.77.10 ── lan0 gateway wan0 ──[ emulator ]── server 203.0.113.20
        fd77::10         .1           .10                 └─ internet .1, a router
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab import Lab, LabMachine, Wan, wait_until
from tests.lab.machine import read_line

pytestmark = pytest.mark.lab

SERVER = pytest.mark.parametrize("address", ["203.0.113.20", "2001:db8:113::20"])
NO_PING = "net.ipv4.ping_group_range=1 0"
PING = "net.ipv4.ping_group_range=0 2147483647"

ASK = """
import asyncio, json, os, sys, time
from sshvpn.errors import SshvpnError
from sshvpn.system.prober import SystemProber

def sockets():
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sorted(os.readlink(link) for link in links if os.path.islink(link))

async def ask(name, *words):
    started = time.monotonic()
    try:
        result = getattr(SystemProber(), name)(*words)
        if asyncio.iscoroutine(result):
            result = await result
    except SshvpnError as error:
        result = error.code
    return {"result": result, "took_s": time.monotonic() - started}

async def main():
    print("ready", flush=True)
    before = sockets()
    questions = json.loads(sys.argv[1])
    if sys.argv[2] == "cancelled":
        task = asyncio.create_task(ask(*questions[0]))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])
        answers = [{"result": task.cancelled()}]
    elif sys.argv[2] == "together":
        answers = await asyncio.gather(*(ask(*words) for words in questions))
    else:
        answers = [await ask(*words) for words in questions]
    assert sockets() == before, (before, sockets())
    print(json.dumps(answers))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        # A router that says so when there is no way.
        made.internet.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], user="root")
        made.internet.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"], user="root")
        for network in ("192.0.2.0/24", "2001:db8:dead::/48"):
            made.internet.ip("route", "add", "unreachable", network)
        yield made


def ask(lab: Lab, *questions: tuple[object, ...], how: str = "in turn") -> list[dict[str, Any]]:
    text = lab.gateway.python(ASK, json.dumps(questions), how, timeout=60)
    answers: list[dict[str, Any]] = json.loads(text.splitlines()[1])
    return answers


def trip(lab: Lab, address: str, timeout_s: float = 2.0) -> dict[str, Any]:
    """Return what the prober found; the time is in milliseconds."""
    (answer,) = ask(lab, ("round_trip_s", address, source_for(address), timeout_s))
    return {**answer, "ms": None if answer["result"] is None else answer["result"] * 1000}


def source_for(address: str) -> str:
    return "2001:db8:113::10" if ":" in address else "203.0.113.10"


def ping_ms(lab: Lab, address: str, count: int = 10) -> list[float]:
    """Return the times of ping(8), the first left out: it may wait for ARP."""
    line = ["ping", "-n", "-c", str(count), "-i", "0.02", address]
    told = lab.gateway.run(line, user="root").stdout
    return [float(word[5:]) for word in told.split() if word.startswith("time=")][1:]


@contextmanager
def firewall(machine: LabMachine, hook: str, *rules: str) -> Iterator[None]:
    text = "\n".join(rules)
    machine.nft(
        f"table inet probe {{\nchain c {{\ntype filter hook {hook} priority 0\n{text}\n}}\n}}"
    )
    try:
        yield
    finally:
        machine.nft("delete table inet probe")


@contextmanager
def sysctl(machine: LabMachine, there: str, back: str) -> Iterator[None]:
    machine.run(["sysctl", "-qw", there], user="root")
    try:
        yield
    finally:
        machine.run(["sysctl", "-qw", back], user="root")


NO_ECHO = ("icmp type echo-request drop", "icmpv6 type echo-request drop")
NO_TCP = ("tcp dport 9 drop",)


# Round trips ----------------------------------------------------------------------------------


@SERVER
def test_the_time_is_that_of_ping(lab: Lab, address: str) -> None:
    theirs = ping_ms(lab, address)
    questions = [("round_trip_s", address, source_for(address), 2.0)] * 10
    ours = [answer["result"] * 1000 for answer in ask(lab, *questions)][1:]
    assert abs(statistics.median(ours) - statistics.median(theirs)) < 0.3, (ours, theirs)


@SERVER
@pytest.mark.parametrize("ping", [PING, NO_PING], ids=["ping", "no ping"])
def test_the_time_is_that_of_the_wide_area_network(lab: Lab, address: str, ping: str) -> None:
    lab.shape(Wan(delay_ms=20))
    try:
        with sysctl(lab.gateway, ping, PING):
            trip(lab, address)  # ARP
            found = trip(lab, address)["ms"]
        theirs = statistics.median(ping_ms(lab, address))
    finally:
        lab.unshape()
    assert 40 <= found < 46
    assert abs(found - theirs) < 3


@pytest.mark.parametrize("ping", [PING, NO_PING], ids=["ping", "no ping"])
def test_a_way_of_more_than_a_second_is_timed_too(lab: Lab, ping: str) -> None:
    """The kernel sends a SYN again after a second: the answer is to the first."""
    lab.shape(Wan(delay_ms=700))
    try:
        with sysctl(lab.gateway, ping, PING):
            assert 1400 <= trip(lab, "203.0.113.20", 5.0)["ms"] < 1500
    finally:
        lab.unshape()


@SERVER
def test_without_the_right_to_ping_a_closed_port_answers_and_an_open_one(
    lab: Lab, address: str
) -> None:
    with sysctl(lab.gateway, NO_PING, PING):
        assert trip(lab, address)["ms"] < 100
        lab.server.tcp_server(9, address)
        try:
            assert trip(lab, address)["ms"] < 100
        finally:
            lab.server.undo()
    assert lab.gateway.run(["ss", "-Htan", "dport = :9"]).stdout == ""


@SERVER
@pytest.mark.parametrize("silent", [NO_ECHO, NO_TCP], ids=["echo", "tcp"])
def test_one_answer_is_enough(lab: Lab, address: str, silent: tuple[str, ...]) -> None:
    with firewall(lab.server, "input", *silent):
        assert trip(lab, address)["ms"] < 100


@SERVER
def test_an_icmp_error_of_that_very_address_is_an_answer(lab: Lab, address: str) -> None:
    with firewall(lab.server, "input", *NO_ECHO, "tcp dport 9 reject with icmpx port-unreachable"):
        assert trip(lab, address)["ms"] < 100


@SERVER
@pytest.mark.parametrize("why", ["host-unreachable", "port-unreachable", "admin-prohibited"])
def test_an_icmp_error_of_this_machine_is_none(lab: Lab, address: str, why: str) -> None:
    kinds = ("tcp dport 9", "icmp type echo-request", "icmpv6 type echo-request")
    with firewall(lab.gateway, "output", *(f"{kind} reject with icmpx {why}" for kind in kinds)):
        found = trip(lab, address, 8.0)
    assert found["result"] is None
    assert found["took_s"] < 2, "nothing else can come"


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8:dead::7"])
def test_an_icmp_error_of_a_router_is_none(lab: Lab, address: str) -> None:
    found = trip(lab, address, 8.0)
    assert found["result"] is None
    assert found["took_s"] < 2, "nothing else can come"


@pytest.mark.parametrize("address", ["203.0.113.99", "2001:db8:113::99"])
def test_where_nobody_is_it_ends_when_the_kernel_gives_up(lab: Lab, address: str) -> None:
    found = trip(lab, address, 10.0)
    assert found["result"] is None
    assert found["took_s"] < 6


@SERVER
def test_silence_is_waited_for_so_long_and_no_longer(lab: Lab, address: str) -> None:
    with firewall(lab.server, "input", *NO_ECHO, *NO_TCP):
        found = trip(lab, address, 0.5)
    assert found["result"] is None
    assert 0.5 <= found["took_s"] < 1


def test_a_source_of_another_machine_and_no_way_are_none_at_once(lab: Lab) -> None:
    lab.gateway.ip("route", "add", "unreachable", "10.5.0.0/16")
    try:
        answers = ask(
            lab,
            ("round_trip_s", "203.0.113.20", "10.4.0.1", 5.0),
            ("round_trip_s", "10.5.0.1", "203.0.113.10", 5.0),
        )
    finally:
        lab.gateway.ip("route", "delete", "unreachable", "10.5.0.0/16")
    assert [answer["result"] for answer in answers] == [None, None]
    assert all(answer["took_s"] < 1 for answer in answers)


@SERVER
def test_what_is_lost_is_sent_again_and_timed_anew(lab: Lab, address: str) -> None:
    counted = [f"tcp dport 9 counter drop\n{line}" for line in NO_ECHO]
    with firewall(lab.server, "input", *counted):
        questions = [("round_trip_s", address, source_for(address), 10.0)]
        argv = lab.sshvpn_argv()[:1]
        child = lab.gateway.popen([*argv, "-c", ASK, json.dumps(questions), "in turn"])
        try:
            assert read_line(child, 10) == "ready\n"
            rules = ["nft", "list", "table", "inet", "probe"]
            wait_until(
                lambda: (
                    "packets 0 " not in lab.server.run(rules, user="root").stdout.split("tcp")[1]
                )
            )
            lab.server.nft("flush chain inet probe c")
            (answer,) = json.loads(read_line(child, 10))
        finally:
            child.end()
    assert answer["took_s"] > 0.5
    assert answer["result"] < 0.3


def test_who_no_longer_wants_to_know_leaves_nothing_open(lab: Lab) -> None:
    question = ("round_trip_s", "203.0.113.99", "203.0.113.10", 30.0)
    assert ask(lab, question, how="cancelled") == [{"result": True}]


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

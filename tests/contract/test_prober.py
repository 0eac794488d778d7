"""Who answers, and how fast: the prober's round trips, beside ping(8) and the emulator's delay."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.contract.prober_site import ASK, ask, firewall
from tests.lab import Lab, LabMachine, Wan, wait_until
from tests.lab.process import read_line

pytestmark = pytest.mark.lab

SERVER = pytest.mark.parametrize("address", ["203.0.113.20", "2001:db8:113::20"])
NO_PING = "net.ipv4.ping_group_range=1 0"
PING = "net.ipv4.ping_group_range=0 2147483647"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        # A router that says so when there is no way.
        made.internet.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], user="root")
        made.internet.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"], user="root")
        for network in ("192.0.2.0/24", "2001:db8:dead::/48"):
            made.internet.ip("route", "add", "unreachable", network)
        yield made


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
            # The shortest: a busy machine can only add to it.
            found = min(trip(lab, address)["ms"] for _ in range(5))
        theirs = min(ping_ms(lab, address))
    finally:
        lab.unshape()
    assert 40 <= found < 46
    assert abs(found - theirs) < 3


@pytest.mark.parametrize("ping", [PING, NO_PING], ids=["ping", "no ping"])
def test_a_way_of_more_than_a_second_is_timed_too(lab: Lab, ping: str) -> None:
    """The kernel sends a SYN again after a second: the answer is to the first."""
    trip(lab, "203.0.113.20")  # ARP, which would take as long again
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
@pytest.mark.parametrize("ping", [PING, NO_PING], ids=["ping", "no ping"])
@pytest.mark.parametrize("silent", [(), NO_ECHO], ids=["echo", "no echo"])
def test_a_sparing_one_sends_a_syn_where_the_echo_is_not_enough(
    lab: Lab, address: str, ping: str, silent: tuple[str, ...]
) -> None:
    question = ("round_trip_s", address, source_for(address), 2.0)
    rules = [*silent, "tcp dport 9 counter"]
    with firewall(lab.server, "input", *rules), sysctl(lab.gateway, ping, PING):
        (answer,) = ask(lab, question, how="sparing")
        assert answer["result"] is not None
        listed = lab.server.run(["nft", "list", "table", "inet", "probe"], user="root").stdout
    is_enough = ping == PING and not silent
    assert ("counter packets 0" in listed) == is_enough, listed


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

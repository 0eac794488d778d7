"""Who can reach a forward that is shared: the machines of the adapter, and nobody else.

 lan ──eth0 ── lan0 ┐
lan2 ──eth0 ── lan1 ┤ gateway ── wan0 ───── server (a route of its own to 192.168.77.1)
     (a cable of the test's)         ══ssh══ localhost:8888
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.e2e.office import HOME, INTERRUPTED, Office, exit_code, tell_end
from tests.lab import Lab, LabMachine, wait_until

TRUST = f"{HOME}/.local/state/sshvpn/trust.json"
GUARDED = {"192.168.77.1%lan0:9999", "[fd77::1]%lan0:9999"}
BOTH = ["192.168.77.1:9999", "[fd77::1]:9999"]
URLS = ["http://192.168.77.1:9999/", "http://[fd77::1]:9999/"]
QUESTION = "Share with the machines of "
PROFILE = '[forwards.nb]\nhost = "server"\nspecs = ["9999:8888"]\nlan = true\n'
HINT = "say --lan on the command line to trust it"


@pytest.fixture
def office(office: Office) -> Office:
    """Return the shared laboratory with a page to forward."""
    office.web()
    return office


def reaches(office: Office, url: str, machine: LabMachine | None = None) -> bool:
    """Whether MACHINE (or one of the LAN) gets the page at URL."""
    return office.answers(url, machine=machine or office.lab.lan)


def listens(office: Office, *places: str) -> bool:
    """Whether status says that the only forward listens at PLACES, in any order."""
    return sorted(office.only()["listen"]) == sorted(places)


@contextmanager
def around(office: Office) -> Iterator[None]:
    """Let the server send what is for the LAN's adapter to the gateway's WAN adapter."""
    routes = [["192.168.77.1", "via", "203.0.113.10"], ["fd77::1", "via", "2001:db8:113::10"]]
    for route in routes:
        office.server.ip("route", "add", *route)
    try:
        yield
    finally:
        for route in routes:
            office.server.ip("route", "delete", *route)


@contextmanager
def cable(lab: Lab, commands: str) -> Iterator[None]:
    """Join lan's `eth9` and the gateway's `lan9`, where COMMANDS are run; unplug at the end."""
    plug(lab, commands)
    try:
        yield
    finally:
        lab.gateway.run(["ip", "link", "delete", "lan9"], user="root", check=False)


def plug(lab: Lab, commands: str) -> None:
    """Make the cable of `cable`; the adapter of that name that is there goes, in the same go."""
    left, right = lab.gateway.pid, lab.lan.pid
    subprocess.run(
        ["ip", "link", "add", "new9", "netns", str(left), "type", "veth",
         "peer", "name", "new9", "netns", str(right)],
        check=True,
    )  # fmt: skip
    script = "set -e; ip link set new9 name eth9; ip address add 192.168.90.10/24 dev eth9"
    replace = "ip link delete lan9 2>/dev/null || true; ip link set new9 name lan9"
    lab.gateway.run(["sh", "-ec", f"{replace}\n{commands}"], user="root")
    lab.lan.run(["sh", "-c", f"{script}; ip link set eth9 up"], user="root")


LAN9 = "ip address add 192.168.90.1/24 dev lan9\nip link set lan9 up"


# --bind ---------------------------------------------------------------------------------------


def test_a_listener_of_an_adapter_is_reached_by_it_and_from_here_and_not_by_another(
    office: Office, engine: str
) -> None:
    office.forward("server", "9999:8888", "--bind", "lan0", "--engine", engine)
    assert office.listening() == GUARDED
    assert office.only()["listen"] == BOTH
    for url in URLS:
        assert "notebook" in office.fetch(url, machine=office.lab.lan)
        assert "notebook" in office.fetch(url)
    for address in ("192.168.77.1", "fd77::1"):
        office.gateway.http_server(9998, address)
    with around(office):
        for url in URLS:
            assert reaches(office, url.replace("9999", "9998"), office.server), "there is a way"
            assert not reaches(office, url, office.server)
    office.sshvpn("down")


def test_several_adapters_addresses_and_both(own_office: Office, engine: str) -> None:
    office = own_office
    lan2 = office.lab.lan2
    office.web()
    office.lab.add_address("lan0", "192.168.77.5/24")
    office.lab.add_address("lan0", "172.20.0.1/16")
    binds = [word for bind in ("lan0", "lan1", "127.0.0.1") for word in ("--bind", bind)]
    office.forward("server", "9999:8888", *binds, "--engine", engine)
    assert listens(
        office, *BOTH, "192.168.77.5:9999", "172.20.0.1:9999",
        "192.168.78.1:9999", "[fd78::1]:9999", "127.0.0.1:9999",
    )  # fmt: skip
    for url in (*URLS, "http://192.168.77.5:9999/", "http://172.20.0.1:9999/"):
        assert reaches(office, url)
    for url in ("http://192.168.78.1:9999/", "http://[fd78::1]:9999/"):
        assert reaches(office, url, lan2)
    assert not reaches(office, "http://192.168.77.1:9999/", lan2), "not by the other adapter"
    assert reaches(office, "http://127.0.0.1:9999/", office.gateway)
    office.sshvpn("down")
    assert office.listening() == set()


def test_an_adapter_without_an_address_is_told(office: Office) -> None:
    office.gateway.ip("link", "add", "bare0", "type", "bridge")
    try:
        told = office.refused(1, "forward", "-b", "server", "9999:8888", "--bind", "bare0")
        assert "bare0 has no address" in told
    finally:
        office.gateway.ip("link", "delete", "bare0")
    assert "no adapter" in office.refused(2, "forward", "server", "8888", "--bind", "nosuch0")


# --lan and the trust in a network -------------------------------------------------------------


def test_lan_is_the_private_addresses_of_its_adapters_and_is_remembered(
    office: Office, engine: str
) -> None:
    office.gateway.ip("link", "add", "docker0", "type", "bridge")
    office.gateway.ip("address", "add", "172.17.0.1/16", "dev", "docker0")
    office.gateway.ip("link", "set", "docker0", "up")
    try:
        office.forward("server", "9999:8888", "--lan", "--engine", engine)
    finally:
        office.gateway.ip("link", "delete", "docker0")
    assert office.listening() == GUARDED, "neither wan0's addresses, nor a container's"
    assert all(reaches(office, url) for url in URLS)
    with around(office):
        assert not any(reaches(office, url, office.server) for url in URLS)
    known = json.loads(office.gateway.read(TRUST))["networks"]
    assert {(one["interface"], one["prefix"], one["router_mac"]) for one in known} == {
        ("lan0", "192.168.77.0/24", None), ("lan0", "fd77::/64", None)
    }  # fmt: skip
    office.sshvpn("down")
    office.config(PROFILE)
    office.forward("nb", "--engine", engine)
    assert office.listening() == GUARDED, "remembered: nobody is asked"
    office.sshvpn("down")


def test_what_is_up_unshared_can_be_shared_too(office: Office) -> None:
    office.forward("server", "9999:8888")
    office.forward("server", "9999:8888", "--lan")
    assert office.listening() == {"127.0.0.1:9999", "[::1]:9999", *GUARDED}
    assert reaches(office, URLS[0])
    office.sshvpn("down", "server")
    assert office.status() == []


def test_a_profile_does_not_share_on_an_unknown_network(office: Office) -> None:
    office.config(PROFILE)
    for switches in (["-b"], []):
        told = office.refused(1, "forward", *switches, "nb")
        assert "not a trusted network" in told
        assert HINT in told
    assert not office.gateway.exists(TRUST)
    assert office.status() == []


@pytest.mark.parametrize("background", [True, False], ids=["background", "foreground"])
def test_at_a_terminal_it_is_asked_once_and_remembered(office: Office, background: bool) -> None:
    office.config(PROFILE)
    switches = ["-b"] if background else []
    first = office.at_terminal(*switches, "nb")
    first.expect(re.escape(QUESTION))
    first.sendline("y")
    if background:
        assert exit_code(first) == 0
        assert first.before.count(QUESTION) == 0, "one question for one adapter"
    else:
        first.expect(r"http://192\.168\.77\.1:9999/")
        assert first.before.count(QUESTION) == 0
        first.sendintr()
        assert exit_code(first) == INTERRUPTED
    office.sshvpn("down", "--all")
    second = office.at_terminal("-b", "nb")
    assert exit_code(second) == 0
    assert QUESTION not in second.before
    assert office.listening() == GUARDED
    office.sshvpn("down")


def test_at_a_terminal_no_is_no(office: Office) -> None:
    office.config(PROFILE)
    terminal = office.at_terminal("-b", "nb")
    terminal.expect(re.escape(QUESTION))
    terminal.sendline("n")
    assert exit_code(terminal) == 1
    assert HINT in terminal.before
    assert QUESTION not in terminal.before
    assert not office.gateway.exists(TRUST)
    assert office.status() == []


# While it runs --------------------------------------------------------------------------------


def test_an_address_that_is_taken_does_not_keep_the_others(office: Office, engine: str) -> None:
    squatter = office.gateway.tcp_server(9999, "192.168.77.1")
    office.forward("server", "9999:8888", "--bind", "lan0", "--engine", engine)
    record = office.only()
    assert record["state"] == "running"
    assert record["listen"] == BOTH[1:]
    assert record["last_error"]["code"] == "taken"
    assert reaches(office, URLS[1])
    assert "9999 is taken on 192.168.77.1" in office.logs()
    squatter.stop()
    wait_until(lambda: listens(office, *BOTH), 15)
    assert office.only()["last_error"] is None
    assert reaches(office, URLS[0])
    assert office.only()["reconnects"] == 0
    office.sshvpn("down")


def test_a_port_that_is_taken_everywhere_is_an_error(office: Office) -> None:
    office.gateway.tcp_server(9999, "192.168.77.1")
    office.gateway.tcp_server(9999, "fd77::1")
    told = office.refused(7, "forward", "-b", "server", "9999:8888", "--bind", "lan0")
    assert "9999 is taken" in told


def test_addresses_that_come_and_go_are_followed_and_cut_nobody(
    office: Office, engine: str
) -> None:
    office.server.tcp_server(7000)
    office.lab.add_address("lan0", "192.168.77.5/24")
    forwards = ["9999:8888", "9997:7000"]
    office.forward("server", *forwards, "--bind", "lan0", "--engine", engine)
    stream = office.talk("192.168.77.1", 9997, machine=office.lab.lan)
    assert stream.is_answered("before")

    office.lab.del_address("lan0", "192.168.77.5/24")
    wait_until(lambda: office.status()[0]["listen"] == BOTH, 15, every=0.1)
    assert not reaches(office, "http://192.168.77.5:9999/")
    assert stream.is_answered("one less")

    for cidr, url in (("192.168.77.6/24", "192.168.77.6"), ("fd77::6/64", "[fd77::6]")):
        office.lab.add_address("lan0", cidr)
        wait_until(partial(reaches, office, f"http://{url}:9999/"), 15)
    assert len(office.status()[0]["listen"]) == len(BOTH) + 2
    assert stream.is_answered("two more")
    assert {record["reconnects"] for record in office.status()} == {0}
    office.sshvpn("down")
    assert office.listening() == set()


def test_an_adapter_that_is_deleted_and_made_anew_is_followed(office: Office, engine: str) -> None:
    office.server.tcp_server(7000)
    binds = ["--bind", "lan0", "--bind", "lan9"]
    url = "http://192.168.90.1:9999/"
    with cable(office.lab, LAN9):
        office.forward("server", "9999:8888", "9997:7000", *binds, "--engine", engine)
        stream = office.talk("192.168.77.1", 9997, machine=office.lab.lan)
        assert reaches(office, url)
        office.gateway.ip("link", "delete", "lan9")
        wait_until(lambda: office.status()[0]["listen"] == BOTH, 15, every=0.1)
        plug(office.lab, LAN9)
        wait_until(lambda: reaches(office, url), 15)
        plug(office.lab, LAN9)  # the same name and address, faster than anybody looks
        wait_until(lambda: reaches(office, url), 15)
        assert stream.is_answered("still there")
        assert {record["reconnects"] for record in office.status()} == {0}
        office.sshvpn("down")


def test_on_another_network_sharing_pauses_until_it_is_trusted(office: Office, engine: str) -> None:
    words = ["server", "9999:8888", "--lan", "--engine", engine]
    office.forward(*words)
    for cidr in ("fd77::1/64", "192.168.77.1/24"):
        office.lab.del_address("lan0", cidr)
    office.lab.add_address("lan0", "192.168.99.1/24")
    wait_until(lambda: listens(office), 15)
    office.wait_logged("not shared on 192.168.99.0/24")
    assert office.listening() == set()
    paused = office.wait_state("backoff")
    assert HINT in paused["last_error"]["message"]
    again = office.forward(*words)
    assert "up already" in again.stderr
    assert "http://192.168.99.1:9999/" in again.stdout
    assert reaches(office, "http://192.168.99.1:9999/", office.gateway)
    assert office.only()["state"] == "running"
    assert office.only()["reconnects"] == 0
    office.sshvpn("down")


def test_sharing_goes_on_where_it_was_trusted_before(office: Office) -> None:
    child = office.foreground("server", "9999:8888", "--lan")
    office.wait_state("running")
    office.lab.del_address("lan0", "192.168.77.1/24")
    wait_until(lambda: listens(office, *BOTH[1:]), 15)
    office.gateway.ip("address", "add", "192.168.77.1/24", "dev", "lan0")
    wait_until(lambda: listens(office, *BOTH), 15)
    assert reaches(office, URLS[0])
    child.terminate()
    code, out, _ = tell_end(child)
    assert code == 0
    assert out.count("http://192.168.77.1:9999/ -> server") == 2

"""The names that the local network is told, as another's mDNS sees them: avahi, on a machine there.

lan ──eth0 ── lan0 ┐
avahi              ├ gateway wan0 ══ssh══ server
lan2 ──eth0 ── lan1 ┘                       127.0.0.1:8888
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.e2e.office import HOME, Office
from tests.e2e.vpn import Vpn, counted
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.avahi import Avahi, Found

pytestmark = pytest.mark.lab

NAME = "server.local"
GATEWAY = {"192.168.77.1", "fd77::1"}
PAGE = Found("server 8888", NAME, "192.168.77.1", 8888)
ANOTHER = Found("server 9000", NAME, "192.168.77.1", 9000)
PORTAL = Found("server", NAME, "192.168.77.1", 7748)
LAN_SIDE = "sshvpn.lan.main"

_ASK = """
import socket, struct, sys
family, group, scope = sys.argv[1], sys.argv[2], sys.argv[3]
question = b"".join(bytes([len(w)]) + w.encode() for w in sys.argv[4].split(".")) + b"\\0"
kind = int(sys.argv[5])
packet = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + question + struct.pack("!2H", kind, 1)
with socket.socket(getattr(socket, family), socket.SOCK_DGRAM) as sock:
    sock.settimeout(0.7)
    if family == "AF_INET6":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(scope))
    else:
        index = struct.pack("@4s4si", bytes(4), bytes(4), socket.if_nametoindex(scope))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, index)
    sock.sendto(packet, (group, 5353))
    try:
        print(sock.recv(9000).hex())
    except OSError:
        pass
"""

_SRV = 33
_APART = """
chain in { type filter hook input priority 0; iif eth0 udp dport 5353 drop; }
chain out { type filter hook output priority 0; oif eth0 udp dport 5353 drop; }
"""


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes alice's tunnels."""
    return Vpn(lab)


@pytest.fixture
def wide_vpn(lab: Lab) -> Vpn:
    """Return the same where the gateway has a second local network."""
    assert lab.lan2.name == "lan2"
    return Vpn(lab)


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[Vpn, Avahi]]:
    """Return a tunnel that is shared and announced, for tests that only look at it.

    Two pages of the server's localhost are published, on one of the gateway's two networks.
    """
    with Lab() as lab:
        assert lab.lan2.name == "lan2"
        vpn = Vpn(lab)
        lab.server.http_server(9000, title="another page")
        avahi = Avahi(lab.lan, "tablet")
        words = ("--lan-interface", "lan0", "--publish", "8888", "--publish", "9000")
        vpn.up("server", "--lan", *words)
        wait_named(vpn, NAME)
        yield vpn, avahi
        vpn.down()
        lab.lan.undo()
        lab.lan2.undo()
        lab.check()


def wait_named(vpn: Vpn, *names: str) -> None:
    """Wait until status says that these are the names, and no others."""
    wait_until(
        lambda: vpn.record()["names"] == [*names],
        what=f"not {names}: {vpn.record()}\n{vpn.log()}",
        every=0.1,
    )


def wait_resolved(avahi: Avahi, name: str, *addresses: str) -> None:
    """Wait until AVAHI finds these addresses of NAME, and no others."""
    found: set[str] = set()

    def is_so() -> bool:
        found.clear()
        found.update(avahi.resolve(name))
        return found == set(addresses)

    try:
        wait_until(is_so, 15, every=0.2)
    except TimeoutError as error:
        raise TimeoutError(f"{name}: {found}, not {addresses}\n{avahi.log()}") from error


def wait_browsed(avahi: Avahi, *services: Found) -> None:
    """Wait until AVAHI knows these web services, and no others."""
    wait_until(lambda: avahi.browse() == {*services}, 15, what=f"{avahi.browse()}", every=0.2)


def ask(machine: LabMachine, adapter: str, group: str, name: str = NAME, kind: int = 1) -> str:
    """Return the answer, in hex, to a question that MACHINE sends by ADAPTER to GROUP."""
    family = "AF_INET6" if ":" in group else "AF_INET"
    return machine.python(_ASK, family, group, adapter, name, str(kind)).strip()


# -- what is told ------------------------------------------------------------------------------


def test_the_name_leads_to_the_gateway_in_both_families(standing: tuple[Vpn, Avahi]) -> None:
    _, avahi = standing
    assert avahi.resolve(NAME) == GATEWAY


def test_each_published_web_page_is_found_with_its_port_and_where_it_is_shared_only(
    standing: tuple[Vpn, Avahi],
) -> None:
    vpn, avahi = standing
    wait_browsed(avahi, PAGE, ANOTHER)
    titles = {PAGE: "notebook", ANOTHER: "another page"}
    pages = {f"http://{one.address}:{one.port}/": title for one, title in titles.items()}
    assert vpn.unreachable(pages) == []
    elsewhere = Avahi(vpn.lab.lan2, "laptop")
    with elsewhere.publishing("own", 1234) as own:
        assert {one.host for one in elsewhere.browse()} == {own.host}, "and what there is, it finds"


def test_who_knows_plain_dns_only_is_answered_too(standing: tuple[Vpn, Avahi]) -> None:
    vpn, _ = standing
    assert socket.inet_aton("192.168.77.1").hex() in ask(vpn.lab.lan, "eth0", "224.0.0.251")
    assert socket.inet_aton("192.168.77.1").hex() in ask(vpn.lab.lan, "eth0", "ff02::fb")


def test_status_tells_it(standing: tuple[Vpn, Avahi]) -> None:
    vpn, _ = standing
    assert f"by name      {NAME}" in vpn.lab.sshvpn("status").stdout


def test_what_speaks_to_strangers_has_no_rights_and_no_way_to_any(
    standing: tuple[Vpn, Avahi],
) -> None:
    gateway = standing[0].lab.gateway
    (pid,) = gateway.pids(LAN_SIDE)
    status = gateway.read(f"/proc/{pid}/status")
    for line in ("CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status
    environment = gateway.read(f"/proc/{pid}/environ")
    for name in ("SSH_AUTH_SOCK", "HOME=", "XDG_", "DBUS_"):
        assert name not in environment
    links = [
        str(link.readlink()) for link in gateway.host_path(f"/proc/{pid}/fd").iterdir()
    ]  # its own sockets, its input and output, and nothing of the supervisor's
    unix = {line.split()[6] for line in gateway.read(f"/proc/{pid}/net/unix").splitlines()[1:]}
    sockets = {link.removeprefix("socket:[").rstrip("]") for link in links if "socket" in link}
    assert len(sockets & unix) <= 2, "asyncio's own pair"


# -- who hears nothing -------------------------------------------------------------------------


def test_other_adapters_neither_hear_nor_are_answered(wide_vpn: Vpn) -> None:
    vpn, lab = wide_vpn, wide_vpn.lab
    elsewhere = {"wan0": lab.server, "lan1": lab.lan2}
    with (
        counted(lab.server, "prerouting", "udp dport 5353") as at_server,
        counted(lab.lan2, "prerouting", "udp dport 5353") as at_lan2,
        counted(lab.lan, "prerouting", "udp dport 5353") as at_lan,
    ):
        vpn.up("server", "--lan", "--lan-interface", "lan0", "--publish", "8888", "--portal")
        wait_named(vpn, NAME)
        for machine in elsewhere.values():
            adapter = "wan0" if machine is lab.server else "eth0"
            for group in ("224.0.0.251", "ff02::fb", "203.0.113.10", "192.168.77.1"):
                assert ask(machine, adapter, group) == ""
                assert ask(machine, adapter, group, "_http._tcp.local") == ""
        vpn.down()
    assert (at_server, at_lan2) == ([0], [0])
    assert at_lan[0] > 5, "the count counts"


def test_with_no_announce_nothing_is_said(vpn: Vpn) -> None:
    with counted(vpn.lab.lan, "prerouting", "udp dport 5353") as heard:
        vpn.up("server", "--lan", "--publish", "8888", "--no-announce")
        assert vpn.unreachable(vpn.published()) == []
        assert not [line for line in vpn.lab.gateway.processes().values() if LAN_SIDE in line]
        vpn.down()
    assert heard == [0]


# -- the end, and what is not yet one ----------------------------------------------------------


def test_down_withdraws_it_at_once(vpn: Vpn) -> None:
    avahi = Avahi(vpn.lab.lan, "tablet")
    vpn.up("server", "--lan", "--publish", "8888", "--portal")
    wait_browsed(avahi, PAGE, PORTAL)
    vpn.down()
    # What is said good-bye to lives for one second more (RFC 6762, 10.1).
    wait_until(lambda: not avahi.browse() and not avahi.resolve(NAME), 6, every=0.2)


def test_a_supervisor_that_is_killed_withdraws_it_too(vpn: Vpn) -> None:
    lab = vpn.lab
    avahi = Avahi(lab.lan, "tablet")
    vpn.up("server", "--lan", "--publish", "8888")
    wait_browsed(avahi, PAGE)
    lab.gateway.kill(vpn.record()["pid"])
    wait_until(lambda: not avahi.browse() and not avahi.resolve(NAME), 8, every=0.2)
    wait_until(lambda: not [p for p in lab.gateway.processes().values() if "sshvpn." in p])
    lab.sshvpn("clean")


def test_a_lost_connection_changes_nothing_of_it(vpn: Vpn) -> None:
    lab = vpn.lab
    avahi = Avahi(lab.lan, "tablet")
    vpn.up("server", "--lan", "--publish", "8888")
    wait_browsed(avahi, PAGE)
    with counted(lab.lan, "prerouting", "udp dport 5353") as heard:
        lab.server.sshd.stop()
        lab.server.sshd.kill_sessions()
        wait_until(lambda: vpn.record()["state"] == "backoff", 20, every=0.1)
        assert vpn.record()["names"] == [NAME]
        assert avahi.browse() == {PAGE}
        assert avahi.resolve(NAME) == GATEWAY
        lab.server.sshd.restart(PermitTunnel="yes")
        lab.gateway.kill(vpn.record()["pid"], 1)
        wait_until(lambda: vpn.record()["state"] == "running", 30, every=0.1)
    assert heard[0] < 40, "it was not said again and again"
    vpn.down()


def test_what_has_failed_is_listed_no_more_until_it_runs_again(vpn: Vpn) -> None:
    lab = vpn.lab
    avahi = Avahi(lab.lan, "tablet")
    vpn.up("server", "--lan", "--publish", "8888", "--portal")
    wait_browsed(avahi, PAGE, PORTAL)
    lab.server.sshd.change_host_keys()
    lab.server.sshd.kill_sessions()
    wait_until(lambda: vpn.record()["state"] == "failed", 20, every=0.1)
    wait_browsed(avahi, PORTAL)
    assert avahi.resolve(NAME) == GATEWAY, "the portal tells why there is nothing"
    lab.know(lab.server.sshd)
    lab.gateway.kill(vpn.record()["pid"], signal.SIGHUP)
    wait_until(lambda: vpn.record()["state"] == "running", 30, every=0.1)
    wait_browsed(avahi, PAGE, PORTAL)
    vpn.down()
    wait_until(lambda: not avahi.browse() and not avahi.resolve(NAME), 6, every=0.2)


def test_a_process_that_is_killed_comes_again(vpn: Vpn) -> None:
    lab = vpn.lab
    vpn.up("server", "--lan", "--publish", "8888")
    wait_named(vpn, NAME)
    (pid,) = lab.gateway.pids(LAN_SIDE)
    lab.gateway.kill(pid)
    wait_until(lambda: vpn.record()["names"] == [], every=0.05)
    wait_named(vpn, NAME)
    vpn.down()


# -- addresses and trust -----------------------------------------------------------------------


def test_the_name_follows_the_adapters_addresses(vpn: Vpn) -> None:
    lab = vpn.lab
    avahi = Avahi(lab.lan, "tablet")
    vpn.up("server", "--lan", "--publish", "8888")
    wait_resolved(avahi, NAME, *GATEWAY)
    lab.gateway.ip("-6", "address", "delete", "fd77::1/64", "dev", "lan0")
    wait_resolved(avahi, NAME, "192.168.77.1")
    lab.gateway.ip("-6", "address", "add", "fd77::1/64", "dev", "lan0", "nodad")
    wait_resolved(avahi, NAME, *GATEWAY)
    vpn.down()


def test_a_network_that_is_trusted_no_more_is_told_no_more(wide_vpn: Vpn) -> None:
    vpn, lab = wide_vpn, wide_vpn.lab
    avahi = Avahi(lab.lan, "tablet")
    vpn.up("server", "--lan", "--publish", "8888")
    wait_resolved(avahi, NAME, *GATEWAY)
    lab.server.sshd.stop()
    lab.server.sshd.kill_sessions()
    wait_until(lambda: vpn.record()["state"] == "backoff", 20, every=0.1)
    trust = f"{HOME}/.local/state/sshvpn/trust.json"
    lab.gateway.write(trust, json.dumps({"schema": 1, "networks": []}))
    lab.add_address("lan1", "192.168.79.1/24")
    wait_resolved(avahi, NAME)
    lab.server.sshd.restart(PermitTunnel="yes")
    lab.gateway.kill(vpn.record()["pid"], 1)
    wait_until(lambda: vpn.record()["state"] == "running", 30, every=0.1)
    assert avahi.resolve(NAME) == set()
    vpn.down()


def test_with_an_address_of_its_own_the_name_is_the_remote_hosts(vpn: Vpn) -> None:
    avahi = Avahi(vpn.lab.lan, "tablet")
    vpn.up("server", "--lan", "--lan-address", "192.168.77.50", "--publish", "9999:8888")
    wait_named(vpn, NAME, "server-gateway.local")
    wait_resolved(avahi, NAME, "192.168.77.50")
    wait_resolved(avahi, "server-gateway.local", *GATEWAY)
    wait_browsed(avahi, Found("server 9999", "server-gateway.local", "192.168.77.1", 9999))
    vpn.down()


def test_two_adapters_have_one_name_each_with_its_own_addresses(wide_vpn: Vpn) -> None:
    vpn, lab = wide_vpn, wide_vpn.lab
    avahi, avahi2 = Avahi(lab.lan, "tablet"), Avahi(lab.lan2, "laptop")
    vpn.up("server", "--lan", "--publish", "8888")
    wait_resolved(avahi, NAME, *GATEWAY)
    wait_resolved(avahi2, NAME, "192.168.78.1", "fd78::1")
    wait_browsed(avahi2, Found("server 8888", NAME, "192.168.78.1", 8888))
    vpn.down()


# -- conflicts ---------------------------------------------------------------------------------


def test_a_name_that_another_has_is_left_to_it(vpn: Vpn) -> None:
    lan = vpn.lab.lan
    avahi = Avahi(lan, "server")
    vpn.up("server", "--lan", "--publish", "8888")
    wait_named(vpn, "server-2.local")
    assert "server.local is another machine's name: trying server-2.local" in vpn.log()
    wait_resolved(avahi, "server-2.local", *GATEWAY)
    assert avahi.host_name == "server"
    assert lan.address in avahi.resolve("server.local")
    wait_browsed(avahi, Found("server-2 8888", "server-2.local", "192.168.77.1", 8888))
    vpn.down()


def test_a_name_that_is_ours_is_kept_from_who_comes_later(vpn: Vpn) -> None:
    vpn.up("server", "--lan", "--publish", "8888")
    wait_named(vpn, NAME)
    avahi = Avahi(vpn.lab.lan, "server")
    assert avahi.host_name == "server-2"
    assert vpn.record()["names"] == [NAME]
    wait_resolved(avahi, NAME, *GATEWAY)
    vpn.down()


@pytest.mark.parametrize("later_s", [0.0, 0.3, 0.6])
def test_two_who_claim_a_name_at_once_have_one_each(vpn: Vpn, later_s: float) -> None:
    """Both probe within the three quarters of a second that this takes (RFC 6762, 8.1 and 8.2)."""
    lan, gateway = vpn.lab.lan, vpn.lab.gateway
    vpn.up("server", "--lan", "--publish", "8888")
    wait_named(vpn, NAME)
    (pid,) = gateway.pids(LAN_SIDE)
    gateway.kill(pid)
    wait_until(lambda: gateway.pids(LAN_SIDE) not in ([], [pid]), every=0.01)
    time.sleep(later_s)
    avahi = Avahi(lan, "server")

    def names() -> set[str]:
        return {*vpn.record()["names"], f"{avahi.host_name}.local"}

    wait_until(lambda: len(names()) == 2, 20, what=f"{names()}\n{vpn.log()}", every=0.1)
    (ours,) = vpn.record()["names"]
    wait_resolved(avahi, ours, *GATEWAY)
    assert lan.address in avahi.resolve(f"{avahi.host_name}.local")
    assert names() == {NAME, "server-2.local"}
    vpn.down()


# RFC 6762, 9: names that are held, each free where it was taken, until two networks are one.


def test_where_two_networks_become_one_each_machine_has_a_name(vpn: Vpn) -> None:
    with two_networks(vpn, "server") as avahi:
        assert avahi.host_name == "server"

    def names() -> set[str]:
        ask(vpn.lab.gateway, "lan0", "224.0.0.251")  # as somebody does, sooner or later
        return {*vpn.record()["names"], f"{avahi.host_name}.local"}

    wait_until(lambda: names() == {NAME, "server-2.local"}, 30, what=f"{names()}", every=0.2)
    (ours,) = vpn.record()["names"]
    wait_resolved(avahi, ours, *GATEWAY)
    vpn.down()


def test_where_two_networks_become_one_each_service_has_a_name(vpn: Vpn) -> None:
    with two_networks(vpn, "tablet") as avahi:
        words = ["avahi-publish", "-s", "server 8888", "_http._tcp", "1234"]
        publishing = vpn.lab.lan.popen(words)
        wait_until(lambda: ("server 8888", 1234) in listed(avahi), every=0.2)

    def are_two() -> bool:
        ask(vpn.lab.gateway, "lan0", "224.0.0.251", "server 8888._http._tcp.local", _SRV)
        return {("server 8888", 8888), ("server 8888 #2", 1234)} <= listed(avahi)

    wait_until(are_two, 30, what=f"{listed(avahi)}", every=0.2)
    publishing.end()
    vpn.down()
    wait_until(lambda: ("server 8888", 8888) not in listed(avahi), 6, every=0.2)


@contextlib.contextmanager
def two_networks(vpn: Vpn, host_name: str) -> Iterator[Avahi]:
    """Share the page; to avahi, HOST_NAME.local, that is another network until the block ends."""
    vpn.up("server", "--lan", "--publish", "8888")
    wait_named(vpn, NAME)
    lan = vpn.lab.lan
    lan.nft(f"table inet apart {{\n{_APART}\n}}\n")
    yield Avahi(lan, host_name)
    lan.nft("delete table inet apart")


def listed(avahi: Avahi) -> set[tuple[str, int]]:
    """Return the web services that AVAHI knows: name, port."""
    return {(one.instance, one.port) for one in avahi.browse()}


def test_a_services_name_that_another_has_is_left_to_it(vpn: Vpn) -> None:
    lan = vpn.lab.lan
    avahi = Avahi(lan, "tablet")
    ours = PAGE._replace(instance="server 8888-2")

    def of_ours() -> set[Found]:
        """Return what is listed, but for the service of that other machine."""
        return {one for one in avahi.browse() if one.host != theirs.host}

    with avahi.publishing("server 8888", 1234) as theirs:
        vpn.up("server", "--lan", "--publish", "8888")
        wait_until(lambda: of_ours() == {ours}, 15, every=0.2)
        assert theirs in avahi.browse()
        assert vpn.record()["names"] == [NAME], "the host's name is nobody else's"
        vpn.down()
        wait_until(lambda: not of_ours(), 6, every=0.2)
        assert theirs in avahi.browse()


def test_the_gateways_own_avahi_goes_on_beside_it(vpn: Vpn) -> None:
    lab = vpn.lab
    own, avahi = Avahi(lab.gateway, "gateway"), Avahi(lab.lan, "tablet")
    vpn.up("server", "--lan", "--publish", "8888")
    wait_named(vpn, NAME)
    wait_resolved(avahi, NAME, *GATEWAY)
    assert "192.168.77.1" in avahi.resolve("gateway.local")
    assert own.resolve4(NAME) == "192.168.77.1"
    wait_browsed(avahi, PAGE)
    vpn.down()
    assert own.host_name == "gateway"
    assert "192.168.77.1" in avahi.resolve("gateway.local")


# -- a forward ---------------------------------------------------------------------------------


def test_a_forward_that_is_shared_has_a_name_too(own_office: Office) -> None:
    office = own_office
    office.web()
    avahi = Avahi(office.lab.lan, "tablet")
    office.forward("server", "9999:8888", "--lan", "--name", "notebook")
    wait_resolved(avahi, "notebook.local", *GATEWAY)
    wait_until(
        lambda: Found("notebook 9999", "notebook.local", "192.168.77.1", 9999) in avahi.browse(),
        every=0.2,
    )
    assert office.only()["names"] == ["notebook.local"]
    office.sshvpn("down")
    wait_until(lambda: not avahi.browse() and not avahi.resolve("notebook.local"), 6, every=0.2)


def test_a_forward_by_bind_or_on_loopback_tells_nobody(office: Office) -> None:
    office.web()
    for words in ((), ("--bind", "lan0")):
        office.forward("server", "9999:8888", *words)
        assert office.only()["names"] == []
        assert not office.pids(LAN_SIDE)
        office.sshvpn("down")

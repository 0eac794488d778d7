"""A connection of either transport: what it carries besides packets, its life and its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.contract.agent_site import processes_gone
from tests.contract.carrier_site import (
    Carrier,
    Refused,
    carrier,
    give_bob_a_tun,
    lab,
    only_w,
    pings,
    transport,
    use,
)
from tests.lab import Lab, wait_until
from tests.lab.dump import difference

__all__ = ["carrier", "lab", "transport"]

Make = Callable[..., Carrier]
END = ("10.83.0.2/30",)
LIMITED = 'tunnel="8",command="/bin/false"'


@pytest.fixture
def root(lab: Lab) -> Iterator[Lab]:
    """Let alice's key log in as root, who may do everything."""
    lab.server.authorize("root")
    yield lab
    processes_gone(lab)


def agent_pids(lab: Lab) -> list[str]:
    """Return the agents on the server: not the pumps, nor what an agent forked for a moment."""
    return [str(pid) for pid in lab.server.pids("sshvpn-agent", but="zlib")]


def sweep(one: Carrier) -> None:
    """Let an agent undo what one that was killed could not."""
    one.connect(user="root")
    one.close()


def unchanged(lab: Lab, before: str) -> None:
    wait_until(lambda: not difference(before, lab.server.dump(), "server"), what="not as before")


def signal(lab: Lab, one: Carrier, name: str) -> None:
    lab.gateway.run(["kill", f"-{name}", str(one.ssh_pid())])


# What else it carries -------------------------------------------------------------------------


def test_a_listener_comes_and_goes_over_the_same_connection(root: Lab, carrier: Make) -> None:
    root.server.http_server(8888)
    one = carrier()
    one.connect(user="root")
    port = one.listen(8888)
    url = f"http://127.0.0.1:{port}/"
    assert "server" in root.gateway.run(["curl", "-fsS", url]).stdout
    one.unlisten()
    assert root.gateway.run(["curl", "-fsS", url], check=False).returncode != 0
    one.configure(*END)  # it stands
    one.close()


def test_life_grows_with_what_the_server_says(root: Lab, carrier: Make) -> None:
    one = carrier()
    one.connect(user="root")
    one.configure(*END)
    use(root)
    before = one.life()
    assert before > 0
    wait_until(lambda: pings(root.gateway, "10.83.0.2"), what="no packet crosses")
    assert one.life() > before
    one.close()
    assert one.life() == 0


def test_the_peers_are_where_the_connection_goes(lab: Lab, carrier: Make) -> None:
    assert set(carrier().peers()) == {"203.0.113.20/32", "2001:db8:113::20/128"}
    assert carrier().peers(host="198.51.100.7") == ["198.51.100.7/32"]
    assert carrier().peers(host="nosuch") == []
    jump = {"jump": "inner,lan"}
    assert set(carrier().peers(ssh=jump)) == {"10.20.0.10/32", "fd20::10/128"}
    lab.gateway.write("/home/alice/.ssh/config", "Host inner\n  ProxyJump lan\n")
    assert set(carrier().peers(ssh=jump)) == {"192.168.77.10/32", "fd77::10/128"}


@pytest.mark.usefixtures("root")
def test_behind_a_proxy_the_peer_is_known_while_it_stands(carrier: Make) -> None:
    one = carrier()
    options = [["ProxyCommand", "busybox nc 203.0.113.20 %p"]]
    proxied = {"ssh": {"options": options}, "user": "root"}
    assert one.peers(**proxied) == []
    one.connect(**proxied)
    assert one.peers(**proxied) == ["203.0.113.20/32"]
    one.close()


# Its end --------------------------------------------------------------------------------------


def test_a_server_that_ends_the_session_is_a_lost_connection(root: Lab, carrier: Make) -> None:
    one = carrier()
    one.connect(user="root")
    root.server.sshd.kill_sessions()
    lost = one.refused("wait_closed")
    assert (lost.code, lost.retry) == ("lost", "forever")
    one.close()
    sweep(one)


def test_an_ssh_that_is_killed_is_a_lost_connection(root: Lab, carrier: Make) -> None:
    before = root.server.dump()
    one = carrier()
    one.connect(user="root")
    one.configure(*END)
    signal(root, one, "KILL")
    assert one.refused("wait_closed").message == "ssh was ended by signal 9"
    one.close()
    unchanged(root, before)


def test_an_agent_that_is_killed_is_a_lost_connection(root: Lab, carrier: Make) -> None:
    before = root.server.dump()
    one = carrier()
    one.connect(user="root")
    one.configure(*END)
    root.server.run(["kill", "-9", *agent_pids(root)], user="root")
    lost = one.refused("wait_closed")
    assert (lost.code, "agent" in lost.message) == ("lost", True)
    one.close()
    sweep(one)
    unchanged(root, before)


def test_an_agent_that_does_not_answer_is_a_lost_connection(root: Lab, carrier: Make) -> None:
    one = carrier(beat_s=0.2, lease_s=2)
    one.connect(user="root")
    time_of_beats = time.monotonic()
    while time.monotonic() < time_of_beats + 3:
        assert not one.is_closed()  # beats keep the lease
    pids = agent_pids(root)
    root.server.run(["kill", "-STOP", *pids], user="root")
    lost = one.refused("wait_closed")
    assert lost.message == "the agent on the server has not answered for 2 s"
    one.close()
    root.server.run(["kill", "-KILL", *pids], user="root", check=False)
    sweep(one)


def test_a_supervisor_that_is_killed_leaves_nothing(root: Lab, carrier: Make) -> None:
    before = root.server.dump()
    one = carrier()
    one.connect(user="root")
    one.configure(*END)
    one.kill()
    unchanged(root, before)
    wait_until(
        lambda: not any("mux" in line for line in root.gateway.processes().values()),
        what="an ssh of ours is left",
    )


def test_a_connect_that_is_given_up_leaves_nothing(lab: Lab, carrier: Make) -> None:
    lab.server.allow_sudo("alice")
    before = lab.server.dump()
    one = carrier()
    for timeout in (0.02, 0.1, 0.2, 0.3, 0.4, 0.6):
        with contextlib.suppress(Refused):
            one.connect(timeout=timeout)
            one.close()
        processes_gone(lab)
        unchanged(lab, before)
    assert not [name for name in lab.gateway.run(["ls", "/home/alice/private0"]).stdout.split()
                if name != "ssh_config"]  # fmt: skip


def test_close_does_not_wait_for_a_network_that_is_gone(root: Lab, carrier: Make) -> None:
    one = carrier()
    one.connect(user="root")
    one.configure(*END)
    root.cut()
    begun = time.monotonic()
    one.close()
    assert time.monotonic() - begun < 2
    root.restore()


def test_a_network_that_is_gone_is_a_lost_connection(root: Lab, carrier: Make) -> None:
    one = carrier()
    one.connect(user="root")
    root.cut()
    lost = one.refused("wait_closed")
    assert (lost.code, "does not answer" in lost.message) == ("lost", True)
    one.close()
    root.restore()


# A session of ours that the server still has --------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [{"user": "root"}, {"user": "alice"}, {"user": "bob", "remote_device": "tun8"}],
    ids=["root", "sudo", "device"],
)
def test_a_new_login_takes_over_from_a_stale_session(
    lab: Lab, carrier: Make, words: dict[str, str]
) -> None:
    takes_over(lab, carrier, "", words)


@only_w
def test_a_new_login_takes_the_unit_that_its_key_pins_from_a_stale_session(
    lab: Lab, carrier: Make
) -> None:
    takes_over(lab, carrier, 'tunnel="8"', {"user": "bob"})


def takes_over(lab: Lab, carrier: Make, options: str, words: dict[str, str]) -> None:
    lab.server.authorize("root")
    lab.server.authorize("bob", options)
    lab.server.allow_sudo("alice")
    give_bob_a_tun(lab)
    stale, fresh = carrier(), carrier()
    stale.connect(**words)
    signal(lab, stale, "STOP")
    assert fresh.connect(unit=1, **words)["device"]
    assert fresh.life() > 0
    fresh.close()
    stale.end()
    processes_gone(lab)
    lab.server.ip("link", "delete", "tun8")


@only_w
def test_a_limited_key_waits_until_the_server_gives_the_stale_session_up(
    lab: Lab, carrier: Make
) -> None:
    lab.server.authorize("bob", LIMITED)
    give_bob_a_tun(lab)
    words = {"user": "bob", "remote_device": "tun8", "address": "10.83.0.1/30"}
    stale, fresh = carrier(), carrier()
    fresh.connect(unit=1, **words)
    fresh.close()
    stale.connect(**words)
    signal(lab, stale, "STOP")
    held = fresh.refused("connect", unit=1, **words)
    assert (held.code, held.retry) == ("unreachable", "forever")
    assert "ClientAliveInterval" in held.hint
    stale.end()
    assert fresh.connect(unit=1, **words) is None
    fresh.close()
    lab.server.ip("link", "delete", "tun8")

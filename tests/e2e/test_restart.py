"""`sshvpn restart`: a new connection, what was edited applied as a difference, open flows live on.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
            alice edits config.toml     :7 echo on localhost   :7 echo, :8000
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.office import HOME, Office, Talk
from tests.e2e.test_up_faults import ECHO, ssh_pids
from tests.e2e.vpn import Vpn, either_transport
from tests.lab import Lab, wait_until

TUNNEL = """
[tunnels.office]
host = "server"
lan = true
publish = ["7"]
routes = ["10.20.0.0/24"]
"""
SIX = TUNNEL.replace('"10.20.0.0/24"', '"10.20.0.0/24", "fd20::/64"')


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose server takes alice's tunnels as root."""
    return office_with_echoes(lab)


def office_with_echoes(lab: Lab, transport: str | None = None) -> Vpn:
    vpn = Vpn(lab, transport=transport)
    lab.server.tcp_server(ECHO)
    lab.inner.tcp_server(ECHO, "::")
    return vpn


def config(vpn: Vpn, text: str) -> None:
    vpn.lab.gateway.write(f"{HOME}/.config/sshvpn/config.toml", text)


def start(vpn: Vpn, text: str = TUNNEL, *args: str) -> dict[str, object]:
    """Bring the profile up, on a LAN that is trusted."""
    config(vpn, text)
    vpn.up("office", "--lan", *args)
    return vpn.record()


def restart(vpn: Vpn, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = vpn.lab.sshvpn("restart", *(args or ("office",)), check=False)
    assert result.returncode == code, result
    assert "Traceback" not in result.stderr
    return result


def talks(vpn: Vpn) -> list[Talk]:
    """Open streams from lan: to what is published, and to what is routed."""
    office = Office(vpn.lab)
    found = [
        office.talk(host, ECHO, machine=vpn.lab.lan) for host in ("192.168.77.1", "10.20.0.10")
    ]
    for talk in found:
        assert talk.is_answered("before")
    return found


@either_transport
def test_a_route_is_added_and_streams_live_on(lab: Lab, transport: str | None) -> None:
    vpn = office_with_echoes(lab, transport)
    six = {"http://[fd20::10]:8000/": "inner"}
    with vpn.lab.unchanged():
        before = start(vpn)
        open_streams = talks(vpn)
        assert vpn.unreachable(six, timeout=0.5) == [*six]
        ssh = ssh_pids(vpn)
        config(vpn, SIX)
        restart(vpn)
        for talk in open_streams:
            assert talk.is_answered("after")
            talk.close()
        assert vpn.unreachable({**vpn.inner(), **six}) == []
        after = vpn.record()
        for key in ("device", "pid", "local_addresses", "remote_addresses", "published"):
            assert after[key] == before[key], key
        assert ssh_pids(vpn) != ssh, "the connection is a new one"
        vpn.down()


def test_what_is_taken_out_goes_and_the_rest_stays(vpn: Vpn) -> None:
    start(vpn, SIX)
    [published, routed] = talks(vpn)
    config(vpn, TUNNEL.replace('routes = ["10.20.0.0/24"]', ""))
    restart(vpn)
    assert vpn.unreachable(vpn.inner(), timeout=0.5) == [*vpn.inner()]
    assert published.is_answered("after")
    routed.close()
    assert not set(vpn.record()["routes"]) & {"10.20.0.0/24", "fd20::/64"}
    vpn.down()


def test_what_was_typed_holds_beside_what_was_edited(vpn: Vpn) -> None:
    start(vpn, TUNNEL, "--route", "fd20::/64", "--mtu", "1400")
    config(vpn, TUNNEL.replace('publish = ["7"]', 'publish = ["8888"]'))
    restart(vpn)
    record = vpn.record()
    assert "fd20::/64" in record["routes"], "what was typed goes before the profile"
    assert record["mtu"] == 1400
    assert vpn.unreachable({**vpn.published(), "http://[fd20::10]:8000/": "inner"}) == []
    vpn.down()


def test_without_a_profile_the_connection_is_made_anew(vpn: Vpn) -> None:
    vpn.up()
    (talk, *others) = talks_of_shared(vpn)
    ssh = ssh_pids(vpn)
    assert restart(vpn, "server").stdout == "server has a new connection\n"
    assert ssh_pids(vpn) != ssh
    assert talk.is_answered("after")
    for one in (talk, *others):
        one.close()
    assert vpn.unreachable(vpn.everything()) == []
    vpn.down()


def talks_of_shared(vpn: Vpn) -> list[Talk]:
    talk = Office(vpn.lab).talk("10.20.0.10", ECHO, machine=vpn.lab.lan)
    assert talk.is_answered("before")
    return [talk]


@pytest.mark.parametrize(
    ("code", "edit", "said"),
    [
        (2, lambda text: text.replace("10.20.0.0/24", "192.168.0.0/16"), "overlaps 192.168.77"),
        (2, lambda text: text.replace("10.20.0.0/24", "10.20.0.0/44"), "config.toml:6"),
        (2, lambda text: text.replace("[tunnels.office]", "[tunnels.other]"), "no profile office"),
        (2, lambda text: text + 'lan_interfaces = ["nope0"]\n', "nope0"),
        (5, lambda text: text.replace('"server"', '"nobody@server"'), "refused the login"),
        (7, lambda text: text + 'lan_address = "192.168.77.10"\n', "in use"),
    ],
    ids=["overlap", "syntax", "gone", "adapter", "refused", "taken"],
)
def test_a_profile_that_cannot_be_is_told_and_the_one_before_goes_on(
    vpn: Vpn, code: int, edit: Callable[[str], str], said: str
) -> None:
    before = start(vpn)
    open_streams = talks(vpn)
    config(vpn, edit(TUNNEL))
    told = restart(vpn, code=code)
    assert said in told.stderr
    assert 1 <= len(told.stderr.splitlines()) <= 2, told.stderr
    wait_until(lambda: vpn.record()["state"] == "running", 20)
    for talk in open_streams:
        assert talk.is_answered("after")
        talk.close()
    assert vpn.record()["routes"] == before["routes"]
    config(vpn, SIX)
    restart(vpn)
    assert "fd20::/64" in vpn.record()["routes"]
    vpn.down()


def test_a_server_that_is_away_is_waited_for(vpn: Vpn) -> None:
    start(vpn, TUNNEL.replace("lan = true", "lan = true\ntimeout = 3"))
    vpn.lab.server.sshd.stop()
    told = restart(vpn, code=6)
    assert "still waits" in told.stderr
    vpn.lab.server.sshd.start()
    wait_until(lambda: vpn.record()["state"] == "running", 30)
    vpn.down()


def test_what_is_not_up_cannot_be_restarted(vpn: Vpn) -> None:
    assert "nothing called office is up" in restart(vpn, code=3).stderr


# Forwards -------------------------------------------------------------------------------------

FORWARD = '[forwards.echo]\nhost = "server"\nspecs = ["9007:7"]\n'
ENGINES = pytest.mark.parametrize("engine", ["openssh", "sshtunnel"])


@ENGINES
def test_a_forward_gets_another_port_and_its_streams_live_on(vpn: Vpn, engine: str) -> None:
    office = Office(vpn.lab)
    profile = f'{FORWARD}engine = "{engine}"\n'
    config(vpn, profile)
    with vpn.lab.unchanged():
        office.forward("echo")
        stream = office.talk("127.0.0.1", 9007)
        assert stream.is_answered("before")
        config(vpn, profile.replace('"9007:7"', '"9007:7", "9008:8888"'))
        restart(vpn, "echo")
        assert stream.is_answered("after")
        assert "notebook" in office.fetch("http://127.0.0.1:9008/")
        fresh = office.talk("127.0.0.1", 9007)
        assert fresh.is_answered("new")
        fresh.close()
        restart(vpn, "echo")
        assert stream.is_answered("after two")
        stream.close()
        count = 1 if engine == "openssh" else 0
        wait_until(lambda: len(office.pids("ssh -N")) == count, 10)
        office.sshvpn("down", "echo")
    office.wait_gone()


def test_a_forward_whose_new_port_is_taken_keeps_the_ones_it_has(vpn: Vpn) -> None:
    office = Office(vpn.lab)
    config(vpn, FORWARD)
    office.forward("echo")
    vpn.lab.gateway.tcp_server(9008)
    config(vpn, FORWARD.replace('"9007:7"', '"9007:7", "9008:8888"'))
    assert "9008" in restart(vpn, "echo", code=7).stderr
    wait_until(lambda: office.only()["state"] == "running", 20)
    stream = office.talk("127.0.0.1", 9007)
    assert stream.is_answered("again")
    office.sshvpn("down", "echo")

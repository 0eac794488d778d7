"""Other Debian releases, of 2021 and of 2025: a server that is of one, or the gateway's ssh.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
            ssh                  sshd, and all that it starts: python3, ip, nft, sudo, sh
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.office import Office
from tests.e2e.test_up_logins import LIMITED, office, remote
from tests.e2e.vpn import Vpn, answers_ping
from tests.lab import Lab
from tests.lab.releases import RELEASES, can_be_had, enter, give_ssh

pytestmark = pytest.mark.lab

BY_BBR = {"local": "bbr", "remote": "bbr", "notes": []}


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Return the name of a release that can be had."""
    if not can_be_had(request.param):
        pytest.skip(f"{request.param} cannot be had here")
    return str(request.param)


@pytest.fixture
def lab(make_lab: Callable[..., Lab], release: str) -> Lab:
    """Return a laboratory whose server is of that release."""
    lab = make_lab()
    enter(lab.server, release)
    lab.server.sshd.restart()
    lab.checkpoint()
    return lab


def test_the_server_is_of_that_release(lab: Lab, release: str) -> None:
    code = "import socket; print(socket.create_connection(('server', 22)).recv(100).decode())"
    assert RELEASES[release] in lab.gateway.python(code)
    told = lab.gateway.run(["ssh", "server", "cat /etc/os-release"]).stdout
    assert f"VERSION_CODENAME={release}\n" in told


@pytest.mark.parametrize("transport", ["w", "stream"])
@pytest.mark.parametrize("login", ["root", "alice"])
def test_a_tunnel_carries_the_lan_lives_on_and_leaves_nothing(
    lab: Lab, login: str, transport: str
) -> None:
    vpn = Vpn(lab, login=login, transport=transport)
    with lab.unchanged():
        vpn.up()
        assert vpn.unreachable(vpn.everything()) == []
        record = vpn.record()
        assert (record["transport"], record["congestion_control"]) == (transport, BY_BBR)
        assert lab.server.sshd.kill_sessions() > 0
        vpn.wait_reachable(vpn.everything())
        assert vpn.record()["reconnects"] == 1
        vpn.down()
    assert lab.sshvpn("clean").stdout == "nothing was left behind\n"


@pytest.mark.parametrize(
    ("login", "transport"), [("tun", "stream"), ("tun", "w"), ("key", "w")], ids=" ".join
)
def test_who_has_no_rights_there_has_a_tun_of_his_own(lab: Lab, login: str, transport: str) -> None:
    """The key is limited to the tunnel in authorized_keys, as docs/server.md has it."""
    vpn = office(lab, login, transport)
    with lab.unchanged():
        vpn.up("office", "--lan")
        assert vpn.unreachable({**vpn.published(), f"http://{remote(vpn)}:8080/": "server"}) == []
        assert answers_ping(lab.lan, remote(vpn))
        vpn.down()


def test_restrict_keeps_no_tunnel_away_up_to_here(lab: Lab) -> None:
    """What docs/server.md says of these; later sources of OpenSSH refuse it."""
    vpn = office(lab, "key", "w")
    lab.server.authorize("bob", f"restrict,{LIMITED}")
    with lab.unchanged():
        vpn.up("office", "--lan")
        assert answers_ping(lab.lan, remote(vpn))
        vpn.down()


def test_a_forward_and_a_key_that_is_limited_to_it(lab: Lab) -> None:
    """As docs/service.md has it."""
    desk = Office(lab)
    lab.server.http_server(8888, title="notebook")
    options = 'restrict,port-forwarding,permitopen="localhost:8888",command="/bin/false"'
    lab.server.authorize("alice", options)
    with lab.unchanged():
        desk.forward("9999:8888", "server")
        page = lab.gateway.run(["curl", "-s", "--max-time", "5", "http://localhost:9999/"]).stdout
        assert "<title>notebook</title>" in page
        assert desk.only()["congestion_control"]["local"] == "bbr"
        lab.sshvpn("down", "--all")


@pytest.mark.parametrize("transport", ["w", "stream"])
def test_the_gateways_ssh_may_be_of_another_release(
    make_lab: Callable[..., Lab], release: str, transport: str
) -> None:
    lab = make_lab()
    give_ssh(lab.gateway, release)
    lab.checkpoint()
    assert RELEASES[release] in lab.gateway.run(["ssh", "-V"]).stderr
    vpn = Vpn(lab, login="alice", transport=transport)
    desk = Office(lab)
    with lab.unchanged():
        vpn.up()
        desk.forward("9999:8888", "server")
        pages = {**vpn.everything()}
        assert vpn.unreachable(pages) == []
        assert vpn.record()["congestion_control"] == BY_BBR
        lab.server.sshd.kill_sessions()
        vpn.wait_reachable(pages)
        desk.wait_state("running")
        page = lab.gateway.run(["curl", "-s", "--max-time", "5", "http://localhost:9999/"]).stdout
        assert "<title>notebook</title>" in page
        lab.sshvpn("down", "--all")

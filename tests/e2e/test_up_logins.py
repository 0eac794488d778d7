"""`sshvpn up` with each of the logins that a server may give, and with the logins people have.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
                                 root · alice, sudo · bob, a tun of his · bob, a key for that alone
"""

from __future__ import annotations

import pytest

from tests.contract.agent_site import BUSYBOX_IP, other_ip
from tests.contract.carrier_site import give_bob_a_tun
from tests.e2e.office import HOME
from tests.e2e.test_up_faults import _SEND_EMPTY
from tests.e2e.vpn import Vpn, answers_ping
from tests.lab import Lab, wait_until

pytestmark = pytest.mark.lab

# As docs/server.md has it.
LIMITED = (
    'tunnel="8",command="/bin/false",no-pty,no-agent-forwarding,no-X11-forwarding,no-user-rc,'
    'permitopen="localhost:8888"'
)
PROFILE = '[tunnels.office]\nhost = "{user}@server"\nlan = true\npublish = ["8888"]\n'
OWN_TUN = 'remote_device = "tun8"\n'
ADDRESS = 'address = "10.83.0.1/30"\n'
LOGINS = ["root", "sudo", "tun", "key"]


# A key for ssh's tunnel alone runs no pump.
WAYS = [f"{login} {way}" for way in ("w", "stream") for login in LOGINS if login != "key"]


@pytest.fixture(params=[*WAYS, "key w"])
def vpn(lab: Lab, request: pytest.FixtureRequest) -> Vpn:
    """Return an office with a profile for the login of the parameter, and its transport."""
    login, transport = request.param.split()
    return office(lab, login, transport)


def office(lab: Lab, login: str, transport: str | None = None) -> Vpn:
    vpn = Vpn(lab, login="root" if login == "root" else "alice", transport=transport)
    lab.server.run(["rm", "-f", "/etc/sudoers.d/alice"], user="root")
    user, more = "root", ""
    if login == "sudo":
        user = "alice"
        lab.server.allow_sudo("alice")
    elif login in ("tun", "key"):
        user, more = "bob", OWN_TUN + (ADDRESS if login == "key" else "")
        lab.server.authorize("bob", LIMITED if login == "key" else "")
        give_bob_a_tun(lab)
        # The first carrier would bring an address and routes of the kernel's own, which stay.
        path = "/proc/sys/net/ipv6/conf/tun8/disable_ipv6"
        lab.server.run(["sh", "-c", f"echo 1 >{path}"], user="root")
        lab.checkpoint()
    text = PROFILE.format(user=user) + more
    lab.gateway.write(f"{HOME}/.config/sshvpn/config.toml", text)
    return vpn


def remote(vpn: Vpn) -> str:
    return str(vpn.record()["remote_address"]).partition("/")[0]


def test_every_login_carries_the_lan_and_leaves_nothing(
    vpn: Vpn, request: pytest.FixtureRequest
) -> None:
    login, _ = request.node.callspec.params["vpn"].split()
    with vpn.lab.unchanged():
        vpn.up("office", "--lan")
        pages = {**vpn.published(), f"http://{remote(vpn)}:8080/": "server"}
        assert vpn.unreachable(pages) == []
        assert answers_ping(vpn.lab.lan, remote(vpn))
        record = vpn.record()
        unknown = {key for key, value in record.items() if value is None}
        assert unknown <= {"last_error", "retry_at"}
        translated = login in ("root", "sudo")
        assert {one["survives_reconnect"] for one in record["published"]} == {translated}
        vpn.down()
    assert vpn.lab.sshvpn("clean").stdout == "nothing was left behind\n"


@pytest.mark.parametrize("login", ["tun", "key"])
def test_what_cannot_be_guarded_is_noticed_and_connected_anew(lab: Lab, login: str) -> None:
    vpn = office(lab, login, "w")
    vpn.up("office", "--lan")
    before = vpn.record()
    source, target = remote(vpn), before["local_address"].partition("/")[0]
    lab.server.python(_SEND_EMPTY, source, target, user="root")
    wait_until(
        lambda: vpn.record()["reconnects"] > 0 and vpn.record()["state"] == "running", 40, every=0.2
    )
    assert vpn.unreachable({**vpn.published(), f"http://{remote(vpn)}:8080/": "server"}) == []
    vpn.down()


@pytest.mark.parametrize("shell", ["/usr/bin/fish", "/usr/bin/tcsh", "/usr/bin/zsh"])
def test_a_login_shell_of_ones_own_a_banner_and_noise(lab: Lab, shell: str) -> None:
    vpn = Vpn(lab, login="alice")
    server = lab.server
    server.run(["chsh", "-s", shell, "alice"], user="root")
    server.write("/etc/banner", "Welcome, \x1b[1mstranger\x1b[0m!\nok\nready\n", "root", 0o644)
    server.sshd.restart(PermitTunnel="yes", Banner="/etc/banner", PrintMotd="yes")
    for name in (".bashrc", ".profile", ".zshenv", ".cshrc", ".tcshrc"):
        server.write(f"/home/alice/{name}", "echo hello 1\necho 'error usage x'\n", "alice")
    server.write("/home/alice/.config/fish/config.fish", "echo hello 1\n", "alice")
    vpn.up("server", "--lan", "--publish", "8888")
    assert vpn.unreachable({**vpn.published(), **vpn.remote()}) == []
    vpn.down()
    server.run(["chsh", "-s", "/bin/bash", "alice"], user="root")


@pytest.mark.parametrize("transport", [None, "w"], ids=["auto", "w"])
def test_a_server_whose_ip_is_busyboxs(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, login="alice", transport=transport)
    with lab.unchanged(), other_ip(lab.server, BUSYBOX_IP):
        vpn.up()
        assert vpn.unreachable(vpn.everything()) == []
        assert vpn.record()["transport"] == (transport or "stream")
        vpn.down()


@pytest.mark.parametrize(
    ("code", "cidr"),
    [(7, "192.168.77.130/25"), (7, "203.0.113.21/28"), (5, "10.0.0.1/7"), (5, "127.0.0.5/8")],
)
def test_a_server_cannot_draw_our_own_traffic_to_itself_by_the_addresses_of_its_tun(
    lab: Lab, code: int, cidr: str
) -> None:
    vpn = office(lab, "tun")
    lab.server.ip("address", "flush", "dev", "tun8")
    lab.server.ip("address", "add", cidr, "dev", "tun8")
    with lab.unchanged():
        told = vpn.lab.sshvpn("up", "office", "--lan", check=False)
        assert told.returncode == code, told
        assert "the server's tun has" in told.stderr
    lab.server.ip("link", "delete", "tun8")
    lab.checkpoint()

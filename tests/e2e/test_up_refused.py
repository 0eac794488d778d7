"""A server that gives no tunnel: exit 5, the line that mends it, and nothing left on either side.

The line is typed at the server, as it says, and the same `up` succeeds.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.office import HOME
from tests.e2e.vpn import Vpn, without_program
from tests.lab import Lab, LabMachine

pytestmark = pytest.mark.lab

NO_LINK_LOCAL = "sysctl -qw net.ipv6.conf.tun8.disable_ipv6=1"
"""Or the kernel gives it an address of its own when it is first used."""
PROFILE = '[tunnels.server]\nhost = "alice@server"\n{}\n'
TRANSPORTS = [None, "w", "stream"]
every_transport = pytest.mark.parametrize("transport", TRANSPORTS, ids=["auto", "w", "stream"])


@contextlib.contextmanager
def without(machine: LabMachine, path: str) -> Iterator[None]:
    """Hide what is at PATH from all programs of MACHINE, until the end."""
    machine.run(["mv", path, f"{path}.away"], user="root")
    try:
        yield
    finally:
        machine.run(["mv", f"{path}.away", path], user="root")


def refused(vpn: Vpn, *args: str) -> list[str]:
    """Assert that `up` is refused, in two lines at most; return them."""
    result: subprocess.CompletedProcess[str] = vpn.try_up("server", "--no-lan", *args)
    assert result.returncode == 5, result
    assert result.stdout == ""
    said = result.stderr.splitlines()
    assert 1 <= len(said) <= 2, said
    assert said[0].startswith("sshvpn: ")
    return said


def comes_up(vpn: Vpn) -> None:
    vpn.up("server", "--no-lan")
    vpn.down()


def test_a_server_that_permits_no_tunnel(lab: Lab) -> None:
    vpn = Vpn(lab, transport="w", services=False)
    lab.server.sshd.restart(PermitTunnel="no")
    with lab.unchanged():
        said = refused(vpn)
        assert "PermitTunnel" in said[-1]
    lab.server.sshd.restart(PermitTunnel="point-to-point")
    comes_up(vpn)


Hide = Callable[[LabMachine, str], contextlib.AbstractContextManager[None]]
MISSING: dict[str, tuple[Hide, str]] = {
    "/dev/net/tun": (without, "modprobe tun"),
    "ip": (without_program, "apt install iproute2"),
}


@every_transport
@pytest.mark.parametrize("what", MISSING)
def test_a_server_without(lab: Lab, what: str, transport: str | None) -> None:
    vpn = Vpn(lab, transport=transport, services=False)
    hide, mend = MISSING[what]
    with lab.unchanged():
        with hide(lab.server, what):
            said = refused(vpn)
        assert f"on the server, as root: {mend}" in said[-1]
        comes_up(vpn)


@every_transport
def test_a_server_without_a_packet_filter(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, transport=transport, services=False)
    server = lab.server
    with lab.unchanged(), contextlib.ExitStack() as held:
        for name in ("nft", "iptables"):  # ip6tables is the same program
            held.enter_context(without_program(server, name))
        said = refused(vpn, "--route", "10.20.0.0/24")
        assert "on the server, as root: apt install nftables" in said[-1]


@every_transport
def test_a_login_whose_sudo_wants_a_password(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, login="alice", transport=transport, services=False, rights=False)
    server = lab.server
    server.allow_sudo("alice", password=True)
    with lab.unchanged():
        said = refused(vpn)
    _, begin, command = said[-1].partition("on the server, as root: ")
    assert begin
    command, other, _ = command.partition("; or log in as root")
    assert other
    server.run(["sh", "-ec", command], user="root")
    comes_up(vpn)


@every_transport
def test_a_login_where_nobody_has_sudo(lab: Lab, transport: str | None) -> None:
    vpn = Vpn(lab, login="alice", transport=transport, services=False, rights=False)
    with lab.unchanged(), without_program(lab.server, "sudo"):
        said = refused(vpn)
    _, _, command = said[-1].partition("on the server, as root: ")
    command, _, here = command.partition("; here: ")
    setting, _, _ = here.partition("; or log in")
    lab.server.run(["sh", "-ec", f"{command}\n{NO_LINK_LOCAL}"], user="root")
    lab.checkpoint()
    lab.gateway.write(f"{HOME}/.config/sshvpn/config.toml", PROFILE.format(setting))
    with lab.unchanged():
        comes_up(vpn)


@every_transport
def test_a_device_of_the_administrators_that_has_no_address(
    lab: Lab, transport: str | None
) -> None:
    vpn = Vpn(lab, login="alice", transport=transport, services=False, rights=False)
    make = f"ip tuntap add dev tun8 mode tun user alice\n{NO_LINK_LOCAL}"
    lab.server.run(["sh", "-ec", make], user="root")
    lab.gateway.write(
        f"{HOME}/.config/sshvpn/config.toml", PROFILE.format('remote_device = "tun8"')
    )
    lab.checkpoint()
    with lab.unchanged():
        said = refused(vpn)
    _, _, command = said[-1].partition("on the server, as root: ")
    lab.server.run(["sh", "-ec", command], user="root")
    lab.checkpoint()
    with lab.unchanged():
        comes_up(vpn)

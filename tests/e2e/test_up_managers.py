"""Who manages networks by itself leaves the device of a tunnel alone; with the real ones.

lan ── lan0 gateway wan0 ══ssh══ server ── inner
            udev tells NetworkManager; systemd-networkd (before 256) does not listen
"""

from __future__ import annotations

import pytest

from tests.e2e.vpn import SHARED, Vpn
from tests.lab import Lab, LabMachine, firewalls, wait_until

pytestmark = pytest.mark.lab

RULES = "/run/udev/rules.d/85-sshvpn.rules"
# With rules of nobody else: events of other devices than the laboratory's reach it, too.
UDEV = "mount -t tmpfs none /usr/lib/udev/rules.d && exec /lib/systemd/systemd-udevd"
OTHER = (
    "ip tuntap add dev other mode tun; ip link set other up; ip address add 10.9.9.1/24 dev other"
)
NETWORK = "[Match]\nName=sshvpn*\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n"


@pytest.fixture
def vpn(lab: Lab) -> Vpn:
    """Return an office whose gateway has udev and a bus."""
    vpn = Vpn(lab)
    root(lab.gateway, "mkdir -p /run/udev")
    firewalls.start(lab.gateway, ["unshare", "--mount", "sh", "-c", UDEV])
    wait_until(lambda: lab.gateway.exists("/run/udev/control"), what="no udev")
    firewalls.bus(lab.gateway)
    return vpn


def root(machine: LabMachine, script: str, *, check: bool = True) -> str:
    return machine.run(["sh", "-ec", script], user="root", check=check).stdout


def state_of(machine: LabMachine, device: str) -> str:
    """Return what NetworkManager says of DEVICE."""
    lines = root(machine, "nmcli -t -f DEVICE,STATE device", check=False).splitlines()
    return dict(line.split(":", 1) for line in lines).get(device, "")


def test_networkmanager_does_not_manage_it(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    root(gateway, "mkdir -p /run/NetworkManager /etc/NetworkManager")
    firewalls.start(gateway, ["NetworkManager", "--no-daemon"])
    wait_until(lambda: state_of(gateway, "lo") != "", what="NetworkManager does not run")
    vpn.up()
    wait_until(lambda: state_of(gateway, "sshvpn0") != "")
    assert state_of(gateway, "sshvpn0") == "unmanaged"
    root(gateway, OTHER)
    wait_until(lambda: state_of(gateway, "other") == "connected (externally)", what="it would not")
    root(gateway, "nmcli general reload")
    assert state_of(gateway, "sshvpn0") == "unmanaged"
    assert vpn.unreachable(vpn.everything()) == []
    assert gateway.exists(RULES)
    root(gateway, "ip link delete other")
    vpn.down()
    assert not gateway.exists(RULES)


def test_a_networkd_that_does_not_listen_takes_nothing_away(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    gateway.write("/run/systemd/network/10-all.network", NETWORK, "root", 0o644)
    root(gateway, "mkdir -p /run/systemd/netif; chmod -R a+rX /run/systemd")
    root(gateway, "chown systemd-network /run/systemd/netif")
    firewalls.start(gateway, ["/lib/systemd/systemd-networkd"])
    wait_until(lambda: "lan0" in root(gateway, "networkctl list --no-pager", check=False))
    vpn.up()
    device = root(gateway, "udevadm info -q property -p /class/net/sshvpn0")
    assert "ID_NET_MANAGED_BY=sshvpn" in device
    assert vpn.unreachable(vpn.everything()) == []
    root(gateway, "networkctl reconfigure sshvpn0; networkctl reload")
    vpn.wait_reachable(vpn.everything(), 10)
    assert vpn.record()["reconnects"] == 0
    vpn.down()


@pytest.mark.parametrize("other", ["first", "second"])
def test_the_rule_stays_until_the_last_tunnel_goes(vpn: Vpn, other: str) -> None:
    gateway = vpn.lab.gateway
    for name in ("first", "second"):
        vpn.up("server", "--no-lan", "--name", name)
    vpn.lab.sshvpn("down", other)
    assert gateway.exists(RULES)
    vpn.lab.sshvpn("down")
    assert not gateway.exists(RULES)


def test_a_crash_leaves_no_rule_after_clean(vpn: Vpn) -> None:
    gateway = vpn.lab.gateway
    vpn.up(*SHARED)
    for pid, line in gateway.processes().items():
        if "privileged/main.py" in line or "sshvpn.background" in line:
            gateway.kill(pid)
    vpn.lab.sshvpn("clean")
    wait_until(lambda: not gateway.exists(RULES), what="the helper's guard may be at it, too")

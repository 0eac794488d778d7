"""The sandbox of a user's service: that it is one, what works in it, and where it yields."""

from __future__ import annotations

import pytest

from tests.lab import wait_until
from tests.lab.contents import ALICE
from tests.systemd.conftest import Site
from tests.systemd.test_user_service import (
    EXPOSURE_MOST,
    HOME,
    RUNTIME,
    UNIT,
    WEB,
    exposure,
    linger,
    page,
    show,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

INCLUDED = "/etc/ssh/ssh_config.d/50-site.conf"
ROOTS = "Host nobody.example\n  Port 2222\n"
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.settimeout(5)
    asking.connect(sys.argv[1])
    asking.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(asking.makefile().read())
"""


@pytest.fixture
def web(site: Site) -> Site:
    """Return a site where `web` of alice's is a service."""
    enable(site, WEB)
    return site


def enable(site: Site, profile: str) -> str:
    """Enable `web`; return what was told."""
    site.box.write(f"{HOME}/.config/sshvpn/config.toml", profile, "alice", 0o600)
    linger(site)
    return site.box.sshvpn("enable", "web").stdout


def has_namespaces(site: Site) -> bool:
    """Whether the service is in a namespace of users, and so in all others that it asks for."""
    pid = show(site, "MainPID")
    mapped = site.box.path(f"/proc/{pid}/uid_map").read_text().split()
    return mapped == [str(ALICE.uid), str(ALICE.uid), "1"]


def test_what_it_says_it_is(web: Site) -> None:
    pid = show(web, "MainPID")
    assert has_namespaces(web)
    status = web.box.read(f"/proc/{pid}/status")
    assert "CapBnd:\t0000000000000000\n" in status
    mounts = [line.split() for line in web.box.read(f"/proc/{pid}/mountinfo").splitlines()]
    options = {fields[4]: fields[5].split(",") for fields in mounts}  # the last one is on top
    for place in ("/usr", "/etc", "/proc/sys", "/sys/fs/cgroup"):
        assert "ro" in options[place], options
    root = web.box.path(f"/proc/{pid}/root/dev")
    assert not (root / "net").exists()
    assert (root / "null").exists()
    web.box.sshvpn("disable", "web")


@pytest.mark.parametrize("engine", ["openssh", "sshtunnel"])
def test_what_a_forward_listens_at_works_in_it(site: Site, engine: str) -> None:
    sockets = [f"{HOME}/web.sock", "/tmp/web.sock", f"/run/user/{ALICE.uid}/web.sock"]  # noqa: S108
    specs = ", ".join(f'"{socket}:8888"' for socket in sockets)
    profile = WEB.replace('"9999:8888"', f'"9999:8888", {specs}')
    site.trust()
    told = enable(site, f'{profile}lan = true\nengine = "{engine}"\n')
    assert "no namespaces" not in told
    assert has_namespaces(site)
    for socket in sockets:
        assert "notebook" in site.box.run(["python3", "-c", ASK, socket]).stdout, socket
    site.vpn.wait_reachable({"http://192.168.77.1:9999/": "notebook"})
    site.box.sshvpn("disable", "web")


def test_a_file_of_roots_that_ssh_includes_is_read_and_it_does_without(site: Site) -> None:
    site.box.write(INCLUDED, ROOTS)
    told = enable(site, WEB)
    assert f"no namespaces (docs/service.md): Bad owner or permissions on {INCLUDED}" in told
    assert "notebook" in page(site)
    assert not has_namespaces(site)
    site.box.path(INCLUDED).unlink()
    site.box.sshvpn("enable", "web")
    assert has_namespaces(site)
    assert exposure(site) <= EXPOSURE_MOST
    site.box.sshvpn("disable", "web")
    assert not site.box.path(f"{HOME}/.config/systemd/user").exists()


def test_one_that_comes_later_ends_no_forward(web: Site) -> None:
    first = show(web, "InvocationID")
    web.box.write(INCLUDED, ROOTS)
    web.box.run(["systemctl", "--user", "reload", UNIT], env=RUNTIME)
    again = ("", first)
    wait_until(lambda: show(web, "InvocationID") not in again, 30, every=0.2)
    wait_until(lambda: "notebook" in page(web), 30, every=0.2)
    assert not has_namespaces(web)
    assert show(web, "ActiveState") == "active"
    web.box.path(INCLUDED).unlink()
    web.box.reboot()
    wait_until(lambda: "notebook" in page(web), 30, every=0.2)
    assert has_namespaces(web), "until the next boot"
    web.box.sshvpn("disable", "web")


def test_a_kernel_that_makes_none_for_users_ends_no_forward(web: Site) -> None:
    """As Debian's kernel.unprivileged_userns_clone=0; here it is the manager that may not."""
    refused = "[Service]\nRestrictNamespaces=~user\n"
    web.box.write("/etc/systemd/system/user@.service.d/none.conf", refused)
    web.box.reboot()
    wait_until(lambda: "notebook" in page(web), 30, every=0.2)
    assert not has_namespaces(web)
    assert "217/USER" in web.box.sshvpn("logs", "web").stdout
    told = web.box.sshvpn("enable", "web").stdout
    assert "no namespaces (docs/service.md): the kernel lets this user have none" in told
    web.box.reboot()
    wait_until(lambda: "notebook" in page(web), 30, every=0.2)
    assert show(web, "NRestarts") == "0", "enable has found it"
    web.box.sshvpn("disable", "web")

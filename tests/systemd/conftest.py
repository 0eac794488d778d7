"""Boxes as fixtures; each in a laboratory of its own, which is compared at the end."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.vpn import Vpn
from tests.lab import Lab, key_pair
from tests.lab.contents import ALICE
from tests.systemd.box import Box

PROGRAMS = ("systemd-nspawn", "debootstrap", "unshare", "setpriv")
OFFICE = """
[tunnels.office]
host = "server"
routes = ["10.20.0.0/24", "fd20::/64"]
lan = true
publish = ["8888"]
"""
_FAILED = pytest.StashKey[bool]()


class Site:
    """A laboratory and a box at its gateway, where alice has the profile `office`.

    Her usual key is encrypted. KEY: she has one without a passphrase, too, that the server takes.
    """

    def __init__(self, *, key: bool = True) -> None:
        """Build both."""
        self.lab = Lab()
        try:
            self.vpn = Vpn(self.lab)
            self.before = self.lab.gateway.dump()
            self.box = Box(self.lab.gateway)
        except BaseException:
            self.lab.close()
            raise
        ssh = f"{ALICE.home}/.ssh"
        own = key_pair("ed25519", "office")
        lines = ["Host server", "  User root"]
        if key:
            self.box.write(f"{ssh}/office", own.private, "alice", 0o600)
            self.lab.server.authorize("root", key=own.public)
            lines += [f"  IdentityFile {ssh}/office"]
        self.box.write(f"{ssh}/config", "\n".join(lines) + "\n", "alice", 0o600)
        self.box.write(f"{ALICE.home}/.config/sshvpn/config.toml", OFFICE, "alice", 0o600)

    def trust(self) -> None:
        """Let alice say once, by hand, that she trusts the LAN."""
        program = "from sshvpn.wiring import lan; from sshvpn.model import *; lan.trust_lan("
        profile = "TunnelProfile('x', 'x', Destination('x')))"
        self.box.run(["/opt/sshvpn/bin/python", "-c", program + profile])

    def close(self) -> None:
        """Take both down."""
        self.box.close()
        self.lab.close()


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Return a site; at the end of a test that passed the gateway's kernel is as it was."""
    made = Site(key=not request.node.get_closest_marker("no_key"))
    try:
        yield made
        if not request.node.stash.get(_FAILED, False):
            made.box.systemctl("stop", "sshvpn@*")
            made.box.close()
            assert made.lab.gateway.dump() == made.before
            made.lab.check()
    finally:
        made.close()


@pytest.fixture
def office(site: Site) -> Site:
    """Return a site where `office` is enabled and up."""
    site.trust()
    site.box.sshvpn("enable", "office")
    site.box.wait_active("sshvpn@office")
    return site


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show, with a test that failed, what the journal of its box tells."""
    report = yield
    if report.failed:  # type: ignore[attr-defined]
        item.stash[_FAILED] = True
        site = getattr(item, "funcargs", {}).get("site")
        if isinstance(site, Site) and report.when == "call":  # type: ignore[attr-defined]
            with contextlib.suppress(Exception):
                journal = site.box.run(["journalctl", "--no-pager", "-n", "60"], user="root").stdout
                report.sections.append(("box", journal))  # type: ignore[attr-defined]
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip where a program is missing, as without the laboratory; CI has them all."""
    missing = [name for name in PROGRAMS if shutil.which(name, path="/usr/bin:/usr/sbin") is None]
    if missing and item.get_closest_marker("lab"):
        import os

        told = f"not installed: {', '.join(missing)} (make test installs them)"
        pytest.fail(told, pytrace=False) if os.environ.get("CI") else pytest.skip(told)

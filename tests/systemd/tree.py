"""The Debian that is booted: made once by debootstrap, kept in the cache, never written to.

Run as a program it makes the tree, which takes a minute: `make test-systemd` and `make test` do
so before the tests, whose time is bounded.
"""

from __future__ import annotations

import compileall
import os
import pathlib
import py_compile
import shutil
import sys
from typing import Final

from sshvpn.config.toml import loads
from tests.lab.cache import install, made, run
from tests.lab.contents import ALICE
from tests.lab.debian import bootstrap
from tests.lab.machine import CHECKOUT

PREFIX: Final = "opt/sshvpn"
"""Where the program is installed in it: root's, as `enable` wants it."""
PACKAGES: Final = (
    "systemd", "systemd-sysv", "dbus", "libpam-systemd", "udev",  # what is tested against
    "python3", "openssh-client", "sudo", "nftables", "iproute2", "procps",  # what sshvpn needs
    "openssh-server", "dbus-user-session", "polkitd",  # a server that people log in to
)  # fmt: skip
_BY_HASH: Final = py_compile.PycInvalidationMode.UNCHECKED_HASH


def layers() -> list[pathlib.Path]:
    """Return the tree and, above it, the Python libraries; made now where they are not there."""
    system = _os_release()
    base = made("debian", (PACKAGES, system), lambda root: _make_base(root, system))
    python = (_dependencies(), base.name)
    return [made("python", python, lambda root: _make_python(root, base)), base]


def _make_base(root: pathlib.Path, system: dict[str, str]) -> None:
    bootstrap(root, system["VERSION_CODENAME"], PACKAGES, system=system["ID"])
    run("chroot", str(root), "useradd", "-m", "-u", str(ALICE.uid), "-s", ALICE.shell,
         "-p", ALICE.password, ALICE.name)  # fmt: skip
    sudoers = root / "etc/sudoers.d/alice"
    sudoers.write_text("alice ALL=(ALL) ALL\n")
    sudoers.chmod(0o440)
    # It is started by the tests that log in; the machine around may have one of its own.
    run("chroot", str(root), "systemctl", "disable", "ssh.service", "ssh.socket")
    # A virtual environment of root's; its libraries are a layer above this one.
    run("chroot", str(root), "python3", "-m", "venv", "--without-pip", f"/{PREFIX}")
    command = root / "usr/local/bin/sshvpn"
    command.write_text(f"#!/{PREFIX}/bin/python\nfrom sshvpn.__main__ import main\nmain()\n")
    command.chmod(0o755)


def packages_of(base: pathlib.Path) -> pathlib.Path:
    """Return where BASE's Python looks for packages, as a path in it."""
    (packages,) = (base / PREFIX / "lib").glob("python3.*/site-packages")
    return packages.relative_to(base)


def _make_python(root: pathlib.Path, base: pathlib.Path) -> None:
    packages = packages_of(base)
    version = packages.parent.name.removeprefix("python")
    other = ["--python-version", version, "--only-binary=:all:"]
    same = version == f"{sys.version_info.major}.{sys.version_info.minor}"
    install(root / packages, _dependencies(), *([] if same else other))


def install_program(base: pathlib.Path, layer: pathlib.Path) -> None:
    """Copy the package of this checkout into LAYER, to where BASE's Python finds it."""
    package = layer / packages_of(base) / "sshvpn"
    shutil.copytree(CHECKOUT / "sshvpn", package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in layer.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(path, 0, 0)
    (package / "system" / "ssh" / "askpass.sh").chmod(0o755)
    # As an installer does: in the box nobody who runs it may write there.
    compileall.compile_dir(str(package), quiet=1, stripdir=str(layer), invalidation_mode=_BY_HASH)


def _dependencies() -> list[str]:
    return list(loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"])


def _os_release() -> dict[str, str]:
    lines = pathlib.Path("/etc/os-release").read_text().splitlines()
    pairs = dict(line.split("=", 1) for line in lines if "=" in line)
    return {key: pairs[key].strip('"') for key in ("ID", "VERSION_CODENAME")}


if __name__ == "__main__":
    layers()

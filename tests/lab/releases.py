"""Other releases of Debian: a server that is of one, or a gateway whose ssh is.

A tree of each is made once by debootstrap. In a server sshd runs with that as its root directory,
and so does all that it starts: network, processes, devices, homes and what stands in /run are the
machine's.

    machine  /  ........................ the host's Debian: the tests' own tools
             └─ /mnt/release  .......... bullseye, trixie: sshd, shells, python3, ip, nft, sudo
                  ├─ home root run tmp dev proc sys  <- the machine's
                  └─ etc  .............. a copy, with the machine's people

Run as a program it makes the trees, which takes minutes: `make test` does so before the tests,
whose time is bounded.
"""

from __future__ import annotations

import functools
import pathlib
import urllib.error
import urllib.request
from typing import Final

from tests.lab.cache import CACHE, made
from tests.lab.debian import bootstrap, mirror
from tests.lab.labmachine import LabMachine

RELEASES: Final = {"bullseye": "OpenSSH_8.4", "trixie": "OpenSSH_10.0"}
"""With what `ssh -V` of each says: 2021's and 2025's."""
PACKAGES: Final = ("openssh-server", "python3", "sudo", "iproute2", "nftables", "procps")
ROOT: Final = pathlib.PurePosixPath("/mnt/release")
_KEYRING: Final = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SHARED: Final = ("home", "root", "run", "tmp", "dev", "proc", "sys")
_ACCOUNTS: Final = ("passwd", "shadow", "group")


def tree(release: str) -> pathlib.Path:
    """Return RELEASE's tree on the host; made now where it is not there."""
    return made(release, PACKAGES, lambda root: bootstrap(root, release, PACKAGES))


@functools.cache
def can_be_had(release: str) -> bool:
    """Whether RELEASE is here, or at the mirror: old ones move to an archive some day.

    Ubuntu has Debian's keys in a package of its own, debian-archive-keyring.
    """
    if any(CACHE.glob(f"{release}-*/etc")):
        return True
    if not _KEYRING.exists():
        return False
    try:
        with urllib.request.urlopen(f"{mirror('debian')}/dists/{release}/InRelease", timeout=30):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return False


def give_ssh(machine: LabMachine, release: str) -> None:
    """Let MACHINE's ssh be that of RELEASE, with its own libraries, until the machine ends."""
    _show(machine, release)
    inside = machine.host_path(str(ROOT))
    # The file itself: what /lib64 has for it may be a link to /lib, which is this machine's.
    loader, *_ = (path for path in inside.glob("usr/lib/*/ld-*.so*") if not path.is_symlink())
    program = ROOT / loader.relative_to(inside)
    words = f"{program} --library-path {program.parent} {ROOT}/usr/bin/ssh"
    machine.write("/mnt/ssh", f'#!/bin/sh\nexec {words} "$@"\n', "root", 0o755)
    machine.run(["mount", "--bind", "/mnt/ssh", "/usr/bin/ssh"], user="root")


def enter(machine: LabMachine, release: str) -> None:
    """Let MACHINE's sshd be that of RELEASE from its next start on, until the machine ends."""
    _show(machine, release)
    people = "|".join(user.name for user in machine.users)
    steps = [
        f"cp -a {ROOT}/etc /mnt/etc",
        f"mount --bind /mnt/etc {ROOT}/etc",
        *(f"mount --rbind /{name} {ROOT}/{name}" for name in _SHARED),
        f"mount --bind /etc/sudoers.d {ROOT}/etc/sudoers.d",
        f"cp /etc/hosts /etc/hostname {ROOT}/etc",
        *(f"grep -E '^({people}):' /etc/{name} >>{ROOT}/etc/{name}" for name in _ACCOUNTS),
    ]
    machine.run(["sh", "-ec", "\n".join(steps)], user="root")
    machine.sshd.root = str(ROOT)


def _show(machine: LabMachine, release: str) -> None:
    """Show RELEASE's tree in MACHINE, read-only."""
    steps = f"mkdir {ROOT}\nmount --bind {tree(release)} {ROOT}\nmount -o remount,bind,ro {ROOT}"
    machine.run(["sh", "-ec", steps], user="root")


def make_all() -> None:
    """Make the trees of all releases that can be had."""
    for release in RELEASES:
        if can_be_had(release):
            tree(release)


if __name__ == "__main__":
    make_all()

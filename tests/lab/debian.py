"""A Debian (or Ubuntu) in a directory, by debootstrap."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Final

from tests.lab.cache import run

_MIRRORS: Final = {
    "debian": "http://deb.debian.org/debian",
    "ubuntu": "http://archive.ubuntu.com/ubuntu",
}


def bootstrap(
    root: pathlib.Path, release: str, packages: Sequence[str], *, system: str = "debian"
) -> None:
    """Fill ROOT with RELEASE of SYSTEM, as small as may be, and PACKAGES. Raises RuntimeError."""
    # Nobody needs it after a crash: without fsync(2) it is made in half of the time.
    quick = root / "etc/dpkg/dpkg.cfg.d"
    quick.mkdir(parents=True)
    (quick / "quick").write_text("force-unsafe-io\n")
    run(
        "debootstrap", "--variant=minbase", "--force-check-gpg",
        f"--include={','.join(packages)}", release, str(root), mirror(system),
    )  # fmt: skip
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()


def mirror(system: str) -> str:
    """Return the mirror that this machine's own packages come from, where one can be told."""
    for file in pathlib.Path("/etc/apt").glob("sources.list*/**/*"):
        for word in file.read_text(errors="replace").split() if file.is_file() else ():
            if word.startswith("http") and word.rstrip("/").endswith(f"/{system}"):
                return word
    return _MIRRORS[system]

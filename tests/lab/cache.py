"""What takes long to make and is not the repository's: made once, below /var/cache.

A change of what belongs to it gives another directory, so an old one is not taken for the new.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

CACHE: Final = pathlib.Path(os.environ.get("SSHVPN_TEST_CACHE", "/var/cache/sshvpn-tests"))


def made(kind: str, ingredients: object, make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Return the directory of KIND; MAKE fills it where there is none of these INGREDIENTS."""
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    key = hashlib.sha256(repr(ingredients).encode()).hexdigest()[:12]
    path = CACHE / f"{kind}-{key}"
    with (CACHE / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_dir():
            for old in CACHE.glob(f"{kind}-*"):
                shutil.rmtree(old)
            sys.stderr.write(f"* for the tests: making {path}, once\n")
            begun = path.with_suffix(".begun")
            begun.mkdir()
            make(begun)
            begun.rename(path)
    return path


def install(target: pathlib.Path, requirements: Sequence[str], *options: str) -> None:
    """Install REQUIREMENTS of PyPI in TARGET, which is no environment; pip takes OPTIONS."""
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--root-user-action=ignore", "--target", str(target), *options, *requirements,
    )  # fmt: skip


def run(*argv: str) -> None:
    """Run ARGV; raises RuntimeError with what it printed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        argv, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr}")

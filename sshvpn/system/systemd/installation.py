"""Whether root may run this installation: nobody else can write what Python would load of it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sshvpn.errors import SshvpnError

_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ASK = "import json, sys, sshvpn; print(json.dumps([sys.path, sshvpn.__file__, sys.executable]))"
_HINT = "install it for all: sudo python3 -m venv /opt/sshvpn && sudo /opt/sshvpn/bin/pip install …"


def program() -> tuple[str, ...]:
    """Return the words that run this sshvpn, whatever the caller's directory and environment."""
    return (sys.executable, "-I", "-m", "sshvpn")


def refuse_writable() -> None:
    """Raise SshvpnError where others than root could change what a service of root's would run."""
    found = next(_writable(), None)
    if found is not None:
        raise SshvpnError(
            f"a service runs as root at its start, and others than root can write {found}", _HINT
        )


def _writable() -> Iterator[Path]:
    asked = subprocess.run(
        [sys.executable, "-I", "-c", _ASK],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if asked.returncode:
        raise SshvpnError("this sshvpn is installed for one user only", _HINT)
    places, package, interpreter = json.loads(asked.stdout)
    for word in (*places, package, interpreter):
        path = Path(word)
        if path.exists():
            yield from _above(path)
            yield from _below(path)


def _above(path: Path) -> Iterator[Path]:
    """Yield what others can write of the way to ``path``: as it is named, and as it is."""
    real = path.resolve()
    for one in dict.fromkeys((path, *path.parents, real, *real.parents)):
        if _is_others(one):
            yield one


def _below(path: Path) -> Iterator[Path]:
    for directory, directories, files in os.walk(path):
        for name in (*directories, *files):
            one = Path(directory, name)
            if one.is_symlink():
                yield from _above(one)
            elif _is_others(one):
                yield one


def _is_others(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:  # it has gone meanwhile, or leads nowhere
        return False
    if stat.S_ISLNK(found.st_mode):
        return found.st_uid != 0
    # In a sticky directory (/tmp) nobody can replace what is root's.
    is_open = found.st_mode & _OTHERS and not found.st_mode & stat.S_ISVTX
    return found.st_uid != 0 or bool(is_open)

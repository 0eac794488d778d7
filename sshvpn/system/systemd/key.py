"""The key of a service: made for it alone, without a passphrase, since nobody is there to type one.

What it may do is limited by the line that stands in the server's authorized_keys.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path

from sshvpn.errors import SshvpnError
from sshvpn.system import paths


def path_of(name: str) -> Path:
    """Return where the key of the service NAME is, or would be."""
    return paths.home() / ".ssh" / f"sshvpn-{name}"


def ensure(name: str) -> Path:
    """Make the key of NAME where there is none, and return its path. Raises SshvpnError."""
    path = path_of(name)
    if path.exists():
        return path
    path.parent.mkdir(mode=0o700, exist_ok=True)
    comment = f"sshvpn {name} at {socket.gethostname()}"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    try:
        made = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise SshvpnError("there is no ssh-keygen", "install openssh-client") from error
    if made.returncode:
        said = made.stderr.strip() or made.stdout.strip()
        raise SshvpnError(f"no key was made: {said}", f"look at {path.parent}")
    return path


def public_line(name: str) -> str:
    """Return the public half, as a line. Raises SshvpnError where it cannot be read."""
    try:
        return Path(f"{path_of(name)}.pub").read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise SshvpnError(
            f"no public key beside {path_of(name)}",
            f"ssh-keygen -y -f {path_of(name)} > {path_of(name)}.pub",
        ) from error


def remove(name: str) -> bool:
    """Remove the key of NAME, and return whether there was one."""
    path = path_of(name)
    was_there = path.exists()
    for half in (path, Path(f"{path}.pub")):
        with contextlib.suppress(OSError):
            half.unlink()
    return was_there

"""A real sshd on loopback, run by whoever runs the tests, with keys made on the spot.

It needs no right and touches nothing outside its directory: it listens on a port of its own
above 1023 on 127.0.0.1 and ::1, and lets in only the user who started it.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
START_TIMEOUT_S = 10.0
OPTIONS = {
    "UsePAM": "no",
    "PubkeyAuthentication": "yes",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PermitRootLogin": "prohibit-password",
    "AllowTcpForwarding": "yes",
    "AllowStreamLocalForwarding": "yes",
    "StrictModes": "no",
    "UseDNS": "no",
    "MaxStartups": "200:30:300",
    "LogLevel": "VERBOSE",
}


@cache
def has_sshd() -> bool:
    """Whether there is an sshd to run."""
    return os.access(SSHD, os.X_OK)


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair at ``path`` (and ``path.pub``), guarded by one round of bcrypt only."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-a", "1", "-N", passphrase, "-C", path.name, "-f", path],
        check=True,
    )
    return path


class Sshd:
    """One running sshd. Close it; twice is fine."""

    def __init__(self, directory: Path, options: Mapping[str, str]) -> None:
        self.directory = directory
        self.user = getpass.getuser()
        self.port = free_port()
        self._options = dict(options)
        self._process: subprocess.Popen[bytes] | None = None
        for kind in ("ed25519", "ecdsa"):
            make_key(directory / f"host_{kind}", kind)
        (directory / "authorized_keys").touch()

    def authorize(self, key: Path, options: str = "") -> None:
        """Let the owner of ``key`` in."""
        with (self.directory / "authorized_keys").open("a") as file:
            file.write(f"{options} {key.with_name(key.name + '.pub').read_text()}")

    def host_key(self, kind: str = "ed25519") -> str:
        """Return type and base64 of a host key, as in known_hosts."""
        return " ".join((self.directory / f"host_{kind}.pub").read_text().split()[:2])

    def host_blob(self, kind: str = "ed25519") -> bytes:
        """Return a host key as on the wire."""
        return base64.b64decode(self.host_key(kind).split()[1])

    def known_hosts(self, name: str = "[127.0.0.1]:{port}", kind: str = "ed25519") -> str:
        """Return the line of known_hosts for this server."""
        return f"{name.format(port=self.port)} {self.host_key(kind)}\n"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.directory / "log").read_text()

    def start(self) -> None:
        """Start it; it listens when this returns."""
        lines = [f"ListenAddress {address}" for address in ("127.0.0.1", "::1")]
        lines += [f"HostKey {self.directory}/host_{kind}" for kind in ("ed25519", "ecdsa")]
        lines += [f"Port {self.port}", f"PidFile {self.directory}/pid"]
        lines += [f"AuthorizedKeysFile {self.directory}/authorized_keys"]
        lines += [f"{key} {value}" for key, value in {**OPTIONS, **self._options}.items()]
        config = self.directory / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        (self.directory / "log").write_text("")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._process = subprocess.Popen([SSHD, "-D", "-f", config, "-E", self.directory / "log"])
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.log.count("Server listening on") < len(("127.0.0.1", "::1")):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def sessions(self) -> list[int]:
        """Return the processes of the open connections, innermost last."""
        return [] if self._process is None else _descendants(self._process.pid)

    def kill_sessions(self) -> None:
        """Kill the open connections, as a crash of the server would; it listens on."""
        self.signal_sessions(signal.SIGKILL)

    def signal_sessions(self, number: signal.Signals) -> None:
        """Send a signal to the processes of the open connections."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self) -> None:
        """End it and its sessions."""
        if self._process is not None:
            self.signal_sessions(signal.SIGCONT)
            self.kill_sessions()
            self._process.kill()
            self._process.wait()
            self._process = None


def free_port() -> int:
    """Return a port that was free on loopback a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as trial:
        port: int = trial.getsockname()[1]
        return port


def _descendants(pid: int) -> list[int]:
    # Not /proc/PID/task/PID/children, which may leave out one while its sister ends (proc(5)).
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in brackets may hold anything; what follows it: state, parent.
            words = stat.read_text(errors="replace").rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(words[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found

"""A real sshd in a machine, with host keys made on the spot.

`start` is reached as `Machine.start_sshd` of the laboratory's machines. Owns the files below
/run/lab-sshd-PORT of its machine, and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.lab.machine import Machine
from tests.lab.process import Child, LabError, wait_until

KEY_TYPES: Final = ("ed25519", "ecdsa", "rsa")
PASSPHRASE: Final = "correct horse"

# `UsePAM no`: a login then needs nothing of the host's own PAM stack. Set it to yes together with
# KbdInteractiveAuthentication for a keyboard-interactive login; /etc/pam.d/sshd is the lab's own.
DEFAULTS: Final[Mapping[str, str]] = {
    "UsePAM": "no",
    "PubkeyAuthentication": "yes",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PermitRootLogin": "prohibit-password",
    "PermitTunnel": "no",
    "AllowTcpForwarding": "yes",
    "AllowStreamLocalForwarding": "yes",
    "LogLevel": "VERBOSE",
    "StrictModes": "yes",
    "PrintMotd": "no",
    "UseDNS": "no",
    "MaxStartups": "200:30:300",
    "MaxSessions": "100",
    "Subsystem": "sftp internal-sftp",
}
PAM: Final = (
    "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
)


@dataclass(frozen=True)
class KeyPair:
    """A key as the files that ssh-keygen makes."""

    private: str
    public: str


@functools.cache
def key_pair(kind: str, name: str, passphrase: str = "") -> KeyPair:
    """Return the key called NAME, made once in this process.

    A passphrase is guarded by one round only: the tests shall not wait for bcrypt.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "key"
        size = ["-b", "2048"] if kind == "rsa" else []
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, *size, "-a", "1", "-N", passphrase, "-C", name,
             "-f", str(path)],
            check=True,
        )  # fmt: skip
        return KeyPair(path.read_text(), path.with_suffix(".pub").read_text())


@dataclass
class Sshd:
    """One running sshd; made by `start`."""

    machine: Machine
    port: int
    options: dict[str, str]
    addresses: Sequence[str]
    key_types: Sequence[str]
    identity: str
    root: str = ""
    """Where the Debian is of which it is; the machine's own is ""."""
    under: Sequence[str] = ()
    """What starts it, and is it then: `strace -D …`, say."""
    _child: Child | None = field(default=None, repr=False)
    _orphans: list[int] = field(default_factory=list, repr=False)

    @property
    def directory(self) -> str:
        """Where its files are, in the machine."""
        return f"/run/lab-sshd-{self.port}"

    @property
    def log(self) -> str:
        """All that it has logged so far (LogLevel VERBOSE unless said otherwise)."""
        return self.machine.read(f"{self.directory}/log")

    @property
    def pid(self) -> int:
        """The listener's process number on the host; raises LabError if it does not run."""
        pid = self._child.inner_pid if self._child is not None else None
        if pid is None:
            raise LabError(f"{self.machine.name}: sshd does not run")
        return pid

    def known_hosts(self, names: Sequence[str], *, kinds: Sequence[str] = ()) -> str:
        """Return the lines of known_hosts for NAMES: plain, `[host]:port` where it is not 22."""
        named = ",".join(name if self.port == 22 else f"[{name}]:{self.port}" for name in names)
        return "".join(
            f"{named} {' '.join(key_pair(kind, self.identity).public.split()[:2])}\n"
            for kind in kinds or self.key_types
        )

    def change_host_keys(self) -> None:
        """Give it other host keys, and start it again: clients see a changed host."""
        self.identity += "-changed"
        self.restart()

    def start(self) -> None:
        """Write its configuration and start it; it listens when this returns."""
        if self._child is not None:
            raise LabError(f"{self.machine.name}: sshd runs already")
        lines = [f"Port {self.port}", f"PidFile {self.directory}/pid"]
        lines += [f"ListenAddress {address}" for address in self.addresses]
        for kind in self.key_types:
            path = f"{self.directory}/host_{kind}"
            self.machine.write(path, key_pair(kind, self.identity).private, "root")
            lines.append(f"HostKey {path}")
        # sshd takes a keyword's first value, and what follows a Match belongs to it: Match last.
        # A value may hold several lines: the keyword is then repeated.
        options = {**DEFAULTS, **self.options}
        for keyword in sorted(options, key=lambda keyword: keyword.startswith("Match")):
            lines += [f"{keyword} {value}" for value in options[keyword].split("\n")]
        self.machine.write(f"{self.directory}/config", "\n".join(lines) + "\n", "root")
        self.machine.write("/etc/pam.d/sshd", PAM, "root", 0o644)
        self.machine.write(f"{self.directory}/log", "", "root")
        argv = [*self.under, *(["chroot", self.root] if self.root else [])]
        argv += ["/usr/sbin/sshd", "-D", "-f", f"{self.directory}/config"]
        argv += ["-E", f"{self.directory}/log"]
        self._child = self.machine.popen(
            argv, user="root", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._is_listening, what=f"{self.machine.name}: sshd does not listen")

    def _is_listening(self) -> bool:
        assert self._child is not None
        if self._child.poll() is not None:
            self._child = None
            raise LabError(f"{self.machine.name}: sshd ended: {self.log}")
        return "Server listening on" in self.log

    def stop(self) -> None:
        """End the listener. Open sessions go on, as they do when sshd is restarted."""
        if self._child is None:
            return
        self._orphans = self.sessions()
        self._child.kill()  # the listener alone: its children are the sessions
        self._child.wait()
        self._child = None

    def restart(self, **options: str) -> None:
        """End the listener and start it again, with OPTIONS changed. Open sessions go on."""
        self.options.update(options)
        self.stop()
        self.start()

    def crash(self) -> None:
        """End the listener and all connections, until `start`."""
        self.stop()
        self.kill_sessions()

    def sessions(self) -> list[int]:
        """Return the processes of the open connections, by their numbers on the host."""
        found = [pid for pid in self._orphans if pathlib.Path(f"/proc/{pid}").exists()]
        if self._child is not None and (listener := self._child.inner_pid) is not None:
            children = pathlib.Path(f"/proc/{listener}/task/{listener}/children")
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in children.read_text().split()]
        return found

    def kill_sessions(self) -> int:
        """Kill all open connections' processes, and return how many there were; it listens on."""
        killed = 0
        for pid in self.sessions():
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
            with contextlib.suppress(OSError):
                # The unprivileged half holds the connection too: both must go.
                for process in (*map(int, children.read_text().split()), pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
            killed += 1
        return killed


def start(
    machine: Machine,
    port: int = 22,
    options: Mapping[str, str] | None = None,
    *,
    addresses: Sequence[str] = (),
    key_types: Sequence[str] = KEY_TYPES,
) -> Sshd:
    """Start an sshd on MACHINE and return it. See `LabMachine.start_sshd`."""
    sshd = Sshd(machine, port, dict(options or {}), addresses, key_types, machine.name)
    sshd.start()
    return sshd

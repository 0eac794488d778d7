"""One Debian that systemd runs: booted, looked into, rebooted, crashed, and gone without a trace.

systemd-nspawn boots it in a mount namespace of its own, over the tree of `tree.py` with a
throw-away layer, and in the network namespace of a machine of the laboratory. What it needs said:

--register=no --keep-unit
    The machine outside need not be run by systemd, and often is not (a container of CI).
--network-namespace-path, with CAP_NET_ADMIN
    The laboratory's network, and the right to change it, as a real machine has of its own.
SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
    /proc/sys/net can be written, which nspawn else allows only to a network that it made itself.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Final

import pexpect

from sshvpn.system.process import dies_with_parent
from tests.lab import ALICE_PASSWORD, LabMachine, alices_key, wait_until
from tests.lab.contents import ALICE
from tests.lab.process import CommandError, LabError
from tests.systemd import tree

BOOT_S: Final = 60
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "TERM": "xterm-256color"}
_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
ASKPASS: Final = "/usr/local/bin/askpass"

_QUEUE: Final = "net.unix.max_dgram_qlen"
_CGROUPS: Final = [
    pathlib.Path("/sys/fs/cgroup", name) for name in ("", "unified", "systemd")
]  # fmt: skip
"""Where hierarchies that systemd uses are mounted: version 2 alone, or beside version 1."""

Result = subprocess.CompletedProcess[str]


class Box:
    """A booted Debian with alice, in the network of `machine`. Close it.

    SHOWN are directories of this machine that it can read.
    """

    def __init__(self, machine: LabMachine, shown: Sequence[str] = ()) -> None:
        """Prepare its files and boot it."""
        self._machine = machine
        self._shown = shown
        self._layer = pathlib.Path(tempfile.mkdtemp(prefix="sshvpn-box-", dir="/var/tmp"))
        self._lower = tree.layers()
        for name in ("upper", "work", "root"):
            (self._layer / name).mkdir()
        (self._layer / "upper").chmod(0o755)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._queue = machine.run(["sysctl", "-n", _QUEUE], user="root").stdout.strip()
        self.pid = 0
        self._prepare()
        self.boot()

    def _prepare(self) -> None:
        """Write what an administrator and alice have done before anything begins."""
        tree.install_program(self._lower[-1], self._layer / "upper")
        self.write("/etc/hosts", f"127.0.1.1 box\n{self._machine.read('/etc/hosts')}")
        self.write("/etc/resolv.conf", self._machine.read("/etc/resolv.conf"))
        self.write("/etc/hostname", "box\n")
        ssh = f"{ALICE.home}/.ssh"
        self.write(f"{ssh}/known_hosts", self._machine.read(f"{ssh}/known_hosts"), "alice", 0o600)
        self.write(f"{ssh}/id_ed25519", alices_key().private, "alice", 0o600)
        self.write(f"{ssh}/id_ed25519.pub", alices_key().public, "alice")
        self.write(ASKPASS, f"#!/bin/sh\necho {shlex.quote(ALICE_PASSWORD)}\n", mode=0o755)

    @property
    def layer_name(self) -> str:
        """What tells it from other boxes, also in the names of its cgroups."""
        return self._layer.name

    # -- its life ------------------------------------------------------------------------------

    def boot(self) -> None:
        """Boot it, and return when systemd has nothing more to do."""
        if self._nspawn is not None:
            raise LabError("the box runs already")
        root = self._layer / "root"
        lower = ":".join(map(str, self._lower))
        layers = f"lowerdir={lower},upperdir={self._layer}/upper,workdir={self._layer}/work"
        words = [
            "systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--console=pipe",
            "--register=no", "--keep-unit", "--capability=CAP_NET_ADMIN", "--bind=/dev/net/tun",
            f"--network-namespace-path=/proc/{self._machine.pid}/ns/net", "--machine=box",
            "--resolv-conf=off", "--link-journal=no",
            *(f"--bind-ro={path}" for path in self._shown),
        ]  # fmt: skip
        groups = [root / self._layer.name for root in _CGROUPS if (root / "cgroup.procs").exists()]
        for group in groups:
            group.mkdir(exist_ok=True)
        enter = "".join(f"echo $$ >{shlex.quote(str(group))}/cgroup.procs; " for group in groups)
        script = f"{enter}mount -t overlay -o {layers} box {root} && exec {shlex.join(words)}"
        with (self._layer / "console").open("ab") as console:
            # The mount is in a namespace that ends with it, however that is.
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
                preexec_fn=dies_with_parent(),  # noqa: PLW1509 (as the program's own)
            )
        self.pid = wait_until(self._leader, BOOT_S, what="systemd-nspawn does not boot")
        wait_until(self._is_up, BOOT_S, what=f"systemd is not up: {self.console}", every=0.1)

    def _leader(self) -> int:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise LabError(f"systemd-nspawn ended: {self.console}")
        children = pathlib.Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        found = [int(pid) for pid in children.read_text().split()]
        return next((pid for pid in found if _name_of(pid) == "systemd"), 0)

    def _is_up(self) -> bool:
        said = self.run(["systemctl", "is-system-running"], user="root", check=False).stdout
        return said.strip() in ("running", "degraded", "starting") and self.is_active(
            "multi-user.target"
        )

    @property
    def console(self) -> str:
        """What was written on its console."""
        return (self._layer / "console").read_text(errors="replace")

    def reboot(self) -> None:
        """Shut it down in good order, and boot it again: nobody is logged in."""
        self.run(["systemctl", "poweroff"], user="root", check=False)
        assert self._nspawn is not None
        self._nspawn.wait(BOOT_S)
        self._nspawn, self.pid = None, 0
        self.boot()

    def power_off(self) -> None:
        """Take the power away, until `boot`; twice is fine."""
        if self._nspawn is not None:
            if self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            else:
                self._nspawn.kill()
            self._nspawn.wait(BOOT_S)
            self._nspawn, self.pid = None, 0

    def close(self) -> None:
        """End it, and remove all that was written. Twice is fine."""
        self.power_off()
        if not self._layer.exists():
            return
        for root in _CGROUPS:
            for group, _, _ in os.walk(root / self._layer.name, topdown=False):
                pathlib.Path(group).rmdir()
        shutil.rmtree(self._layer)
        # systemd has raised it at each boot.
        self._machine.run(["sysctl", "-qw", f"{_QUEUE}={self._queue}"], user="root")

    # -- its files -----------------------------------------------------------------------------

    def path(self, path: str) -> pathlib.Path:
        """Return the path outside of what is PATH in it now (or will be, before the boot)."""
        if self._nspawn is not None:
            return pathlib.Path(f"/proc/{self.pid}/root{path}")
        return self._layer / "upper" / path.lstrip("/")

    def write(self, path: str, text: str, user: str = "root", mode: int = 0o644) -> None:
        """Write a file of USER's, and the directories above it."""
        file, uid = self.path(path), ALICE.uid if user == "alice" else 0
        missing = [parent for parent in (file, *file.parents) if not parent.exists()]
        file.parent.mkdir(parents=True, exist_ok=True)
        for parent in missing[1:]:
            is_home = str(parent).startswith(str(self.path(ALICE.home)))
            os.chown(parent, uid if is_home else 0, uid if is_home else 0)
            parent.chmod(0o700 if parent.name == ".ssh" else 0o755)
        file.write_text(text)
        file.chmod(mode)
        os.chown(file, uid, uid)

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return self.path(path).read_text()

    def files(self, *directories: str) -> dict[str, str]:
        """Return all files below DIRECTORIES, with what they hold."""
        found = {}
        for directory in directories:
            for path in sorted(self.path(directory).rglob("*")):
                name = f"{directory}/{path.relative_to(self.path(directory))}"
                if path.is_symlink():
                    found[name] = str(path.readlink())
                else:
                    found[name] = path.read_text(errors="replace") if path.is_file() else ""
        return found

    # -- commands ------------------------------------------------------------------------------

    def _argv(self, argv: Sequence[str], user: str, env: Mapping[str, str]) -> list[str]:
        words = [f"{key}={value}" for key, value in {**_ENVIRONMENT, "PATH": _PATH, **env}.items()]
        home = "/root" if user == "root" else f"/home/{user}"
        names = [f"HOME={home}", f"USER={user}", f"LOGNAME={user}", "SHELL=/bin/bash"]
        inside = ["env", "-i", *names, *words, *argv]
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}",
                                            "--init-groups"]  # fmt: skip
        # A session without the journal's and the laboratory's variables, as by a login.
        return ["nsenter", f"--target={self.pid}", "--all", f"--wd=/proc/{self.pid}/root{home}",
                *become, *inside]  # fmt: skip

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "alice",
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 60,
    ) -> Result:
        """Run ARGV as USER without a terminal; raises CommandError if CHECK and it fails."""
        done = subprocess.run(
            self._argv(argv, user, env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        result = Result(list(argv), done.returncode, done.stdout, done.stderr)
        if check and done.returncode:
            raise CommandError("box", result)
        return result

    def sshvpn(self, *args: str, check: bool = True, user: str = "alice", **env: str) -> Result:
        """Run `sshvpn ARGS` as alice, whose sudo asks for her password by SUDO_ASKPASS."""
        return self.run(
            ["sshvpn", *args], user=user, env={"SUDO_ASKPASS": ASKPASS, **env}, check=check
        )

    def at_terminal(self, *args: str, timeout: float = 30) -> pexpect.spawn:
        """Start `sshvpn ARGS` as alice at a terminal."""
        inside = ["script", "--quiet", "--return", "--command", shlex.join(["sshvpn", *args]),
                  "/dev/null"]  # fmt: skip
        argv = self._argv(inside, "alice", {})
        return pexpect.spawn(argv[0], argv[1:], timeout=timeout, encoding="utf-8")

    # -- its units -----------------------------------------------------------------------------

    def systemctl(self, *args: str, check: bool = True) -> str:
        """Run `systemctl ARGS` as root."""
        return self.run(["systemctl", "--no-pager", *args], user="root", check=check).stdout

    def show(self, unit: str, key: str) -> str:
        """Return a property of UNIT."""
        return self.systemctl("show", "--value", "--property", key, unit).strip()

    def is_active(self, unit: str) -> bool:
        """Whether UNIT is active."""
        return self.systemctl("is-active", unit, check=False).strip() == "active"

    def wait_active(self, unit: str, timeout: float = 30) -> None:
        """Wait until UNIT is active; raises TimeoutError with its journal."""
        try:
            wait_until(lambda: self.is_active(unit), timeout, every=0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{unit} is not active: {self.journal(unit)}") from error

    def journal(self, unit: str) -> str:
        """Return what the journal has of UNIT."""
        return self.run(
            ["journalctl", "--no-pager", "--output", "short-monotonic", "--unit", unit], user="root"
        ).stdout


def _name_of(pid: int) -> str:
    """Return what a process is called, "" where it has ended meanwhile."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""

"""One machine of the laboratory: Linux namespaces without a name, and what runs in them.

A `Machine` owns its holder process and all that is inside. Nothing of it is visible outside: no
name below /run/netns, no user in the real /etc/passwd, no setting of the host's kernel. It ends
with `close()`, and also when the process that made it ends, however that happens.

This module knows nothing of the topology; `lab.py` lays the cables.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final

from tests.lab.contents import ALICE, BOB, FILES, KEEP_COVERAGE, SYSCTLS, User
from tests.lab.process import Child, CommandError, LabError
from tests.lab.terminal import Terminal

HERE: Final = pathlib.Path(__file__).resolve().parent
CHECKOUT: Final = HERE.parent.parent
USER_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
ROOT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Directories that are empty in a machine; what the interpreter needs from there is shown again.
COVERED: Final = ("/root", "/home", "/tmp", "/var/tmp", "/run", "/mnt", "/sys", "/dev")  # noqa: S108

# Set by `make coverage`: where the processes in a machine write what they ran.
COVERAGE_DIRECTORY: Final = (
    pathlib.Path(os.environ["COVERAGE_FILE"]).absolute().parent
    if {"COVERAGE_FILE", "COVERAGE_PROCESS_CONFIG"} <= set(os.environ)
    else None
)
COVERAGE: Final[Mapping[str, str]] = {
    name: value
    for name, value in os.environ.items()
    if COVERAGE_DIRECTORY is not None and name.startswith("COVERAGE_")
}
NO_COVERAGE: Final[Mapping[str, str | None]] = dict.fromkeys(COVERAGE)


@dataclass
class Machine:
    """One machine: `run`, `popen` and `pty` commands in it, `read` and `write` its files.

    USERS have accounts, all with the password `ALICE_PASSWORD`. HOSTS is the text of /etc/hosts.
    """

    name: str
    hosts: str = field(default="", repr=False)
    users: Sequence[User] = field(default=(ALICE, BOB), repr=False)
    environment: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    address: str = ""
    address6: str = ""
    _children: list[Child] = field(default_factory=list, repr=False)
    _undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def __post_init__(self) -> None:
        """Start the holder; `ready` waits until the machine stands."""
        files = {
            **FILES,
            **({"/etc/sudoers.d/coverage": (KEEP_COVERAGE, 0o440)} if COVERAGE else {}),
            "/etc/hostname": (f"{self.name}\n", 0o644),
            "/etc/hosts": (
                f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{self.hosts}",
                0o644,
            ),
        }
        description = {
            "name": self.name,
            "show": shown_paths(),
            "share": [str(COVERAGE_DIRECTORY)] if COVERAGE_DIRECTORY else [],
            "users": [user.description() for user in self.users],
            "files": files,
            "sysctls": dict(SYSCTLS),
        }
        self._holder = subprocess.Popen(
            [sys.executable, "-I", "-S", str(HERE / "_holder.py"), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.write(json.dumps(description) + "\n")
        self._holder.stdin.flush()
        self._said: IO[str] = self._holder.stdout
        first = self._said.readline()
        if not first:
            raise LabError(f"{self.name}: no namespaces (see above)")
        self.pid = int(first)

    def ready(self) -> None:
        """Return when the machine stands; raises LabError if it does not."""
        if self._said.readline() != "ready\n":
            self.close()
            raise LabError(f"{self.name}: could not be built (see above)")

    def kill_all(self) -> None:
        """Kill all processes of the machine, and with them its network and files; `close` waits."""
        if self._holder.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the machine and return when it is gone. Twice is fine."""
        self.kill_all()
        self._undo.close()
        for stream in (self._holder.stdin, self._holder.stdout):
            if stream is not None:
                stream.close()
        self._holder.wait()
        for child in self._children:
            child.end()

    # -- commands ------------------------------------------------------------------------------

    def argv(
        self, argv: Sequence[str], *, user: str = "alice", cwd: str = "", tty: bool = False
    ) -> list[str]:
        """Return the command for the host that runs ARGV in this machine as USER.

        CWD is the user's home unless said otherwise. It wants the environment of `env`.
        """
        return [
            _nsenter(), "--target", str(self.pid), "--mount", "--net", "--uts", "--ipc", "--pid",
            "--no-fork", "--",
            sys.executable, "-I", "-S", str(HERE / "_enter.py"),
            user, cwd, "tty" if tty else "pipe", *map(str, argv),
        ]  # fmt: skip

    def env(
        self, user: str = "alice", env: Mapping[str, str | None] | None = None
    ) -> dict[str, str]:
        """Return the environment of USER's login, changed by ENV (None takes a variable away)."""
        result: dict[str, str | None] = {
            "PATH": ROOT_PATH if user == "root" else USER_PATH,
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            **COVERAGE,
            **self.environment.get(user, {}),
            **(env or {}),
        }
        for known in self.users:
            if known.name == user:
                result.setdefault("XDG_RUNTIME_DIR", f"/run/user/{known.uid}")
        return {name: value for name, value in result.items() if value is not None}

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "alice",
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,  # noqa: A002 -- as subprocess.run has it
        timeout: float = 30,
        check: bool = True,
        cwd: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run ARGV as USER and return what it printed and its exit code.

        The standard input is INPUT, or empty. Raises CommandError if CHECK and the exit code is
        not 0, subprocess.TimeoutExpired after TIMEOUT seconds: all that it started is killed then.
        """
        with self.popen(
            argv, user=user, env=env, cwd=cwd,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        ) as child:  # fmt: skip
            try:
                stdout, stderr = child.communicate(input, timeout=timeout)
            except BaseException as error:
                child.kill_tree()
                rest = child.communicate(timeout=10)
                if isinstance(error, subprocess.TimeoutExpired):
                    error.cmd, (error.output, error.stderr) = list(argv), rest  # type: ignore[assignment]
                raise
        result = subprocess.CompletedProcess(list(argv), child.returncode, stdout, stderr)
        if check and result.returncode != 0:
            raise CommandError(self.name, result)
        return result

    def popen(
        self,
        argv: Sequence[str],
        *,
        user: str = "alice",
        env: Mapping[str, str | None] | None = None,
        cwd: str = "",
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
    ) -> Child:
        """Start ARGV as USER; the caller waits for it. Signals reach the command itself."""
        child = Child(
            self.argv(argv, user=user, cwd=cwd),
            env=self.env(user, env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        self._children = [known for known in self._children if not known.has_been_ended()] + [child]
        return child

    def pty(
        self,
        argv: Sequence[str],
        *,
        user: str = "alice",
        env: Mapping[str, str | None] | None = None,
        timeout: float = 15,
        cwd: str = "",
    ) -> Terminal:
        """Start ARGV as USER at a terminal (40 x 120) and return the pexpect child.

        TIMEOUT is the default of its `expect`. Close it; what still runs then gets a hang-up.
        """
        terminal = Terminal(
            self.host_path("/dev/pts/ptmx"),
            self.argv(argv, user=user, cwd=cwd, tty=True),
            self.env(user, env),
            timeout,
        )
        self._undo.callback(terminal.close, force=True)
        return terminal

    def python(
        self, code: str, *args: str, user: str = "alice", timeout: float = 30,
        env: Mapping[str, str | None] | None = None, check: bool = True,
    ) -> str:  # fmt: skip
        """Run Python CODE in the interpreter of the tests; return what it printed."""
        argv = [sys.executable, "-c", code, *args]
        return self.run(argv, user=user, timeout=timeout, env=env, check=check).stdout

    # -- files ---------------------------------------------------------------------------------

    def host_path(self, path: str) -> pathlib.Path:
        """Return where the host finds PATH of this machine, symbolic links followed inside."""
        root = pathlib.Path(f"/proc/{self.pid}/root")
        result, rest, links = root, pathlib.PurePosixPath(path).parts[1:], 0
        while rest:
            result, rest = result / rest[0], rest[1:]
            if result.is_symlink():
                links += 1
                if links > 40:
                    raise OSError(errno.ELOOP, path)
                target = result.readlink()
                result = root if target.is_absolute() else result.parent
                rest = (*(part for part in target.parts if part != "/"), *rest)
        return result

    def write(self, path: str, text: str, owner: str = "alice", mode: int = 0o600) -> None:
        """Write a file; directories that are missing are made, owned by OWNER, 0700."""
        uid = self.uid(owner)
        target = self.host_path(path)
        missing = [target.parent]
        while not missing[-1].exists():
            missing.append(missing[-1].parent)
        for directory in reversed(missing[:-1]):
            directory.mkdir(mode=0o700)
            os.chown(directory, uid, uid)
        target.write_text(text)
        os.chown(target, uid, uid)
        target.chmod(mode)

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return self.host_path(path).read_text(errors="replace")

    def exists(self, path: str) -> bool:
        """Tell whether PATH is there (a symbolic link counts as what it points to)."""
        return self.host_path(path).exists()

    def uid(self, user: str) -> int:
        """Return the number of USER on this machine."""
        for line in self.read("/etc/passwd").splitlines():
            name, _, uid, *_rest = line.split(":")
            if name == user:
                return int(uid)
        raise LabError(f"{self.name}: no user {user}")

    # -- processes -----------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Return all processes of the machine: number in the machine, and "UID COMMAND LINE".

        PID 1 and zombies are left out, and where this checkout lies: it may be called anything.
        """
        result: dict[int, str] = {}
        for path in pathlib.Path(f"/proc/{self.pid}/root/proc").iterdir():
            if not path.name.isdigit() or path.name == "1":
                continue
            with contextlib.suppress(OSError):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").strip()
                if command:
                    uid = path.stat().st_uid
                    line = command.decode(errors="replace").replace(f"{CHECKOUT}/", "")
                    result[int(path.name)] = f"{uid} {line}"
        return result

    def pids(self, *words: str, but: str | None = None) -> list[int]:
        """Return the processes whose "UID COMMAND LINE" has one of WORDS in it, and not BUT.

        What one of them has just forked does not count: see `originals`.
        """
        return self.originals(
            pid
            for pid, line in self.processes().items()
            if any(word in line for word in words) and not (but and but in line)
        )

    def parent(self, pid: int) -> int | None:
        """Return the number of the parent of PID, as the machine numbers it; None: PID is gone."""
        path = pathlib.Path(f"/proc/{self.pid}/root/proc/{pid}/status")
        try:
            lines = path.read_text().splitlines()
        except OSError:
            return None
        return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))

    def originals(self, pids: Iterable[int]) -> list[int]:
        """Return those of PIDS that run, and are no child of another of them.

        A process that was forked, and is about to be another program, has its parent's words.
        """
        parents = {pid: self.parent(pid) for pid in pids}
        return [pid for pid, up in parents.items() if up is not None and up not in parents]

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        """Send SIG to process PID of the machine; no error if it is gone."""
        self.run(["kill", f"-{int(sig)}", str(pid)], user="root", check=False)

    def keep(self) -> None:
        """Leave what has been started so far alone in `undo`; it ends with the machine."""
        self._undo.pop_all()

    def undo(self) -> None:
        """Stop the services and terminals that this API started here."""
        self._undo.close()
        self._undo = contextlib.ExitStack()


@functools.cache
def _nsenter() -> str:
    path = shutil.which("nsenter", path=ROOT_PATH)
    if path is None:
        raise LabError("nsenter (util-linux) is not installed")
    return path


@functools.cache
def shown_paths() -> list[str]:
    """Return the directories of the host that every machine shows: checkout and interpreter."""
    wanted = {CHECKOUT, *map(pathlib.Path, (sys.prefix, sys.base_prefix, sys.exec_prefix))}
    wanted.add(pathlib.Path(sys.executable).resolve().parent.parent)
    wanted |= {pathlib.Path(entry) for entry in sys.path if entry and pathlib.Path(entry).exists()}
    wanted |= {path.resolve() for path in wanted}
    # A mount of its own is not part of the root below, and /usr or /opt may be one.
    wanted |= {pathlib.Path(path) for path in ("/usr", "/opt") if os.path.ismount(path)}
    system = pathlib.Path("/usr")
    never = {pathlib.Path("/"), pathlib.Path.home(), *map(pathlib.Path, COVERED)}
    needed = [path for path in wanted - never if system not in path.parents]
    if not os.path.ismount(system):
        needed = [path for path in needed if path != system]
    return [str(path) for path in sorted(needed) if not any(p in needed for p in path.parents)]

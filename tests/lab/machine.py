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
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fcntl import ioctl
from typing import IO, Any, Final, TypeVar

import pexpect
from ptyprocess import PtyProcess  # type: ignore[import-untyped]

HERE: Final = pathlib.Path(__file__).resolve().parent
CHECKOUT: Final = HERE.parent.parent
ALICE_PASSWORD: Final = "tulip-4-fields"
_ALICE_HASH: Final = (
    "$6$labsalt$"
    "9hbKC9oi7fcpsaOxCCbpwKP7A.Sb.ff8VO5yWrxGADJfh0Kw/Atccs1ZOKxvVyne69aUdr1X4lekFMwMi0mOF0"
)
USER_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
ROOT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Directories that are empty in a machine; what the interpreter needs from there is shown again.
COVERED: Final = ("/root", "/home", "/tmp", "/var/tmp", "/run", "/mnt", "/sys", "/dev")  # noqa: S108

# Set while coverage is measured (make test): where the processes in a machine write what they ran.
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
_NO_COVERAGE: Final[Mapping[str, str | None]] = dict.fromkeys(COVERAGE)

# ioctl numbers that Python's termios does not have everywhere.
_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTPEER: Final = 0x5441

# What a machine has after a usual boot. IPv4 settings would else be those of the host.
SYSCTLS: Final[Mapping[str, str]] = {
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "2",
    "net.ipv4.conf.all.accept_source_route": "0",
    "net.ipv4.conf.default.accept_source_route": "0",
    "net.ipv4.conf.all.promote_secondaries": "1",
    "net.ipv4.conf.default.promote_secondaries": "1",
    "net.ipv4.conf.all.route_localnet": "0",
    "net.ipv4.conf.default.route_localnet": "0",
    "net.ipv4.conf.all.proxy_arp": "0",
    "net.ipv4.conf.default.proxy_arp": "0",
    "net.ipv4.ping_group_range": "0\t2147483647",
    "net.ipv4.tcp_congestion_control": "cubic",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
}

T = TypeVar("T")


def wait_until(
    predicate: Callable[[], T], timeout: float = 10, *, what: str | None = None, every: float = 0.01
) -> T:
    """Call PREDICATE until what it returns is true, and return that.

    TIMEOUT is in seconds. Raises TimeoutError, whose message is WHAT, after that.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = predicate()
        if result:
            return result
        if time.monotonic() >= deadline:
            message = what or f"not within {timeout} s: {getattr(predicate, '__name__', predicate)}"
            raise TimeoutError(message)
        time.sleep(every)


@dataclass(frozen=True)
class User:
    """Somebody who has an account on a machine; PASSWORD is the hash in /etc/shadow."""

    name: str
    uid: int
    shell: str = "/bin/bash"
    password: str = _ALICE_HASH

    @property
    def home(self) -> str:
        """The home directory."""
        return f"/home/{self.name}"

    def description(self) -> dict[str, Any]:
        """Return the account as the holder wants it."""
        return {
            "name": self.name,
            "uid": self.uid,
            "gid": self.uid,
            "home": self.home,
            "passwd": f"{self.name}:x:{self.uid}:{self.uid}:,,,:{self.home}:{self.shell}",
            "shadow": f"{self.name}:{self.password}:19000:0:99999:7:::",
            "group": f"{self.name}:x:{self.uid}:",
            "files": {".bashrc": BASHRC, ".profile": PROFILE},
        }


ALICE: Final = User("alice", 1000)
BOB: Final = User("bob", 1001)

NSSWITCH: Final = """\
passwd: files
group: files
shadow: files
hosts: files dns
services: files
protocols: files
networks: files
"""
BASHRC: Final = "case $- in *i*) PS1='\\u@\\h:\\w\\$ ' ;; esac\n"
# Only while coverage is measured: sudo would else hide what the privileged half runs.
KEEP_COVERAGE: Final = 'Defaults env_keep += "COVERAGE_FILE COVERAGE_PROCESS_CONFIG"\n'
PROFILE: Final = 'if [ -n "$BASH" ]; then . ~/.bashrc; fi\n'
FILES: Final[Mapping[str, tuple[str, int]]] = {
    "/etc/nsswitch.conf": (NSSWITCH, 0o644),
    # Nobody listens there: a name that /etc/hosts does not have fails at once.
    "/etc/resolv.conf": ("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", 0o644),
    "/etc/sudoers.d/alice": ("alice ALL=(ALL) ALL\n", 0o440),
    "/root/.bashrc": (BASHRC, 0o644),
}


class LabError(Exception):
    """The laboratory itself does not work, or a command in it failed."""


class CommandError(LabError):
    """A command in a machine ended with another exit code than 0; shows all it printed."""

    def __init__(self, machine: str, result: subprocess.CompletedProcess[str]) -> None:
        """Keep RESULT, and make a message that tells the whole story."""
        super().__init__(
            f"{machine}: {shlex.join(result.args)}: exit code {result.returncode}\n"
            f"stdout: {result.stdout}\nstderr: {result.stderr}"
        )
        self.result = result


class Child(subprocess.Popen[str]):
    """A command in a machine. As `subprocess.Popen`, and signals reach the command itself."""

    @property
    def inner_pid(self) -> int | None:
        """The command's process number on the host, None when it has ended."""
        path = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            children = path.read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def send_signal(self, sig: int) -> None:
        """Send SIG to the command; KILL and STOP too, which nothing could pass on."""
        if sig not in (signal.SIGKILL, signal.SIGSTOP):
            super().send_signal(sig)
            return
        self.poll()
        inner = self.inner_pid
        if inner is None:
            super().send_signal(sig)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(inner, sig)

    def has_been_ended(self) -> bool:
        """Whether it has ended and its pipes are closed: nothing is left to do for it."""
        streams = (self.stdin, self.stdout, self.stderr)
        return self.poll() is not None and all(known is None or known.closed for known in streams)

    def kill_tree(self) -> None:
        """Kill the command and all that it started, as far as it is still its descendant.

        The process outside ends by itself then: it is the one that must wait for the command, or
        the machine could not end before the host's init has done so.
        """
        for pid in _descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the tree, wait for it, close the pipes; twice is fine."""
        while self.poll() is None:  # again, should it not have started its command yet
            self.kill_tree()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(0.05)
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _descendants(pid: int) -> list[int]:
    """Return the descendants of PID, the deepest first."""
    found: list[int] = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [*_descendants(int(child)), int(child)]
    return found


class Terminal(pexpect.spawn):  # type: ignore[misc]  # pexpect is not typed
    """A pexpect child in a machine, on a terminal of the machine's own /dev/pts."""

    def __init__(
        self, machine: Machine, argv: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> None:
        """Start ARGV, which is already wrapped to enter MACHINE."""
        self._machine = machine
        super().__init__(
            argv[0],
            list(argv[1:]),
            env=dict(environment),
            timeout=timeout,
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(40, 120),
        )

    def _spawnpty(self, args: list[str], **options: Any) -> PtyProcess:
        master = os.open(
            self._machine.host_path("/dev/pts/ptmx"), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        )
        ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
        slave = ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        rows, columns = options["dimensions"]
        pid = os.posix_spawn(
            args[0],
            args,
            options["env"],
            file_actions=[(os.POSIX_SPAWN_DUP2, slave, number) for number in (0, 1, 2)],
        )
        os.close(slave)
        process = PtyProcess(pid, master)
        process.setwinsize(rows, columns)
        return process


@dataclass
class Service:
    """Something that listens in a machine until `stop()`; KIND is for messages."""

    kind: str
    child: Child
    address: str
    port: int
    token: str | None = None

    @property
    def url(self) -> str:
        """The service's address as a browser on the same machine would have it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/"

    def stop(self) -> None:
        """End it; twice does nothing more."""
        self.child.end()


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
            self, self.argv(argv, user=user, cwd=cwd, tty=True), self.env(user, env), timeout
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

        PID 1 and zombies are left out.
        """
        result: dict[int, str] = {}
        for path in pathlib.Path(f"/proc/{self.pid}/root/proc").iterdir():
            if not path.name.isdigit() or path.name == "1":
                continue
            with contextlib.suppress(OSError):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").strip()
                if command:
                    uid = path.stat().st_uid
                    result[int(path.name)] = f"{uid} {command.decode(errors='replace')}"
        return result

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        """Send SIG to process PID of the machine; no error if it is gone."""
        self.run(["kill", f"-{int(sig)}", str(pid)], user="root", check=False)

    # -- services ------------------------------------------------------------------------------

    def http_server(
        self, port: int = 8080, address: str = "127.0.0.1", *, title: str | None = None
    ) -> Service:
        """Start a web server whose page has TITLE (default: the machine's name).

        `/` is an HTML page, `/peer` the client's address as seen here, `/bytes/N` N bytes, and a
        POST to `/sha256` is answered with the body's hash. It listens when this returns.
        """
        return self._serve("http", address, port, title or self.name)

    def tcp_server(self, port: int, address: str = "127.0.0.1", *, kind: str = "echo") -> Service:
        """Start a TCP service that listens when this returns.

        KIND "echo" sends back what comes and closes after the client did; "hash" reads to the end
        and then answers with the SHA-256 in hex (it needs half-close to work); "source" sends
        until it is closed; "sink" reads and says nothing; "mute" accepts and reads nothing.
        """
        return self._serve(kind, address, port)

    def udp_server(self, port: int, address: str = "127.0.0.1") -> Service:
        """Start a UDP echo service; it listens when this returns."""
        return self._serve("udp", address, port)

    def unix_server(self, path: str, *, kind: str = "echo", user: str = "alice") -> Service:
        """Start a TCP-like service (see `tcp_server`) on the unix socket PATH."""
        return self._serve(kind, path, 0, user=user)

    def _serve(self, kind: str, address: str, port: int, *args: str, user: str = "root") -> Service:
        argv = [sys.executable, "-I", "-S", str(HERE / "_services.py"), kind, address, str(port)]
        child = self.popen([*argv, *args], user=user, env=_NO_COVERAGE)
        service = Service(kind, child, address, port)
        self._undo.callback(service.stop)
        line = read_line(child, timeout=10)
        if not line.startswith("ready "):
            child.kill_tree()
            raise LabError(f"{self.name}: {kind} service: {line}{child.communicate()[1]}")
        service.port = int(line.split()[1])
        return service

    def start_jupyter(
        self,
        port: int = 8888,
        *,
        user: str = "alice",
        token: str = "letmein",  # noqa: S107
    ) -> Service:
        """Start a real Jupyter server (JupyterLab where it is installed) on localhost:PORT.

        It answers when this returns; its address with the token is `url + "lab?token=" + token`.
        """
        argv = [
            sys.executable, "-m", "jupyterlab",
            "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0",
            f"--IdentityProvider.token={token}", "--ServerApp.allow_remote_access=True",
            "--ServerApp.terminals_enabled=False",
        ]  # fmt: skip
        log = f"/var/log/jupyter-{port}.log"
        with self.host_path(log).open("w") as stream:
            child = self.popen(argv, user=user, env=_NO_COVERAGE, stdout=stream, stderr=stream)
        service = Service("jupyter", child, "127.0.0.1", port, token)
        self._undo.callback(service.stop)

        def answers() -> bool:
            if child.poll() is not None:
                raise LabError(f"{self.name}: Jupyter ended:\n{self.read(log)}")
            url = f"{service.url}api/status?token={token}"
            return self.run(["curl", "-fsS", "-o", "/dev/null", url], check=False).returncode == 0

        wait_until(answers, 40, what=f"{self.name}: Jupyter does not answer", every=0.1)
        return service

    def keep(self) -> None:
        """Leave what has been started so far alone in `undo`; it ends with the machine."""
        self._undo.pop_all()

    def undo(self) -> None:
        """Stop the services and terminals that this API started here."""
        self._undo.close()
        self._undo = contextlib.ExitStack()


def read_line(child: Child, timeout: float) -> str:
    """Return the next line that CHILD prints, "" at its end; raises TimeoutError."""
    assert child.stdout is not None
    # Not by select(): a line that came with the one before is in Python's buffer already.
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = child.stdout.readline
    threading.Thread(target=lambda: lines.put(reader()), daemon=True).start()
    try:
        return lines.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"nothing printed within {timeout} s: {child.args!r}") from None


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

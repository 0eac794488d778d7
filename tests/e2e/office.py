"""What the tests of `sshvpn forward` have in common: words for what a person does and sees.

`Office` wraps a laboratory. It may be shared by many tests: `clean` brings alice's home back to
what it was, and `Lab.check` tells what a test has left.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from tests.e2e.sessions import RUNTIME, records
from tests.lab import Child, Lab, LabMachine, Service, Terminal, wait_until
from tests.lab.process import read_line

HOME: Final = "/home/alice"
_KEPT: Final = {".bashrc", ".profile", ".ssh", "id_ed25519", "id_ed25519.pub", "agent.sock"}

_TALK: Final = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as stream:
    for line in sys.stdin:
        stream.sendall(line.encode())
        print(stream.recv(100).decode(), end="", flush=True)
"""

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C."""

Result = subprocess.CompletedProcess[str]


class Office:
    """A laboratory, and alice at its gateway with an encrypted key in her agent."""

    def __init__(self, lab: Lab) -> None:
        """Take LAB as it is."""
        self.lab = lab
        self.gateway: LabMachine = lab.gateway
        self.server: LabMachine = lab.server

    def clean(self) -> None:
        """Make alice's home what it was: only her key, and the server's host keys known."""
        for directory in (HOME, f"{HOME}/.ssh"):
            for path in self.gateway.host_path(directory).iterdir():
                if path.name in _KEPT:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        known = [self.server.sshd]
        if "jump" in self.lab.machines:
            known.append(self.lab.jump.sshd)
        self.lab.know(*known)

    # -- what a person types -------------------------------------------------------------------

    def sshvpn(self, *args: str, check: bool = True, **options: Any) -> Result:
        """Run `sshvpn ARGS` as alice on the gateway, without a terminal."""
        return self.lab.sshvpn(*args, check=check, **options)

    def forward(self, *args: str, check: bool = True, **options: Any) -> Result:
        """Run `sshvpn forward -b ARGS`."""
        return self.sshvpn("forward", "-b", *args, check=check, **options)

    def foreground(self, *args: str, env: Mapping[str, str | None] | None = None) -> Child:
        """Start `sshvpn forward ARGS` in the foreground, without a terminal."""
        return self.start(self.lab.sshvpn_argv("forward", *args), env=env)

    def start(self, argv: list[str], *, machine: LabMachine | None = None, **options: Any) -> Child:
        """Start ARGV as alice on the gateway (or MACHINE); it ends with the test at the latest."""
        where = machine or self.gateway
        child = where.popen(argv, **options)
        where._undo.callback(child.end)
        return child

    def at_terminal(self, *args: str, env: Mapping[str, str | None] | None = None) -> Terminal:
        """Start `sshvpn forward ARGS` at a terminal."""
        return self.lab.sshvpn_pty("forward", *args, env=env)

    def refused(self, code: int, *args: str, **options: Any) -> str:
        """Assert that `sshvpn ARGS` ends with CODE and says why as it should; return what.

        One or two lines on stderr and no traceback; stdout has at most what happened till then.
        """
        result = self.sshvpn(*args, check=False, **options)
        told = f"{args}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert result.returncode == code, told
        assert result.stdout == "" or "-b" not in args, told
        assert 1 <= len(result.stderr.splitlines()) <= 2, told
        assert result.stderr.startswith("sshvpn: "), told
        assert "Traceback" not in result.stderr, told
        return result.stderr

    def config(self, text: str) -> None:
        """Write alice's config.toml."""
        self.gateway.write(f"{HOME}/.config/sshvpn/config.toml", text)

    def ssh_config(self, text: str) -> None:
        """Write alice's ssh_config."""
        self.gateway.write(f"{HOME}/.ssh/config", text)

    # -- what a person sees --------------------------------------------------------------------

    def status(self, *args: str) -> list[dict[str, Any]]:
        """Return the forwards, as `sshvpn status --json` has them."""
        if not args:
            return records(self.gateway, "forward")
        return list(json.loads(self.sshvpn("status", "--json", *args).stdout)["forwards"])

    def only(self) -> dict[str, Any]:
        """Return the one forward that is up."""
        (record,) = self.status()
        return record

    def wait_state(self, state: str, *, code: str | None = None, timeout: float = 30,
                   reconnects: int | None = None,
                   name: str | None = None) -> dict[str, Any]:  # fmt: skip
        """Return the status of the only forward (or of NAME) once it is STATE, with CODE."""
        seen: list[dict[str, Any]] = []

        def is_so() -> bool:
            seen[:] = [record for record in self.status() if name in (None, record["name"])]
            return (
                len(seen) > 0
                and seen[0]["state"] == state
                and (code is None or (seen[0]["last_error"] or {}).get("code") == code)
                and (reconnects is None or seen[0]["reconnects"] == reconnects)
            )

        try:
            wait_until(is_so, timeout, every=0.1)
        except TimeoutError as error:
            told = self.logs(seen[0]["name"] if seen else "server")
            message = f"not {state} {code or ''} within {timeout} s: {seen}\n{told}"
            raise TimeoutError(message) from error
        return seen[0]

    def wait_gone(self) -> None:
        """Wait until nothing of sshvpn runs or listens, and its run-time directory is gone."""

        def is_gone() -> bool:
            return not (self.pids("sshvpn") or self.pids("ssh -N") or self.gateway.exists(RUNTIME))

        wait_until(is_gone, what=f"left: {self.pids('ssh')}")

    def logs(self, name: str = "server") -> str:
        """Return the log of NAME's session, also after its end."""
        path = f"{HOME}/.local/state/sshvpn/log/forward-{name}.log"
        return self.gateway.read(path) if self.gateway.exists(path) else ""

    def wait_logged(self, words: str, name: str = "server", timeout: float = 15) -> None:
        """Wait until WORDS are in the log."""
        wait_until(lambda: words in self.logs(name), timeout, what=f"not in the log: {words}")

    def fetch(self, url: str, *options: str, machine: LabMachine | None = None) -> str:
        """Return what curl gets from URL; raises CommandError."""
        curl = ["curl", "-sS", "--max-time", "10", "--noproxy", "", *options, url]
        return (machine or self.gateway).run(curl).stdout

    def answers(self, url: str, *options: str, machine: LabMachine | None = None) -> bool:
        """Whether anything answers at URL, within a second."""
        curl = ["curl", "-s", "--connect-timeout", "1", "--max-time", "3", *options, url]
        return (machine or self.gateway).run(curl, check=False).returncode == 0

    def listening(self, machine: LabMachine | None = None) -> set[str]:
        """Return the addresses and ports of all TCP listeners, as ss(8) writes them."""
        out = (machine or self.gateway).run(["ss", "-Hltn"], user="root").stdout
        return {line.split()[3] for line in out.splitlines()}

    def talk(self, host: str, port: int, *, machine: LabMachine | None = None) -> Talk:
        """Open a TCP stream from MACHINE (or the gateway) to an echo service."""
        argv = [sys.executable, "-c", _TALK, host, str(port)]
        return Talk(self.start(argv, machine=machine, stdin=subprocess.PIPE))

    # -- processes -----------------------------------------------------------------------------

    def pids(self, word: str) -> list[int]:
        """Return alice's processes on the gateway with WORD in their command lines."""
        found = self.gateway.processes().items()
        return self.gateway.originals(
            pid for pid, line in found if line.startswith("1000 ") and word in line
        )

    def ssh_pid(self) -> int:
        """Return the process of the one ssh that carries forwards."""
        (pid,) = self.pids("ssh -N -T")
        return pid

    def web(self, port: int = 8888, title: str = "notebook") -> Service:
        """Start a web page on the server's localhost."""
        return self.server.http_server(port, title=title)

    def sessions(self) -> int:
        """Return how many SSH connections the server's sshd holds."""
        return len(self.server.sshd.sessions())


class Talk:
    """A TCP stream to an echo service that stays open."""

    def __init__(self, child: Child) -> None:
        """Take CHILD, which sends its lines and prints what comes back."""
        self._child = child

    def is_answered(self, word: str) -> bool:
        """Send WORD, and return whether it comes back."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(f"{word}\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            return False
        return read_line(self._child, timeout=20) == f"{word}\n"

    def close(self) -> None:
        """End it in good order."""
        self._child.communicate(timeout=20)


def tell_end(child: Child, timeout: float = 20) -> tuple[int, str, str]:
    """Wait for CHILD's end; return its exit code and what it printed."""
    stdout, stderr = child.communicate(timeout=timeout)
    return child.returncode, stdout, stderr


def exit_code(terminal: Terminal, timeout: float = 20) -> int:
    """Wait for the end of what runs at TERMINAL, and return its exit code."""
    import pexpect

    terminal.expect(pexpect.EOF, timeout=timeout)
    terminal.close()
    return int(terminal.exitstatus if terminal.exitstatus is not None else -terminal.signalstatus)

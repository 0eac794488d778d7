"""The token of a notebook, from before its start until its end: who else is there never sees it.

gateway ══ssh══ server       at both: bob, who reads all that he may, again and again;
alice           alice        and strace, which sees every program that is started, however short
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.notebooks import HERE, PATH_LINE, STATE, TIMEOUT, VENV, Notebooks, token_of, url_in
from tests.e2e.office import HOME, Office
from tests.lab import LabMachine, wait_until
from tests.lab.machine import shown_paths
from tests.lab.process import read_line

pytestmark = pytest.mark.lab

OPEN = f"{HOME}/open"
TRACE = f"{HOME}/trace/commands"
DIRECTORIES = (HOME, "/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108
STRACE = ("strace", "-f", "-qq", "-v", "-s", "100000", "-e", "trace=execve,execveat",
          "-e", "signal=none", "--seccomp-bpf", "-DD", "-A")  # fmt: skip
CONTROL = "c0ffee" * 8
"""What looks like a token, and is shown on purpose: it must be found."""


@pytest.fixture
def notebooks(office: Office) -> Iterator[Notebooks]:
    """Return the shared laboratory, where alice's directories at the server are open to all."""
    made = Notebooks(office)
    for directory in (STATE, OPEN):
        office.server.run(["install", "-d", "-m", "755", directory])
    profile = f"{PATH_LINE}umask 022; export JUPYTER_RUNTIME_DIR={OPEN}\n"
    office.server.write(f"{HOME}/.profile", profile)
    # Without a directory of a session, what is up has its own below /tmp.
    office.gateway.environment["alice"]["XDG_RUNTIME_DIR"] = "/nowhere"
    yield made
    office.sshvpn("down", "--all")
    del office.gateway.environment["alice"]["XDG_RUNTIME_DIR"]
    made.end()


class Bob:
    """Who has an account on MACHINE, too, and is curious."""

    def __init__(self, machine: LabMachine) -> None:
        """Return when he has begun."""
        self.machine = machine
        self.seen: set[tuple[str, str]] = set()
        but = json.dumps(shown_paths())
        argv = [sys.executable, "-I", "-S", str(HERE / "_reader.py"), but, *DIRECTORIES]
        self._child = machine.popen(argv, user="bob", stdin=subprocess.PIPE)
        machine._undo.callback(self._child.end)
        assert read_line(self._child, 20) == "ready\n"
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def _hear(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            token, _, path = line.rstrip("\n").partition(" ")
            self.seen.add((token, path))

    def is_shown(self, name: str) -> None:
        """Show him what he is to find, in the file NAME and a command line; return when he has."""
        self.machine.write(name, CONTROL, mode=0o644)
        words = ["sh", "-c", "read line", CONTROL]
        with self.machine.popen(words, stdin=subprocess.PIPE) as child:
            wait_until(lambda: self._has_found(name), what=f"{self.machine.name}: {self.seen}")
            child.end()

    def _has_found(self, name: str) -> bool:
        paths = {path for token, path in self.seen.copy() if token == CONTROL}
        return name in paths and any(path.endswith("/cmdline") for path in paths)

    def end(self) -> set[tuple[str, str]]:
        """Let him look once more; return what he has seen, with where."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._thread.join(20)
        assert self._child.wait(20) == 0
        return self.seen


@contextlib.contextmanager
def traced(machine: LabMachine) -> Iterator[None]:
    """Let TRACE have what each login at MACHINE starts."""
    machine.sshd.under = [*STRACE, "-o", TRACE]
    machine.sshd.restart()
    try:
        yield
    finally:
        machine.sshd.under = ()
        machine.sshd.restart()


def test_the_token_is_in_no_process_list_and_in_no_file_of_others_at_any_moment(
    notebooks: Notebooks,
) -> None:
    office = notebooks.office
    gateway, server = office.gateway, office.server
    for machine in (gateway, server):
        machine.write(TRACE, "")

    def started(*argv: str) -> str:
        # Errors go to a file: the tracer stays with what is up, and keeps them open.
        words = ["sh", "-c", 'exec "$@" 2>>"$0"', f"{TRACE}.errors", *STRACE, "-o", TRACE, *argv]
        return gateway.run(words, env={"BROWSER": f"{HOME}/firefox %s &"}, timeout=TIMEOUT).stdout

    def notebook(*args: str) -> str:
        return started(*office.lab.sshvpn_argv("notebook", *args, "server"))

    gateway.write(f"{HOME}/firefox", "#!/bin/sh\n", mode=0o755)
    bobs = Bob(gateway), Bob(server)
    with traced(server):
        said = notebook("-b")
        assert "started: " in said
        token = token_of(url_in(said))
        office.sshvpn("down")
        again = notebook("-b", "--no-browser")
        assert "it ran already" in again
        assert token_of(url_in(again)) == token
        assert HOME in notebook("list")
        assert "has ended" in notebook("stop")
        started("ssh", "server", f"exec env CONTROL={CONTROL} true {CONTROL}")
    for bob in bobs:
        bob.is_shown(f"{HOME}/shown.txt")
        assert not [path for found, path in bob.end() if found == token], bob.machine.name
    at_gateway, at_server = gateway.read(TRACE), server.read(TRACE)
    assert token not in at_gateway + at_server
    assert f"{HOME}/firefox" in at_gateway
    assert f'true {CONTROL}"]' in at_gateway
    assert f'["true", "{CONTROL}"]' in at_server
    assert f'"CONTROL={CONTROL}"' in at_server
    assert f'{VENV}/bin/jupyter-lab", "--no-browser"' in at_server

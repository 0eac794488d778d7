"""Jupyter at a server whose systemd-logind ends what people leave running when they log out.

gateway ══ssh══ server's network: a Box, with its own sshd, PAM and logind (KillUserProcesses=yes)
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.notebooks import PROJECT, SCRIPT, Notebooks, url_in
from tests.e2e.office import Office
from tests.lab import Lab, wait_until
from tests.lab.contents import ALICE
from tests.lab.labmachine import alices_key
from tests.systemd.box import Box

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

HOME = ALICE.home
KILLS = "[Login]\nKillUserProcesses=yes\n"
MORTAL = "Jupyter ends when you are logged out: systemd-logind at server ends what is left running"
RUNS_ON = ("--venv", "jupyter")


class Server:
    """A laboratory whose server is a box, and alice at its gateway."""

    def __init__(self) -> None:
        """Build it, with a real Jupyter in the box."""
        self.lab = Lab()
        self.lab.server.sshd.stop()
        self.office = Office(self.lab)
        self.lab.server.write(f"{HOME}/.ssh/known_hosts", "")
        self.box = Box(self.lab.server, shown=[sys.prefix])
        box = self.box
        box.run(["/usr/bin/python3", "-m", "venv", "--without-pip", f"{HOME}/jupyter"])
        (library,) = box.path(f"{HOME}/jupyter/lib").iterdir()
        packages = f"{HOME}/jupyter/lib/{library.name}/site-packages"
        box.write(f"{packages}/project.pth", f"{PROJECT.libraries[0]}\n", "alice")
        for shared in ("share", "etc"):
            box.run(["ln", "-s", f"{sys.prefix}/{shared}", f"{HOME}/jupyter/{shared}"])
        script = SCRIPT.format(
            python=f"{HOME}/jupyter/bin/python", module=PROJECT.commands["jupyter-lab"]
        )
        box.write(f"{HOME}/jupyter/bin/jupyter-lab", script, "alice", 0o755)
        for home, user in ((HOME, "alice"), ("/root", "root")):
            box.write(f"{home}/.ssh/authorized_keys", alices_key().public, user, 0o600)
        box.write("/etc/systemd/logind.conf.d/kill.conf", KILLS)
        box.systemctl("restart", "systemd-logind")
        box.systemctl("start", "ssh")
        key = box.read("/etc/ssh/ssh_host_ed25519_key.pub")
        self.lab.gateway.write(f"{HOME}/.ssh/known_hosts", f"server {key}")

    def notebook(self, *args: str, user: str = "") -> tuple[str, str]:
        """Run `sshvpn notebook -b ARGS server`; return its URL, and what was told beside it."""
        host = f"{user}@server" if user else "server"
        said = self.office.sshvpn("notebook", "-b", "--no-browser", *args, host, timeout=90)
        return url_in(said.stdout), said.stdout + said.stderr

    def execute(self, url: str, code: str, kernel: str | None = None) -> tuple[str, str]:
        """Run CODE in KERNEL, or in a new one."""
        return Notebooks.execute_at(self.lab.gateway, url, code, kernel)

    def sessions(self) -> str:
        """Return logind's sessions."""
        return self.box.run(["loginctl", "list-sessions", "--no-legend"], user="root").stdout

    def is_logged_out(self) -> bool:
        """Whether nobody is logged in; what was left running keeps a session in its list."""
        numbers = [line.split()[0] for line in self.sessions().splitlines()]
        state = ["loginctl", "show-session", "--value", "--property=State"]
        states = self.box.run([*state, *numbers], user="root").stdout.split() if numbers else []
        return {*states} <= {"closing"}

    def runs(self) -> bool:
        """Whether a Jupyter runs there."""
        found = self.box.run(["pgrep", "-f", "bin/jupyter-lab"], user="root", check=False)
        return found.returncode == 0

    def close(self) -> None:
        """Take all down."""
        self.office.sshvpn("down", "--all", check=False)
        self.box.close()
        self.lab.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """Return such a server."""
    if sys.version_info[:2] != _version_of_the_system():
        pytest.skip("the box's Python is not the one that the tests' libraries are for")
    made = Server()
    try:
        yield made
    finally:
        made.close()


def _version_of_the_system() -> tuple[int, int]:
    import subprocess

    words = ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"]
    major, minor = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return int(major), int(minor)


def test_the_line_that_is_told_lets_jupyter_and_its_kernels_live_on(server: Server) -> None:
    office = server.office
    url, told = server.notebook(*RUNS_ON)
    assert MORTAL in told
    _, kernel = server.execute(url, "kept = 41")

    # A connection that is lost is no logout, as long as a new one comes soon.
    for session in server.sessions().splitlines():
        server.box.run(["loginctl", "terminate-session", session.split()[0]], user="root")
    office.wait_state("running", reconnects=1)
    assert server.execute(url, "print(kept + 1)", kernel)[0] == "42\n"

    line = told.partition("run once: ")[2].splitlines()[0]
    assert line == "ssh server loginctl enable-linger"
    server.lab.gateway.run(shlex.split(line))
    office.sshvpn("down")
    # Without it all would be over ten seconds later (UserStopDelaySec): the next test.
    wait_until(lambda: not server.sessions(), 20, every=0.1)
    wait_until(lambda: server.box.show("user@1000.service", "ActiveState") == "active")
    again, told = server.notebook(*RUNS_ON)
    assert (again, "it ran already" in told, MORTAL in told) == (url, True, False)
    assert server.execute(url, "print(kept + 2)", kernel)[0] == "43\n"
    office.sshvpn("notebook", "stop", "server")
    wait_until(lambda: not server.runs())
    assert MORTAL not in server.notebook(*RUNS_ON)[1], "it will live on, and nothing need be told"


def test_what_was_told_is_so(server: Server) -> None:
    assert MORTAL in server.notebook(*RUNS_ON)[1]
    server.office.sshvpn("down")
    wait_until(lambda: not server.runs(), 30, every=0.2)
    assert server.sessions() == ""


def test_where_there_is_no_scope_to_be_had_that_is_told_and_so(server: Server) -> None:
    server.box.run(["chmod", "a-x", "/usr/bin/systemd-run"], user="root")
    _, told = server.notebook(*RUNS_ON)
    assert "Jupyter ends with this connection: systemd-logind at server" in told
    assert server.runs()
    server.office.sshvpn("down")
    wait_until(lambda: not server.runs(), 30, every=0.2)


def test_who_is_left_alone_is_told_nothing(server: Server) -> None:
    # KillExcludeUsers=root is the default.
    path = ("--venv", f"{HOME}/jupyter")
    _, told = server.notebook(*path, user="root")
    assert "KillUserProcesses" not in told
    server.office.sshvpn("down")
    wait_until(server.is_logged_out, 20, every=0.1)
    assert server.runs()

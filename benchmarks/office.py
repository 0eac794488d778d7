"""The place where all is measured: gateway and server of the laboratory, and ways between them.

gateway ── veth ── bridge ── veth ── server (sshd)
  load.py client ─ a forward of ours or of a peer ═ ssh ═ sshd ─ load.py serve
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType

from tests.lab import Child, Lab, LabMachine
from tests.lab.process import read_line, wait_until

HERE = Path(__file__).resolve().parent
PLAIN_PYTHON = (sys.executable, "-I", "-S")
LOAD_PORT = 7000
FIRST_PORT = 7001
SAME_CIPHER = "aes128-gcm@openssh.com"


class Office:
    """The laboratory with the load's server, and forwards that are made when first asked for.

    Each way is known by a name, which is the key of ``ports``: ``openssh`` and ``sshtunnel``
    are ours, ``ssh``, ``ssh same cipher`` and ``library`` the peers.
    """

    def __init__(self) -> None:
        self.lab = Lab()
        self._ports: dict[str, int] = {}
        self._processes: dict[str, Path] = {}
        self._children: list[Child] = []

    def __enter__(self) -> Office:  # noqa: PYI034 (Self is younger than Python 3.10)
        self._start_load()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.lab.close()

    def _start_load(self) -> None:
        words = [*PLAIN_PYTHON, f"{HERE}/load.py", "serve", f":::{LOAD_PORT}"]
        server = self.lab.server.popen(words)
        self._children.append(server)
        if read_line(server, timeout=10) != "ready\n":
            raise RuntimeError("the load's server did not start")

    def port(self, way: str) -> int:
        """Return the port on the gateway's loopback that leads to the load's server."""
        if way not in self._ports:
            port = FIRST_PORT + len(self._ports)
            self._make(way, port)
            self._ports[way] = port
            self._wait_answer(port)
        return self._ports[way]

    def _make(self, way: str, port: int) -> None:
        if way in ("openssh", "sshtunnel"):
            name = f"{way}-speed"
            self.forward(name, "--engine", way, f"{port}:{LOAD_PORT}")
            self._processes[way] = self.supervisor(name)
            return
        specs = ("-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{LOAD_PORT}", "server")
        words = {
            "ssh": ("ssh", *specs),
            "ssh same cipher": ("ssh", "-c", SAME_CIPHER, *specs),
            "library": (
                *(sys.executable, f"{HERE}/library.py"),
                *("server", str(port), str(LOAD_PORT)),
            ),
        }[way]
        child = self.lab.gateway.popen(words)
        self._children.append(child)
        self._processes[way] = Path(f"/proc/{child.pid}")

    def _wait_answer(self, port: int) -> None:
        def answers() -> bool:
            return self._load("push", port, 1, check=False) is not None

        wait_until(answers, 20, what=f"nothing answers on port {port}", every=0.1)

    def forward(self, name: str, *words: str) -> None:
        """Run ``sshvpn forward -b`` to the server."""
        self.lab.sshvpn("forward", "-b", "--name", name, "--host", "server", *words)

    def down(self, name: str) -> None:
        """Take a forward down."""
        self.lab.sshvpn("down", name)

    def transfer(self, way: str, verb: str, size: int) -> float:
        """Move ``size`` bytes over ``way``, ``push`` or ``pull``; return bytes a second."""
        seconds = self._load(verb, self.port(way), size)
        assert seconds is not None
        return size / seconds

    def transfer_to(self, machine: LabMachine, address: str, verb: str, size: int) -> float:
        """Move ``size`` bytes from MACHINE straight to the server; return bytes a second."""
        where = f"{address}:{LOAD_PORT}"
        words = [*PLAIN_PYTHON, f"{HERE}/load.py", verb, where, str(size)]
        return size / float(machine.run(words, timeout=600).stdout)

    def cpu_s(self, way: str) -> float:
        """Return the CPU time of the processes at this end of ``way`` so far."""
        self.port(way)
        return _cpu_s(self._processes[way])

    def crowd(self, way: str, count: int, size: int) -> float | None:
        """Return the seconds of load.py's crowd, None where a byte was wrong."""
        return self._load("crowd", self.port(way), count, size, check=False)

    def _load(self, verb: str, port: int, *numbers: int, check: bool = True) -> float | None:
        words = [*PLAIN_PYTHON, f"{HERE}/load.py", verb, str(port), *map(str, numbers)]
        done = self.lab.gateway.run(words, timeout=600, check=check)
        if done.returncode and numbers != (1,):
            print(done.stderr, file=sys.stderr)
        return None if done.returncode else float(done.stdout)

    def times(self, rounds: int, commands: dict[str, list[str]]) -> dict[str, list[float]]:
        """Return the seconds of each command on the gateway, run in turn ``rounds`` times."""
        done = self.lab.gateway.run(
            [*PLAIN_PYTHON, f"{HERE}/clock.py"],
            input=json.dumps({"rounds": rounds, "commands": commands}),
            timeout=600,
        )
        taken: dict[str, list[float]] = json.loads(done.stdout)
        return taken

    def supervisor(self, name: str) -> Path:
        """Return the directory in /proc of the background process called ``name``."""
        records = json.loads(self.lab.sshvpn("status", name, "--json").stdout)["forwards"]
        return self.lab.gateway.host_path(f"/proc/{records[0]['pid']}")


def _cpu_s(proc: Path) -> float:
    """Return what the process at ``proc`` and its descendants have used (proc(5))."""
    ticks = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
    used = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    for children in (proc / "task").glob("*/children"):
        used += sum(_cpu_s(proc.parent / child) for child in children.read_text().split())
    return used


def sshvpn_words() -> list[str]:
    """Return how a user starts it: the script that installing it makes, where there is one."""
    script = Path(sys.executable).with_name("sshvpn")
    return [str(script)] if script.exists() else [sys.executable, "-m", "sshvpn"]

"""What the tests of `sshvpn up` have in common: an office whose server takes tunnels.

::

    lan ── lan0 gateway wan0 ══ssh══ server ── inner
                                     :8080 all addresses      :8000 all addresses
                                     127.0.0.1:8888
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

from tests.e2e.sessions import records
from tests.lab import Lab, LabMachine, wait_until
from tests.lab.contents import ALICE

INNER: Final = ("10.20.0.0/24", "fd20::/64")
SHARED: Final = (
    "server", "--lan", "--publish", "8888", *(word for net in INNER for word in ("--route", net))
)  # fmt: skip
"""What `up` is told to share all that the drawing shows."""
INNER_HOSTS: Final = ("10.20.0.10", "fd20::10")
DATAGRAMS: Final = 7007
"""The UDP port of the echo services, where a test starts some."""

either_transport = pytest.mark.parametrize("transport", [None, "w"], ids=["auto", "w"])
"""What uses it runs over what a server gets by itself, the stream transport, and over `ssh -w`."""

_ASK_UDP: Final = """
import socket, sys
host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.settimeout(1)
    for _ in range(3):
        sock.sendto(bytes(size), (host, port))
        try:
            print(len(sock.recv(65535)))
            break
        except OSError:
            pass
"""


class Vpn:
    """A laboratory with alice at the gateway, and services at the server and behind it.

    LOGIN is who alice is at the server: "root", or "alice" with passwordless sudo. SUDO: hers at
    the gateway wants no password. TRANSPORT is what `up` is told; None: nothing. SERVICES start
    with it. RIGHTS: a login that is not root's has sudo at the server.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        login: str = "root",
        sudo: bool = True,
        transport: str | None = None,
        services: bool = True,
        rights: bool = True,
    ) -> None:
        """Prepare LAB, which is as it was made; what is changed here is left by `Lab.check`."""
        self.lab = lab
        self.login = login
        self._transport = () if transport is None else ("--transport", transport)
        lab.server.sshd.restart(PermitTunnel="yes")
        if login == "root":
            lab.server.authorize("root")
        elif rights:
            lab.server.allow_sudo(login)
        lab.gateway.write(f"{ALICE.home}/.ssh/config", f"Host server\n  User {login}\n")
        if sudo:
            lab.gateway.allow_sudo()
        if services:
            self.serve()

    def serve(self) -> None:
        """Start the services; each says on its page where it is."""
        self.lab.server.http_server(8080, "::", title="server")
        self.lab.server.http_server(8888, title="notebook")
        self.lab.inner.http_server(8000, "::", title="inner")

    # -- what a person types -------------------------------------------------------------------

    def up(self, *args: str) -> str:
        """Run `sshvpn up ARGS` and return what it printed."""
        return self.lab.sshvpn("up", *(args or SHARED), *self._transport).stdout

    def try_up(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run `sshvpn up ARGS`, which may fail; return how it ended."""
        return self.lab.sshvpn("up", *args, *self._transport, check=False)

    def down(self) -> None:
        """Run `sshvpn down`."""
        self.lab.sshvpn("down")

    def record(self) -> dict[str, Any]:
        """Return the only tunnel, as `status --json` has it."""
        (record,) = records(self.lab.gateway, "tunnel")
        return record

    # -- what a machine of the LAN sees --------------------------------------------------------

    def published(self, address: str = "192.168.77.1") -> dict[str, str]:
        """Return the URL of the published service at the gateway's ADDRESS, with its page."""
        return {f"http://{address}:8888/": "notebook"}

    def inner(self) -> dict[str, str]:
        """Return the URLs of the machine behind the server, with its page."""
        return {"http://10.20.0.10:8000/": "inner", "http://[fd20::10]:8000/": "inner"}

    def remote(self) -> dict[str, str]:
        """Return the URLs of the server at its tunnel addresses, with its page."""
        four, six = (cidr.partition("/")[0] for cidr in self.record()["remote_addresses"])
        return {f"http://{four}:8080/": "server", f"http://[{six}]:8080/": "server"}

    def everything(self) -> dict[str, str]:
        """Return all of these."""
        return {**self.published(), **self.inner(), **self.remote()}

    def unreachable(
        self, pages: dict[str, str], machine: LabMachine | None = None, timeout: float = 2
    ) -> list[str]:
        """Return those of PAGES' URLs at which MACHINE (default: lan) does not find the page."""
        return [
            url for url, title in pages.items()
            if f"<title>{title}</title>" not in fetch(machine or self.lab.lan, url, timeout)
        ]  # fmt: skip

    def wait_reachable(self, pages: dict[str, str], timeout: float = 30) -> float:
        """Return the seconds until all PAGES are found from lan; raises TimeoutError."""
        started = time.monotonic()
        try:
            wait_until(lambda: not self.unreachable(pages, timeout=0.5), timeout)
        except TimeoutError as error:
            message = f"not within {timeout} s: {self.unreachable(pages)}\n{self.log()}"
            raise TimeoutError(message) from error
        return time.monotonic() - started

    def far_device(self) -> str:
        """Return the tunnel's device at the server."""
        names = re.findall(
            r"^\d+: (tun\d+|sshvpnr\d+)[:@]", self.lab.server.ip("-o", "link"), re.MULTILINE
        )
        (name,) = names
        return str(name)

    def log(self) -> str:
        """Return the log of the tunnel."""
        path = f"{ALICE.home}/.local/state/sshvpn/log/tunnel-server.log"
        return self.lab.gateway.read(path) if self.lab.gateway.exists(path) else ""


def masters(machine: LabMachine) -> list[int]:
    """Return the ssh processes of MACHINE that carry tunnels, of whichever transport."""
    return machine.pids("ssh -w", "ssh -T -S")


def fetch(machine: LabMachine, url: str, timeout: float = 2) -> str:
    """Return the page at URL, "" where nobody answers within TIMEOUT seconds."""
    curl: Sequence[str] = ["curl", "-s", "--max-time", str(timeout), "--noproxy", "*", url]
    return machine.run(curl, check=False).stdout


def answers_ping(machine: LabMachine, address: str) -> bool:
    """Whether ADDRESS answers one of two pings within a second each."""
    argv = ["ping", "-n", "-q", "-c2", "-i0.2", "-W1", address]
    return machine.run(argv, check=False).returncode == 0


def answers_udp(machine: LabMachine, address: str, size: int = 100) -> bool:
    """Whether the echo service at ADDRESS sends back a datagram of SIZE bytes."""
    return machine.python(_ASK_UDP, address, str(DATAGRAMS), str(size)).strip() == str(size)


@contextlib.contextmanager
def counted(machine: LabMachine, hook: str, *rules: str) -> Iterator[list[int]]:
    """Count the packets at HOOK of MACHINE, for each of RULES; the numbers are there at the end."""
    lines = [f"type filter hook {hook} priority -350;", *(f"{rule} counter" for rule in rules)]
    machine.nft("\n".join(["table inet seen {", "chain passing {", *lines, "}", "}", ""]))
    found: list[int] = []
    try:
        yield found
    finally:
        argv = ["nft", "-j", "list", "table", "inet", "seen"]
        listed = json.loads(machine.run(argv, user="root").stdout)["nftables"]
        expressions = [e for one in listed if "rule" in one for e in one["rule"]["expr"]]
        found += [e["counter"]["packets"] for e in expressions if "counter" in e]
        machine.nft("delete table inet seen")


@contextlib.contextmanager
def without_program(machine: LabMachine, name: str) -> Iterator[None]:
    """Have no program NAME on MACHINE for the block."""
    real = machine.run(["sh", "-c", f"readlink -f $(command -v {name})"], user="root")
    path = real.stdout.strip()
    machine.run(["mount", "--bind", "/dev/null", path], user="root")
    try:
        yield
    finally:
        machine.run(["umount", "--lazy", path], user="root")

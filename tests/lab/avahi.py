"""avahi in a machine of the laboratory: another's mDNS, which knows nothing of ours.

The real avahi-daemon on a bus of its own, and the real avahi-resolve and avahi-browse, as people
have them on Linux.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.lab.firewalls import bus, start
from tests.lab.labmachine import LabMachine
from tests.lab.process import wait_until

_CONFIG: Final = """\
[server]
host-name={host_name}
use-ipv4=yes
use-ipv6=yes
{more}
[publish]
publish-workstation=no
[reflector]
[rlimits]
"""
_FILE: Final = "/etc/lab-avahi.conf"
_ESCAPED: Final = re.compile(r"\\(\d{3})")


class Found(NamedTuple):
    """A service that was browsed and resolved."""

    instance: str
    host: str
    address: str
    port: int


class Avahi:
    """The daemon of MACHINE, which is HOST_NAME.local; MORE is what else [server] has."""

    def __init__(self, machine: LabMachine, host_name: str, more: str = "") -> None:
        """Start it, and return when it has its name."""
        self.machine = machine
        machine.write(_FILE, _CONFIG.format(host_name=host_name, more=more), "root", 0o644)
        bus(machine)
        argv = ["avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits", "-f", _FILE]
        start(machine, argv)
        wait_until(lambda: "Server startup complete" in self.log(), what=f"no avahi:\n{self.log()}")

    def log(self) -> str:
        """Return what it said."""
        return self.machine.read("/var/log/lab-avahi-daemon.log")

    @property
    def host_name(self) -> str:
        """The name that it has now, after conflicts too."""
        said = re.findall(r"Host name is (\S+)\.local|startup complete. Host name is (\S+)\.local",
                          self.log())  # fmt: skip
        return "".join(said[-1])

    @contextlib.contextmanager
    def publishing(self, instance: str, port: int) -> Iterator[Found]:
        """Let its machine have the web service INSTANCE at PORT, until the end of the block."""
        child = self.machine.popen(["avahi-publish", "-s", instance, "_http._tcp", str(port)])
        theirs = Found(instance, f"{self.host_name}.local", self.machine.address, port)
        try:
            wait_until(lambda: theirs in self.browse(), what=f"{self.browse()}", every=0.1)
            yield theirs
        finally:
            child.end()

    def resolve(self, name: str) -> set[str]:
        """Return the addresses of NAME, of both families, that it finds within seconds."""
        found = set()
        for family in ("-4", "-6"):
            argv = ["timeout", "3", "avahi-resolve", family, "--name", name]
            words = self.machine.run(argv, check=False).stdout.split()
            found |= set(words[1:2])
        return found

    def resolve4(self, name: str) -> str:
        """Return the IPv4 address of NAME, "" where it finds none within two seconds."""
        argv = ["timeout", "2", "avahi-resolve", "-4", "--name", name]
        return "".join(self.machine.run(argv, check=False).stdout.split()[1:2])

    def browse(self, kind: str = "_http._tcp") -> set[Found]:
        """Return the services of KIND that it knows."""
        argv = ["timeout", "4", "avahi-browse", "--resolve", "--parsable", "--no-db-lookup",
                "--terminate", kind]  # fmt: skip
        found = set()
        for line in self.machine.run(argv, check=False).stdout.splitlines():
            if line.startswith("="):
                _, _, _, instance, _, _, host, address, port, *_ = line.split(";")
                plain = _ESCAPED.sub(lambda match: chr(int(match[1])), instance)
                found.add(Found(plain, host, address, int(port)))
        return found

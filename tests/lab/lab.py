"""The laboratory: the machines of a small office, put together.

`Lab` owns which machines stand, the people's keys, and what a test may do to links. The tables of
the topology are in `topology.py`, the cables are laid by `wiring.py`, what a single machine can do
is in `labmachine.py` and `machine.py`, and what is compared at a test's end in `snapshot.py`.
"""

from __future__ import annotations

import contextlib
import functools
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from tests.lab.contents import ALICE
from tests.lab.labmachine import LabMachine, alices_key
from tests.lab.process import LabError
from tests.lab.snapshot import Snapshot, dumps_of
from tests.lab.sshd import PASSPHRASE, Sshd
from tests.lab.terminal import Terminal
from tests.lab.topology import (
    HOME,
    HOSTS,
    OFFICE,
    Adapter,
    Cable,
    Plug,
    main_adapter,
    wan_adapter,
    wan_plug,
)
from tests.lab.wan import TAPS, Emulator, Wan
from tests.lab.wiring import lay, settle

AGENT_SOCKET: Final = f"{ALICE.home}/.ssh/agent.sock"
SETTLE_S: Final = 5.0


class Lab:
    """A small office, the internet and a company's server; see the package for the drawing.

    A context manager. `lan`, `gateway`, `server`, `inner` and `internet` stand when it is made;
    `lan2` and `jump` are built when they are first used, which must be before anything else is
    done in the test. WAN puts the emulator on the link between the gateway (HOME: the router) and
    the server. HOME is the other topology: the gateway is a machine of the LAN like others, and
    `router` leads to the server.
    """

    lan: LabMachine
    gateway: LabMachine
    server: LabMachine
    inner: LabMachine
    internet: LabMachine
    router: LabMachine

    def __init__(self, *, wan: Wan | None = None, home: bool = False) -> None:
        """Build it, with sshd on the server and alice's agent on the gateway."""
        self._machines: dict[str, LabMachine] = {}
        self._cables = dict(HOME if home else OFFICE)
        self._undo = contextlib.ExitStack()
        self._emulator: Emulator | None = None
        self._shape: tuple[Wan, Wan | None] = (Wan(), None)
        try:
            routers = ["internet", "router"] if home else ["internet"]
            self._build([*routers, "gateway", "server", "lan", "inner"])
            self.lan, self.gateway = self._machines["lan"], self._machines["gateway"]
            self.server, self.inner = self._machines["server"], self._machines["inner"]
            self.internet = self._machines["internet"]
            if home:
                self.router = self._machines["router"]
            if wan is not None:
                self.shape(wan)
            self._start_agent()
            self.server.sshd = self.server.start_sshd()
            self._know(self.server.sshd)
            for machine in self._machines.values():
                machine.keep()
            self._undo = contextlib.ExitStack()
            self.checkpoint()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:  # noqa: PYI034 -- Self is newer than Python 3.10
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything down."""
        self.close()

    def close(self) -> None:
        """Take everything down; twice is fine. Compares nothing: see `check`."""
        for machine in self._machines.values():
            machine.kill_all()
        for machine in self._machines.values():
            machine.close()

    @property
    def machines(self) -> Mapping[str, LabMachine]:
        """All machines that stand, by name."""
        return self._machines

    # -- machines on demand --------------------------------------------------------------------

    @functools.cached_property
    def lan2(self) -> LabMachine:
        """A machine of the second local network, 192.168.78.0/24, behind the gateway's `lan1`."""
        return self._add("lan2")

    @functools.cached_property
    def jump(self) -> LabMachine:
        """A jump host with its own sshd (`jump.sshd`), in the WAN beside the server."""
        return self.add_server("jump", 30)

    def add_server(self, name: str, number: int) -> LabMachine:
        """Build one more machine with an sshd (`.sshd`) in the WAN, and return it.

        It is 203.0.113.NUMBER and 2001:db8:113::NUMBER, known to alice and to all by its name.
        As with `lan2` and `jump`: before anything else is done in the test.
        """
        self._cables[name] = Cable(wan_adapter(name, number), wan_plug(f"to-{name}"))
        machine = self._add(name)
        for other in self._machines.values():
            hosts = "".join(
                f"{address} {name}\n" for address in (machine.address, machine.address6)
            )
            other.write("/etc/hosts", other.read("/etc/hosts") + hosts, "root", 0o644)
        machine.sshd = machine.start_sshd()
        self._know(machine.sshd)
        machine.keep()
        self.checkpoint()
        return machine

    def _add(self, name: str) -> LabMachine:
        if difference := self.differences():
            message = f"use lab.{name} before anything is changed: {difference}"
            raise LabError(message)
        self._build([name])
        self.checkpoint()
        return self._machines[name]

    # -- building ------------------------------------------------------------------------------

    def _build(self, names: Sequence[str]) -> None:
        for name in names:
            self._machines[name] = LabMachine(name, HOSTS)
        for name in names:
            self._machines[name].ready()
        lay(self._machines, names, [self._cables[name] for name in names if name in self._cables])
        for name in names:
            machine = self._machines[name]
            adapter = main_adapter(name) or self._cables[name].left
            machine.address = adapter.address.split("/")[0]
            machine.address6 = adapter.address6.split("/")[0]

    def _start_agent(self) -> None:
        gateway = self.gateway
        home = f"{ALICE.home}/.ssh"
        gateway.write(f"{home}/id_ed25519", alices_key().private)
        gateway.write(f"{home}/id_ed25519.pub", alices_key().public, mode=0o644)
        # ssh-add asks for the passphrase as it would without a terminal.
        askpass = "/tmp/askpass"  # noqa: S108
        gateway.write(askpass, f"#!/bin/sh\necho {shlex.quote(PASSPHRASE)}\n", mode=0o700)
        script = f"ssh-agent -a {AGENT_SOCKET} >/dev/null 2>&1 && ssh-add -q && rm {askpass}"
        environment = {
            "SSH_ASKPASS": askpass, "SSH_ASKPASS_REQUIRE": "force", "SSH_AUTH_SOCK": AGENT_SOCKET
        }  # fmt: skip
        gateway.run(["sh", "-c", script], env=environment)
        gateway.environment["alice"] = {"SSH_AUTH_SOCK": AGENT_SOCKET}

    def _know(self, running: Sshd) -> None:
        machine = running.machine
        path = f"{ALICE.home}/.ssh/known_hosts"
        before = self.gateway.read(path) if self.gateway.exists(path) else ""
        names = [machine.name, machine.address, machine.address6]
        self.gateway.write(path, before + running.known_hosts(names))

    def know(self, *running: Sshd, names: Sequence[str] = (), hashed: bool = False) -> None:
        """Make alice's known_hosts on the gateway hold just these sshds' keys.

        NAMES default to the machine's name and addresses; HASHED as HashKnownHosts would.
        """
        text = "".join(
            one.known_hosts(names or [one.machine.name, one.machine.address, one.machine.address6])
            for one in running
        )
        path = f"{ALICE.home}/.ssh/known_hosts"
        self.gateway.write(path, text)
        if hashed:
            self.gateway.run(["ssh-keygen", "-H", "-f", path])
            self.gateway.run(["rm", "-f", f"{path}.old"])

    # -- the link between gateway and server ---------------------------------------------------

    def shape(self, wan: Wan, back: Wan | None = None) -> None:
        """Make the link between the gateway and the WAN what WAN says, now; see `Emulator.set`."""
        self._shape = wan, back
        if self._emulator is not None:
            self._emulator.set(wan, back)
            return
        self._emulator = Emulator(self.internet, wan)
        if back is not None:
            self._emulator.set(wan, back)
        inside, outside = TAPS
        self._internet_ip(
            "link add wan-gw type bridge mcast_snooping 0",
            "link set wan-gw addrgenmode none up",
            f"link set {inside} addrgenmode none master wan-gw up",
            f"link set {outside} addrgenmode none master wan up",
            "link set gw master wan-gw",
        )
        settle(self._machines, [Plug("internet", name, "wan-gw") for name in TAPS])
        self._undo.callback(self.unshape)

    def unshape(self) -> None:
        """Take the emulator out of the link again; nothing happens without one."""
        if self._emulator is None:
            return
        self._internet_ip("link set gw master wan", "link delete wan-gw")
        self._emulator.stop()
        self._emulator = None

    @contextlib.contextmanager
    def unshaped(self) -> Iterator[None]:
        """Have the emulator out of the link for the block, if there is one."""
        was_shaped = self._emulator is not None
        self.unshape()
        try:
            yield
        finally:
            if was_shaped:
                self.shape(*self._shape)

    def cut(self, *, silent: bool = True) -> None:
        """Cut the link between the gateway and the WAN until `restore`.

        SILENT: packets vanish and both ends notice nothing. Else the gateway's adapter loses its
        carrier.
        """
        if silent:
            self.internet.run(["bridge", "link", "set", "dev", "gw", "state", "0"], user="root")
        else:
            self._internet_ip("link set gw down")
        self._undo.callback(self.restore)

    def restore(self) -> None:
        """Undo `cut`, of either kind; no error if there was none."""
        self._internet_ip("link set gw up")
        link = self._cables["router" if "router" in self._machines else "gateway"]
        settle(self._machines, [link.left, link.right])
        self.internet.run(["bridge", "link", "set", "dev", "gw", "state", "3"], user="root")

    def add_uplink(self) -> None:
        """Give the gateway a second way to the server: `wan1`, 203.0.114.10, by 203.0.114.1.

        As with `lan2`: before anything else is done in the test. The internet forwards then, and
        the server is 198.51.100.20, too, to which only a default route leads.
        """
        lay(
            self._machines,
            [],
            [
                Cable(
                    Adapter("gateway", "wan1", "203.0.114.10/24", "2001:db8:114::10/64"),
                    Adapter("internet", "gw1", "203.0.114.1/24", "2001:db8:114::1/64"),
                )
            ],
        )
        self.internet.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], user="root")
        self._internet_ip("route add 198.51.100.20 via 203.0.113.20")
        self.server.ip("address", "add", "198.51.100.20/32", "dev", "lo")
        self.know(self.server.sshd, names=["server", self.server.address, "198.51.100.20"])
        self.checkpoint()

    def _internet_ip(self, *commands: str) -> None:
        self.internet.run(["ip", "-batch", "-"], user="root", input="\n".join(commands))

    # -- the gateway's adapters ----------------------------------------------------------------

    def add_address(self, adapter: str, cidr: str) -> None:
        """Give the gateway's ADAPTER one more address, usable at once, until the test's end."""
        nodad = ["nodad"] if ":" in cidr else []
        self.gateway.ip("address", "add", cidr, "dev", adapter, *nodad)
        self._undo.callback(
            self.gateway.run, ["ip", "address", "delete", cidr, "dev", adapter],
            user="root", check=False,
        )  # fmt: skip

    def del_address(self, adapter: str, cidr: str) -> None:
        """Take an address from the gateway's ADAPTER, until the test's end.

        Routes that hang on it are the kernel's and come back with it; others do not.
        """
        self.gateway.ip("address", "delete", cidr, "dev", adapter)
        nodad = ["nodad"] if ":" in cidr else []
        self._undo.callback(
            self.gateway.run, ["ip", "address", "replace", cidr, "dev", adapter, *nodad],
            user="root", check=False,
        )  # fmt: skip

    # -- the program under test ----------------------------------------------------------------

    @staticmethod
    def sshvpn_argv(*args: str) -> list[str]:
        """Return the command line of `sshvpn ARGS`, for `popen` and `pty`."""
        return [sys.executable, "-m", "sshvpn", *args]

    def sshvpn(
        self,
        *args: str,
        machine: LabMachine | None = None,
        user: str = "alice",
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,  # noqa: A002 -- as subprocess.run has it
    ) -> subprocess.CompletedProcess[str]:
        """Run `sshvpn ARGS` on the gateway (or MACHINE) as alice (or USER), without a terminal."""
        return (machine or self.gateway).run(
            self.sshvpn_argv(*args), user=user, check=check, timeout=timeout, env=env, input=input
        )

    def sshvpn_pty(self, *args: str, user: str = "alice", timeout: float = 30,
                   env: Mapping[str, str | None] | None = None) -> Terminal:  # fmt: skip
        """Run `sshvpn ARGS` on the gateway at a terminal; see `Machine.pty`."""
        return self.gateway.pty(self.sshvpn_argv(*args), user=user, timeout=timeout, env=env)

    # -- equality ------------------------------------------------------------------------------

    def dumps(self) -> dict[str, str]:
        """Return the dump of every machine but the internet, by name; all run at once."""
        return dumps_of(self._machines)

    def checkpoint(self) -> None:
        """From here on nothing may change; for a test that has just prepared a machine its way."""
        self._baseline = Snapshot(self._machines)

    def undo(self) -> None:
        """Undo what this API changed: services, terminals, sshds, addresses, cuts, the emulator."""
        self._undo.close()
        self._undo = contextlib.ExitStack()
        for machine in self._machines.values():
            machine.undo()

    def check(self) -> None:
        """Undo what this API changed, and assert that all is as it was at the checkpoint.

        Compared are the dumps of all machines, and that no process and no runtime file is left on
        any. Waits a few seconds for what is just going away.
        """
        self.undo()
        _assert_equal(self._baseline)

    @contextlib.contextmanager
    def unchanged(self, *, but: Collection[str] = ()) -> Iterator[None]:
        """Assert that the block leaves all as it was, compared as in `check`, undoing nothing.

        The runtime files BUT may be left.

        For a machine that has a firewall: `undo` would take that down, and what was left in its
        chains with it.
        """
        before = Snapshot(self._machines)
        yield
        _assert_equal(before, but)

    def differences(self) -> str:
        """Return what is different now from the checkpoint, a line each, "" for nothing."""
        return self._baseline.differences()


def _assert_equal(before: Snapshot, but: Collection[str] = ()) -> None:
    deadline = time.monotonic() + SETTLE_S
    while (problems := before.differences(but)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not problems, f"left behind:\n{problems}"

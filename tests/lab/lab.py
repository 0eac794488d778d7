"""The laboratory: the machines of a small office and the cables between them.

`Lab` owns the topology, the people's keys, and the comparison of the state at the end of a test
with the one at its start. What a single machine can do is in `machine.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from tests.lab import dump
from tests.lab.machine import (
    ALICE,
    Child,
    LabError,
    Machine,
    Terminal,
    shown_paths,
)
from tests.lab.sshd import KEY_TYPES, PASSPHRASE, KeyPair, Sshd, key_pair, start
from tests.lab.wan import TAPS, Emulator, Wan

AGENT_SOCKET: Final = f"{ALICE.home}/.ssh/agent.sock"
# Below these, a program may keep files only while it runs.
RUNTIME_DIRECTORIES: Final = ("/run/sshvpn", "/run/user", "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
SETTLE_S: Final = 5.0


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One end of a cable; an empty GATEWAY makes no default route."""

    machine: str
    name: str
    address: str
    address6: str
    gateway: str = ""
    gateway6: str = ""


@dataclasses.dataclass(frozen=True)
class Cable:
    """A veth pair. RIGHT may be the name of a plug of the `internet` machine's WAN bridge."""

    left: Adapter
    right: Adapter | str


def _wan_adapter(machine: str, number: int) -> Adapter:
    return Adapter(
        machine, "wan0", f"203.0.113.{number}/24", f"2001:db8:113::{number}/64",
        "203.0.113.1", "2001:db8:113::1",
    )  # fmt: skip


ADAPTERS: Final = {
    (adapter.machine, adapter.name): adapter
    for adapter in (
        Adapter("lan", "eth0", "192.168.77.10/24", "fd77::10/64", "192.168.77.1", "fd77::1"),
        Adapter("gateway", "lan0", "192.168.77.1/24", "fd77::1/64"),
        Adapter("lan2", "eth0", "192.168.78.10/24", "fd78::10/64", "192.168.78.1", "fd78::1"),
        Adapter("gateway", "lan1", "192.168.78.1/24", "fd78::1/64"),
        _wan_adapter("gateway", 10),
        _wan_adapter("server", 20),
        Adapter("server", "inner0", "10.20.0.1/24", "fd20::1/64"),
        Adapter("inner", "eth0", "10.20.0.10/24", "fd20::10/64", "10.20.0.1", "fd20::1"),
        Adapter("internet", "wan", "203.0.113.1/24", "2001:db8:113::1/64"),
    )
}  # fmt: skip
CABLES: Final = {
    "lan": Cable(ADAPTERS["lan", "eth0"], ADAPTERS["gateway", "lan0"]),
    "lan2": Cable(ADAPTERS["lan2", "eth0"], ADAPTERS["gateway", "lan1"]),
    "gateway": Cable(ADAPTERS["gateway", "wan0"], "gw"),
    "server": Cable(ADAPTERS["server", "wan0"], "srv"),
    "inner": Cable(ADAPTERS["inner", "eth0"], ADAPTERS["server", "inner0"]),
}

# Somebody out in the world, whom only the default route leads to.
WORLD: Final = "198.51.100.1"
WORLD6: Final = "2001:db8:198::1"
# The address under which a name is known everywhere.
NAMES: Final = {
    name: ADAPTERS[name, adapter]
    for name, adapter in (
        ("lan", "eth0"), ("lan2", "eth0"), ("gateway", "lan0"),
        ("server", "wan0"), ("inner", "eth0"),
    )
}  # fmt: skip
HOSTS: Final = (
    "".join(
        f"{adapter.address.split('/')[0]} {name}\n{adapter.address6.split('/')[0]} {name}\n"
        for name, adapter in NAMES.items()
    )
    + f"{WORLD} world\n{WORLD6} world\n"
)


def _main_adapter(name: str) -> Adapter | None:
    """Return the adapter whose address is known by NAME, None for a machine of `add_server`."""
    return ADAPTERS["internet", "wan"] if name == "internet" else NAMES.get(name)


class LabMachine(Machine):
    """A machine with its place in the topology."""

    sshd: Sshd

    def start_sshd(
        self,
        port: int = 22,
        options: Mapping[str, str] | None = None,
        *,
        users: Sequence[str] = ("alice",),
        addresses: Sequence[str] = (),
        key_types: Sequence[str] = KEY_TYPES,
    ) -> Sshd:
        """Start a real sshd and return it; it is stopped at the end of the test.

        OPTIONS go to sshd_config and win over `sshd.DEFAULTS`; a value of several lines repeats
        its keyword. USERS let alice's key in (`root` is a user too). ADDRESSES are what it
        listens on, all by default.
        """
        for user in users:
            self.authorize(user)
        running = start(self, port, options, addresses=addresses, key_types=key_types)
        self._undo.callback(running.stop)
        self._undo.callback(running.kill_sessions)
        return running

    def authorize(self, user: str = "alice", options: str = "", *, key: str | None = None) -> None:
        """Let alice's key (or KEY, a public one) log in as USER and nothing else.

        OPTIONS is what stands before the key in authorized_keys.
        """
        public = key or alices_key().public
        home = "/root" if user == "root" else f"/home/{user}"
        self.write(f"{home}/.ssh/authorized_keys", f"{options} {public}".lstrip(), user)

    def allow_sudo(self, user: str = "alice", *, password: bool = False) -> None:
        """Let USER use sudo for everything, without a password unless PASSWORD."""
        tag = "" if password else "NOPASSWD: "
        self.write(f"/etc/sudoers.d/{user}", f"{user} ALL=(ALL) {tag}ALL\n", "root", 0o440)

    def add_user(self, name: str, uid: int, shell: str = "/bin/bash") -> None:
        """Make one more user, with a home and without a password."""
        self.run(
            ["useradd", "--create-home", "--uid", str(uid), "--shell", shell, name], user="root"
        )

    def ip(self, *args: str) -> str:
        """Run `ip ARGS` as root and return what it printed."""
        return self.run(["ip", *args], user="root").stdout

    def nft(self, ruleset: str) -> None:
        """Load RULESET in one transaction."""
        self.run(["nft", "-f", "-"], user="root", input=ruleset)

    def story(self) -> str:
        """Return what helps to see why a test failed: processes, links, the end of sshd's log."""
        processes = "\n".join(f"{pid:>6} {line}" for pid, line in self.processes().items())
        logs = [
            f"-- {path.parent.name}\n" + "\n".join(path.read_text().splitlines()[-30:])
            for path in self.host_path("/run").glob("lab-sshd-*/log")
        ]
        return "\n".join([processes, self.ip("-brief", "address"), *logs])

    def dump(self) -> str:
        """Return the whole network state as text, without what changes by itself."""
        return finish_dump(self.start_dump())

    def start_dump(self) -> Child:
        """Start a dump; several run at once that way."""
        return self.popen(["sh", "-c", dump.SCRIPT], user="root", env={"LC_ALL": "C"})


def finish_dump(child: Child) -> str:
    """Return the dump that `start_dump` began."""
    text, _ = child.communicate(timeout=30)
    return dump.normalise(text)


def alices_key() -> KeyPair:
    """Return alice's key; it is encrypted with `PASSPHRASE`."""
    return key_pair("ed25519", "alice", PASSPHRASE)


@dataclasses.dataclass
class _Baseline:
    dumps: dict[str, str]
    processes: dict[str, Counter[str]]
    files: dict[str, set[str]]


class Lab:
    """A small office, the internet and a company's server; see the package for the drawing.

    A context manager. `lan`, `gateway`, `server`, `inner` and `internet` stand when it is made;
    `lan2` and `jump` are built when they are first used, which must be before anything else is
    done in the test. WAN puts the emulator on the link between the gateway and the server.
    """

    lan: LabMachine
    gateway: LabMachine
    server: LabMachine
    inner: LabMachine
    internet: LabMachine

    def __init__(self, *, wan: Wan | None = None) -> None:
        """Build it, with sshd on the server and alice's agent on the gateway."""
        self._machines: dict[str, LabMachine] = {}
        self._cables = dict(CABLES)
        self._undo = contextlib.ExitStack()
        self._emulator: Emulator | None = None
        try:
            self._build(["internet", "gateway", "server", "lan", "inner"])
            self.lan, self.gateway = self._machines["lan"], self._machines["gateway"]
            self.server, self.inner = self._machines["server"], self._machines["inner"]
            self.internet = self._machines["internet"]
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
        self._cables[name] = Cable(_wan_adapter(name, number), f"to-{name}")
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
        if difference := self._differences():
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
        new = [self._cables[name] for name in names if name in self._cables]
        links, setup = [], {name: [*_DAD_OFF] for name in names}
        if "internet" in names:
            setup["internet"] += [
                # Its own address, or it would take that of its lowest plug, and change with it.
                "ip link add wan address 02:00:00:00:00:01 type bridge mcast_snooping 0",
                f"ip address add {WORLD}/32 dev lo",
                f"ip address add {WORLD6}/128 dev lo nodad",
                *_configure(ADAPTERS["internet", "wan"]),
            ]
        for cable in new:
            right_machine, right_name = "internet", cable.right
            if isinstance(cable.right, Adapter):
                right_machine, right_name = cable.right.machine, cable.right.name
            links.append(
                f"link add {cable.left.name} netns {self._machines[cable.left.machine].pid}"
                f" type veth peer name {right_name} netns {self._machines[right_machine].pid}"
            )
            for name, adapter in ((cable.left.machine, cable.left), (right_machine, cable.right)):
                commands = setup.setdefault(name, [*_DAD_OFF])
                if isinstance(adapter, Adapter):
                    commands += _configure(adapter)
                else:
                    commands.append(f"ip link set {adapter} addrgenmode none master wan up")
        # Made where they belong: nothing is seen in the host's own network meanwhile.
        subprocess.run(["ip", "-batch", "-"], input="\n".join(links), text=True, check=True)
        self._run_scripts({name: [*commands, *_DAD_ON] for name, commands in setup.items()})
        ends = [end for cable in new for end in (cable.left, cable.right)]
        self._settle(*ends)
        for name in names:
            machine = self._machines[name]
            adapter = _main_adapter(name) or self._cables[name].left
            machine.address = adapter.address.split("/")[0]
            machine.address6 = adapter.address6.split("/")[0]

    def _settle(self, *ends: Adapter | str) -> None:
        """Return when the kernel's link state machine has seen that ENDS are up.

        Up to a second can pass until it looks by itself; to ask for one link makes it look (on
        older kernels it does not, and then this waits). Until then a bridge drops frames.
        """
        scripts: dict[str, list[str]] = {}
        for end in ends:
            machine, link = (
                (end.machine, end.name) if isinstance(end, Adapter) else ("internet", end)
            )
            scripts.setdefault(machine, []).append(_SETTLED.format(link=link))
        if "internet" in scripts:
            scripts["internet"].append(_SETTLED.format(link="wan"))
        self._run_scripts(scripts)

    def _run_scripts(self, scripts: Mapping[str, Sequence[str]]) -> None:
        children = {
            name: self._machines[name].popen(["sh", "-ec", "\n".join(script)], user="root")
            for name, script in scripts.items()
        }
        for name, child in children.items():
            output = "".join(child.communicate(timeout=20))
            if child.returncode:
                message = f"{name}: {output}"
                raise LabError(message)

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
        self._settle(*TAPS, "wan-gw")
        self._undo.callback(self.unshape)

    def unshape(self) -> None:
        """Take the emulator out of the link again; nothing happens without one."""
        if self._emulator is None:
            return
        self._internet_ip("link set gw master wan", "link delete wan-gw")
        self._emulator.stop()
        self._emulator = None

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
        self._settle(CABLES["gateway"].left, CABLES["gateway"].right)
        self.internet.run(["bridge", "link", "set", "dev", "gw", "state", "3"], user="root")

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
        running = {
            name: machine.start_dump()
            for name, machine in self._machines.items()
            if name != "internet"
        }
        return {name: finish_dump(child) for name, child in running.items()}

    def checkpoint(self) -> None:
        """From here on nothing may change; for a test that has just prepared a machine its way."""
        self._baseline = _Baseline(
            self.dumps(),
            {name: _commands(machine) for name, machine in self._machines.items()},
            {name: _runtime_files(machine) for name, machine in self._machines.items()},
        )

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
        deadline = time.monotonic() + SETTLE_S
        while (problems := self._differences()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not problems, f"left behind:\n{problems}"

    def _differences(self) -> str:
        before = self._baseline
        problems = []
        for name, machine in self._machines.items():
            if name == "internet":
                continue
            if extra := _commands(machine) - before.processes[name]:
                problems += [f"{name}: process {line}" for line in extra.elements()]
            if new := _runtime_files(machine) - before.files[name]:
                problems += [f"{name}: file {path}" for path in sorted(new)]
        if not problems:  # the dumps cost more, and a process on its way out may still clean up
            problems += filter(
                None,
                (dump.difference(before.dumps[name], after, name)
                 for name, after in self.dumps().items()),
            )  # fmt: skip
        return "\n".join(problems)


_DAD_OFF: Final = ("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad", "ip link set lo up")
_SETTLED: Final = (
    "until ip link show dev {link} | grep -qE 'state (UP|UNKNOWN)'; do sleep 0.02; done"
)
_DAD_ON: Final = ("echo 1 >/proc/sys/net/ipv6/conf/default/accept_dad",)


def _configure(adapter: Adapter) -> list[str]:
    """Return the commands that make ADAPTER's end of a cable usable, addresses at once."""
    name = adapter.name
    commands = [
        f"echo 0 >/proc/sys/net/ipv6/conf/{name}/accept_dad",
        f"ip address add {adapter.address} dev {name}",
        f"ip address add {adapter.address6} dev {name} nodad",
        f"ip link set {name} up",
    ]
    if adapter.gateway:
        commands += [
            f"ip route add default via {adapter.gateway}",
            f"ip -6 route add default via {adapter.gateway6} dev {name}",
        ]
    return commands


def _commands(machine: LabMachine) -> Counter[str]:
    # sshd rewrites its title ("sshd: alice [priv]"): a session is told from the listener by it.
    return Counter(machine.processes().values())


def _runtime_files(machine: LabMachine) -> set[str]:
    """Return the files below the runtime directories, the host's own aside.

    A checkout below /tmp is shown in every machine, and changes while the tests run.
    """
    root = str(machine.host_path("/"))
    hosts = {f"{root}{path}" for path in shown_paths()}
    found = set()
    for top in RUNTIME_DIRECTORIES:
        for directory, inner, files in os.walk(machine.host_path(top)):
            inner[:] = [name for name in inner if f"{directory}/{name}" not in hosts]
            links = [name for name in inner if os.path.islink(f"{directory}/{name}")]  # noqa: PTH114
            found |= {f"{directory}/{name}".removeprefix(root) for name in [*files, *links]}
    return found

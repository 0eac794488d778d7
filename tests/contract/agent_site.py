"""A server of the laboratory with the agent on it, spoken to as its client does."""

from __future__ import annotations

import ipaddress
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sshvpn.remote import agent_script, protocol
from sshvpn.remote.protocol import Facts, RemoteEnd
from tests.lab import Child, Lab, LabMachine, wait_until
from tests.lab.dump import difference
from tests.lab.process import read_line

LABEL: Final = "3e8_0123456789"
DEVICE: Final = "tun7"
# What the agent uses of the system, for a server that has nothing but busybox.
TOOLS: Final = (
    "cat", "dd", "grep", "id", "ip", "ln", "mkdir", "mv", "readlink", "rm", "sed", "sleep",
    "sort", "uname",
)  # fmt: skip
END = RemoteEnd(
    addresses=(ipaddress.ip_interface("10.83.0.2/30"), ipaddress.ip_interface("fd83::2/64")),
    mtu=1400,
    routes=(ipaddress.ip_network("192.168.77.0/24"), ipaddress.ip_network("fd77::/64")),
    masquerade=(ipaddress.ip_network("10.83.0.0/30"), ipaddress.ip_network("fd83::/64")),
    forward=("inner0",),
    loose=("inner0",),
    published=(
        protocol.Publication("10.83.0.2", 8888, "127.0.0.1", 8888),
        protocol.Publication("fd83::2", 8888, "fd20::10", 80),
    ),
)
# iptables leaves the tables that it made, empty; a server that uses it has them.
USE_TABLES = """
for program in iptables ip6tables; do
  for place in raw/PREROUTING mangle/FORWARD mangle/POSTROUTING nat/PREROUTING nat/POSTROUTING \\
    filter/FORWARD filter/INPUT; do
    for what in -A -D; do $program -t ${place%/*} $what ${place#*/} -j ACCEPT; done
  done
done
"""
DOCKER = """
iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
iptables -I FORWARD -j DOCKER-USER
ip6tables -P FORWARD DROP; ip6tables -P INPUT DROP
"""
# As of iptables-services: the policies accept, and the last rule of each chain rejects.
SERVICES = """
for chain in INPUT FORWARD; do
  iptables -A $chain -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
  iptables -A $chain -j REJECT --reject-with icmp-host-prohibited
  ip6tables -A $chain -j REJECT --reject-with icmp6-adm-prohibited
done
"""
FIREWALLD = """
table inet firewalld {
  chain filter_INPUT { type filter hook input priority 10; policy accept; reject; }
  chain filter_FORWARD { type filter hook forward priority 10; policy accept; reject; }
}
table inet guard { chain gate { type filter hook forward priority 0; policy drop; } }
"""
# What iproute2 says that is older than altnames (5.4).
NO_PROPERTY: Final = """#!/bin/sh
case " $* " in *" property "*) echo 'Command "property" is unknown' >&2; exit 255 ;; esac
exec /run/ip/real "$@"
"""
BUSYBOX_IP: Final = """#!/bin/sh
exec busybox ip "$@"
"""

M = TypeVar("M", bound=protocol.Message)


@dataclass(frozen=True)
class Setting:
    """What the agent runs with: SHELL as /bin/sh, without the programs HIDDEN."""

    shell: str = "/usr/bin/dash"
    hidden: tuple[str, ...] = ()
    busybox: bool = False

    def script(self) -> str:
        """Return the mounts that make it so, in a mount namespace of the agent's own."""
        lines = [f"mount --bind /dev/null {path}" for path in self.hidden]
        lines.append(f"cp {self.shell} /run/shell.$$; mount --bind /run/shell.$$ /bin/sh")
        if self.busybox:
            # `rm` and `mount` go last, they are still used above.
            lines += [
                f"for tool in {' '.join(TOOLS)}; do path=$(command -v $tool) && "
                'case $path in /*) mount --bind /usr/bin/busybox "$path" ;; esac; done'
            ]
        return "\n".join([*lines, "rm -f /run/shell.$$"])


NO_NFT: Final = ("/usr/sbin/nft",)
SETTINGS: Final = {
    "dash-nft": Setting(),
    "bash-nft": Setting("/usr/bin/bash"),
    "busybox-nft": Setting("/usr/bin/busybox", busybox=True),
    "dash-iptables": Setting(hidden=NO_NFT),
    "bash-iptables": Setting("/usr/bin/bash", NO_NFT),
    "busybox-iptables": Setting("/usr/bin/busybox", NO_NFT, busybox=True),
}


@dataclass
class Agent:
    """One running agent, and all it has said."""

    child: Child
    reader: protocol.Reader
    raw: list[str] = field(default_factory=list)

    def send(self, *lines: str) -> None:
        """Send lines."""
        assert self.child.stdin is not None
        self.child.stdin.write(protocol.encode(lines).decode())
        self.child.stdin.flush()

    def next(self) -> protocol.Message:
        """Return its next message."""
        while True:
            line = read_line(self.child, 20)
            if not line:
                raise EOFError("".join(self.raw))
            self.raw.append(line)
            if (message := self.reader.feed(line)) is not None:
                return message

    def expect(self, kind: type[M]) -> M:
        """Return its next message, which is a KIND."""
        message = self.next()
        assert isinstance(message, kind), f"{message}\n{''.join(self.raw)}"
        return message

    def configure(self, end: protocol.RemoteEnd) -> None:
        """Configure it; it has done so when this returns."""
        self.send(*end.lines())
        self.expect(protocol.Applied)

    def close(self) -> None:
        """End its input."""
        assert self.child.stdin is not None
        self.child.stdin.close()

    def end(self) -> str:
        """Ask it to end, and return why it says that it does."""
        self.send(protocol.END)
        reason = self.expect(protocol.Ended).reason
        self.close()
        assert self.child.wait(10) == 0
        return reason

    def end_by_ssh(self) -> None:
        """Ask it to end, and end ssh, which a tun would keep running."""
        self.send(protocol.END)
        self.expect(protocol.Ended)
        self.child.kill_tree()
        self.child.wait(10)


@contextmanager
def other_ip(server: LabMachine, text: str) -> Iterator[None]:
    """Let SERVER's ip be the program TEXT for the block; the real one is /run/ip/real."""
    server.write("/run/ip/other", text, "root", 0o755)
    server.run(["chmod", "755", "/run/ip"], user="root")
    path = server.run(["sh", "-c", "readlink -f $(command -v ip)"], user="root").stdout.strip()
    script = f"cp {path} /run/ip/real && mount --bind /run/ip/other {path}"
    server.run(["sh", "-ec", script], user="root")
    try:
        yield
    finally:
        server.run(["umount", "--lazy", path], user="root")


def look(
    machine: LabMachine, setting: Setting = SETTINGS["dash-nft"], before: str = ""
) -> protocol.Facts:
    """Return what the agent tells of MACHINE as root; it ends by itself, its input still open."""
    agent = start(machine, setting, mode=protocol.Mode.LOOK, tunnel="", before=before)
    facts = agent.expect(protocol.Facts)
    assert agent.expect(protocol.Ended).reason == "looked"
    assert agent.child.wait(10) == 0
    return facts


def start_by(
    machine: LabMachine, argv: Sequence[str], nonce: str, *, user: str = "root", tunnel: str = ""
) -> Agent:
    """Start ARGV, which runs the agent's command, and send the script."""
    child = machine.popen(
        argv, user=user, env={"SSH_TUNNEL": tunnel or None}, stdin=subprocess.PIPE
    )
    machine._undo.callback(child.end)
    agent = Agent(child, protocol.Reader(nonce))
    assert child.stdin is not None
    child.stdin.write(protocol.delivery(agent_script()).decode())
    child.stdin.flush()
    return agent


def start(
    machine: LabMachine,
    setting: Setting = SETTINGS["dash-nft"],
    *,
    label: str = LABEL,
    mode: protocol.Mode = protocol.Mode.SERVE,
    lease_s: int = 600,
    tunnel: str = DEVICE,
    before: str = "",
) -> Agent:
    """Start the agent as root, as sshd would on a session that has the device TUNNEL."""
    nonce = secrets.token_hex(16)
    command = protocol.remote_command(
        agent_script(), nonce=nonce, label=label, mode=mode, lease_s=lease_s
    )
    script = f"{before}\n{setting.script()}\n{command}"
    argv = ["unshare", "--mount", "bash", "-c", script]
    return start_by(machine, argv, nonce, tunnel=tunnel)


_SETUP: Final = """
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up
ip link add wan0 address 02:00:00:00:00:01 type veth peer name out address 02:00:00:00:00:02
ip link add inner0 address 02:00:00:00:00:03 type veth peer name in address 02:00:00:00:00:04
for adapter in wan0 out inner0 in; do ip link set $adapter up; done
ip address add 203.0.113.20/24 dev wan0
ip address add 10.20.0.1/24 dev inner0
ip address add fd20::1/64 dev inner0 nodad
ip route add default via 203.0.113.1
"""


def make_server(setup: str = "") -> LabMachine:
    """Return a server that stands alone, adapters as in the laboratory; the caller closes it.

    SETUP is more that root does there.
    """
    machine = LabMachine("server")
    machine.ready()
    machine.run(["sh", "-ec", _SETUP + setup], user="root")
    return machine


def make_tun(machine: LabMachine, name: str = DEVICE, user: str = "root") -> None:
    """Make a device that stays, as sshd's is only while its session lasts."""
    machine.ip("tuntap", "add", "dev", name, "mode", "tun", "user", user)
    # The first time that a device is up gives it a queue, which stays.
    machine.ip("link", "set", "dev", name, "up")
    machine.ip("link", "set", "dev", name, "down")


def processes_gone(lab: Lab) -> None:
    """Return when nothing of an agent runs on the server any more."""
    wait_until(
        lambda: not any("sshvpn-agent" in line for line in lab.server.processes().values()),
        what="an agent still runs",
    )


@contextmanager
def office() -> Iterator[Lab]:
    """Build a laboratory whose server has a tun; at the end it must be as it was."""
    with Lab() as made:
        make_tun(made.server)
        made.server.run(["sh", "-ec", USE_TABLES], user="root")
        made.checkpoint()
        yield made
        made.check()


def serve(lab: Lab, setting: str = "dash-nft", **options: object) -> tuple[Agent, Facts]:
    """Start the agent on the server of LAB; return it, and what it found."""
    agent = start(lab.server, SETTINGS[setting], **options)  # type: ignore[arg-type]
    return agent, agent.expect(Facts)


def assert_same(before: str, after: str) -> None:
    """Fail with what differs between two dumps of the server."""
    problems = difference(before, after, "server")
    assert not problems, problems


def setting_of(lab: Lab, name: str) -> str:
    """Return what stands in /proc/sys/net/NAME of the server of LAB."""
    return lab.server.run(["cat", f"/proc/sys/net/{name}"], user="root").stdout.strip()

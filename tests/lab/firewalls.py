"""The firewalls that people have, in a machine of the laboratory: Docker's, ufw, firewalld, a file.

ufw and firewalld are the real programs, with their state in the machine's own files. Of Docker
there are the chains that its daemon makes, by the same iptables, and of iptables-services the
file that it loads. All drop what is forwarded and,
but for Docker's, what comes in, except ssh. Each is taken down by the laboratory's `undo`, with
all that stands in its chains: whoever wants to know what was left there asks before
(`Lab.unchanged`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.lab.labmachine import LabMachine
from tests.lab.process import CommandError, wait_until

SSH_PORTS: Final = (22, 2222)
_IPTABLES_TABLES: Final = {
    f"{family} {name}" for family in ("ip", "ip6") for name in ("filter", "nat", "mangle", "raw")
}


@dataclass(frozen=True)
class Firewall:
    """One that runs; `reload` does what its administrator does to that end."""

    name: str
    reload: Callable[[], None]


# -- Docker --------------------------------------------------------------------------------------

_DOCKER_NETWORKS: Final = {"ip": "172.17.0.1/16", "ip6": "fd00:d0c::1/64"}
_DOCKER_LOOPBACK: Final = {"ip": "127.0.0.0/8", "ip6": "::1/128"}
_DOCKER_PROGRAM: Final = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}
# What the documentation of its own tests shows for a daemon of version 29 without containers
# (moby/moby, integration/network/bridge/iptablesdoc). A chain that is named with a colon is empty
# after that, and DOCKER-USER is not: the daemon leaves to the administrator what stands there.
_DOCKER_RULES: Final = """\
*filter
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-INTERNAL - [0:0]
-I FORWARD -j DOCKER-FORWARD
-I FORWARD -j DOCKER-USER
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-INTERNAL
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d {loopback} -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {network} ! -o docker0 -j MASQUERADE
COMMIT
"""


def docker(machine: LabMachine) -> Firewall:
    """Make of MACHINE what a dockerd makes that has to switch forwarding on, with IPv6 too.

    Its `reload` is a restart of the daemon.
    """
    kept(machine)
    _at_undo(machine, "ip link delete docker0")
    addresses = "".join(
        f"ip address add {address} dev docker0 {'nodad' if family == 'ip6' else ''}\n"
        for family, address in _DOCKER_NETWORKS.items()
    )
    _shell(
        machine,
        f"ip link add docker0 type bridge\nip link set docker0 addrgenmode none\n{addresses}"
        "ip link set docker0 up\n"
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n"
        + "".join(
            f"{program} -w -N DOCKER-USER\n{program} -w -P FORWARD DROP\n{_docker_rules(family)}"
            for family, program in _DOCKER_PROGRAM.items()
        ),
    )

    def restart() -> None:
        _shell(machine, "".join(_docker_rules(family, again=True) for family in _DOCKER_PROGRAM))

    return Firewall("docker", restart)


def _docker_rules(family: str, *, again: bool = False) -> str:
    """Return the command that loads the rules; AGAIN takes those away that jump to its chains."""
    rules = _DOCKER_RULES.format(
        loopback=_DOCKER_LOOPBACK[family], network=_DOCKER_NETWORKS[family]
    )
    if again:
        jump = re.compile(r"^-[AI] ((FORWARD|PREROUTING|OUTPUT|POSTROUTING) .*\n)", re.MULTILINE)
        rules = jump.sub(r"-D \1\g<0>", rules)
    return f"{_DOCKER_PROGRAM[family]}-restore -w --noflush <<'END'\n{rules}END\n"


# -- ufw -----------------------------------------------------------------------------------------


def ufw(machine: LabMachine, ports: Sequence[int] = SSH_PORTS) -> Firewall:
    """Enable the real ufw of MACHINE as its manual does, with ssh allowed on PORTS."""
    kept(machine)
    _at_undo(machine, "ufw --force disable")
    allowed = "\n".join(f"ufw allow {port}/tcp" for port in ports)
    _shell(machine, f"ufw --force reset\n{allowed}\nufw --force enable")
    return Firewall("ufw", lambda: _shell(machine, "ufw reload"))


# -- iptables-services ---------------------------------------------------------------------------

# What Red Hat's iptables-services loads before anybody edits it, and the images of some clouds: the
# policies accept, and the last rule of each chain rejects.
_SERVICES_RULES: Final = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p {icmp} -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m multiport --dports {ports} -j ACCEPT
-A INPUT -j REJECT --reject-with {reason}
-A FORWARD -j REJECT --reject-with {reason}
COMMIT
"""
_SERVICES_WORDS: Final = {
    "iptables": {"icmp": "icmp", "reason": "icmp-host-prohibited"},
    "ip6tables": {"icmp": "ipv6-icmp", "reason": "icmp6-adm-prohibited"},
}


def iptables_services(machine: LabMachine, ports: Sequence[int] = SSH_PORTS) -> Firewall:
    """Load what iptables-services does on MACHINE, with ssh allowed on PORTS.

    Its `reload` loads the same again, without all that was added since.
    """
    kept(machine)
    listed = ",".join(str(port) for port in ports)
    script = ""
    for program, words in _SERVICES_WORDS.items():
        _at_undo(machine, f"{program} -F INPUT; {program} -F FORWARD")
        rules = _SERVICES_RULES.format(ports=listed, **words)
        script += f"{program}-restore <<'END'\n{rules}END\n"
    _shell(machine, script)
    return Firewall("iptables-services", lambda: _shell(machine, script))


# -- firewalld -----------------------------------------------------------------------------------

_BUS: Final = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""
_BUS_FILE: Final = "/run/lab-bus.conf"


def firewalld(machine: LabMachine, ports: Sequence[int] = SSH_PORTS) -> Firewall:
    """Start the real firewalld of MACHINE on a bus of its own, with ssh allowed on PORTS.

    All adapters are in the zone `public`, where NetworkManager puts them, and nothing is forwarded
    between them.
    """
    kept(machine)
    adapters = machine.ip("-o", "link", "show").splitlines()
    names = [line.split()[1].rstrip(":").partition("@")[0] for line in adapters]
    zone = [
        *(f'<interface name="{name}"/>' for name in names if name != "lo"),
        *(f'<port port="{port}" protocol="tcp"/>' for port in ports),
    ]
    _shell(machine, "rm -rf /etc/firewalld; mkdir -p /etc/firewalld/zones")
    machine.write(
        "/etc/firewalld/zones/public.xml", f"<zone>{''.join(zone)}</zone>\n", "root", 0o644
    )
    bus(machine)
    start(machine, ["firewalld", "--nofork", "--nopid"])
    state = ["firewall-cmd", "--state"]
    wait_until(
        lambda: machine.run(state, user="root", check=False).returncode == 0,
        what=f"{machine.name}: firewalld does not run, see its {_log_of('firewalld')}",
    )
    return Firewall("firewalld", lambda: _shell(machine, "firewall-cmd --reload"))


def bus(machine: LabMachine) -> None:
    """Start a system bus of MACHINE's own."""
    machine.write(_BUS_FILE, _BUS, "root", 0o644)
    _shell(machine, "mkdir -p /run/dbus")
    start(machine, ["dbus-daemon", f"--config-file={_BUS_FILE}", "--nofork", "--nopidfile"])
    wait_until(lambda: machine.exists("/run/dbus/system_bus_socket"), what="no bus")


def start(machine: LabMachine, argv: Sequence[str]) -> None:
    """Start a daemon of MACHINE as root, until the test's end; it logs below /var/log."""
    with machine.host_path(_log_of(argv[0])).open("w") as log:
        child = machine.popen(argv, user="root", stdout=log, stderr=log)

    def stop() -> None:
        child.terminate()
        child.wait(10)

    machine._undo.callback(stop)


def _log_of(program: str) -> str:
    return f"/var/log/lab-{program.rpartition('/')[2]}.log"


# -- settings ------------------------------------------------------------------------------------


def strict_rp_filter(machine: LabMachine) -> None:
    """Let MACHINE take packets only from where it would answer them to (RFC 3704, strict)."""
    kept(machine)
    _shell(machine, 'for path in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >"$path"; done')


# -- what all have in common ---------------------------------------------------------------------


def kept(machine: LabMachine) -> None:
    """From here on `undo` of MACHINE ends with the tables of iptables and the settings as now."""
    machine._undo.callback(_put_back, machine, _settings(machine), _tables(machine))


def _at_undo(machine: LabMachine, script: str) -> None:
    def run() -> None:
        with contextlib.suppress(CommandError):  # the machine itself may have ended
            _shell(machine, script)

    machine._undo.callback(run)


def _put_back(machine: LabMachine, settings: dict[str, str], tables: set[str]) -> None:
    with contextlib.suppress(CommandError):
        _restore(machine, settings, tables)


def _restore(machine: LabMachine, settings: dict[str, str], tables: set[str]) -> None:
    gone = (_tables(machine) - tables) & _IPTABLES_TABLES
    # The switches of all move those of each adapter: they go first, and all is looked at again.
    lines = [f"nft delete table {table}" for table in sorted(gone)]
    _shell(machine, "\n".join(lines))
    for is_switch in (True, False):
        now = _settings(machine)
        changed = {path: value for path, value in settings.items() if now.get(path) != value}
        _shell(
            machine,
            "\n".join(
                f"echo '{value}' >/proc/sys/{path}"
                for path, value in sorted(changed.items())
                if path in now and is_switch == _is_switch(path)
            ),
        )


def _is_switch(path: str) -> bool:
    return path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


def _settings(machine: LabMachine) -> dict[str, str]:
    script = "cd /proc/sys && grep -s . net/ipv4/* net/ipv4/conf/*/* net/ipv6/conf/*/* || true"
    text = machine.run(["sh", "-c", script], user="root").stdout
    found = (line.partition(":") for line in text.splitlines())
    return {path: value for path, _, value in found}


def _tables(machine: LabMachine) -> set[str]:
    lines = machine.run(["nft", "list", "tables"], user="root").stdout.splitlines()
    return {line.removeprefix("table ") for line in lines}


def _shell(machine: LabMachine, script: str) -> None:
    machine.run(["sh", "-ec", script], user="root")

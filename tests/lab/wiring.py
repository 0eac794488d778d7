"""Lays the cables of the laboratory, and waits until frames pass.

Knows what a cable is, not which there are: that is in `topology.py`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tests.lab.machine import Machine
from tests.lab.process import LabError
from tests.lab.topology import SWITCHES, Adapter, Cable, Plug

_DAD_OFF: Final = ("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad", "ip link set lo up")
_DAD_ON: Final = ("echo 1 >/proc/sys/net/ipv6/conf/default/accept_dad",)
_SETTLED: Final = (
    "until ip link show dev {link} | grep -qE 'state (UP|UNKNOWN)'; do sleep 0.02; done"
)

Machines = Mapping[str, Machine]


def lay(machines: Machines, new: Sequence[str], cables: Sequence[Cable]) -> None:
    """Make the switches of the NEW machines, and the CABLES, whose other ends may be old.

    Frames pass when this returns.
    """
    links, setup = [], {name: [*_DAD_OFF] for name in new}
    for name in new:
        if name in SWITCHES:
            switch = SWITCHES[name]
            setup[name] += [
                # Its own address, or it would take that of its lowest plug, and change with it.
                f"ip link add {switch.adapter.name} address {switch.mac}"
                " type bridge mcast_snooping 0",
                *_configure(switch.adapter),
                *switch.commands,
            ]
    for cable in cables:
        left, right = cable.left, cable.right
        links.append(
            f"link add {left.name} netns {machines[left.machine].pid}"
            f" type veth peer name {right.name} netns {machines[right.machine].pid}"
        )
        for end in (left, right):
            commands = setup.setdefault(end.machine, [*_DAD_OFF])
            if isinstance(end, Adapter):
                commands += _configure(end)
            else:
                commands += [
                    f"ip link set {end.name} addrgenmode none",
                    f"ip link set {end.name} master {end.switch} up",
                ]
    # Made where they belong: nothing is seen in the host's own network meanwhile.
    subprocess.run(["ip", "-batch", "-"], input="\n".join(links), text=True, check=True)
    _run_scripts(machines, {name: [*lines, *_DAD_ON] for name, lines in setup.items()})
    settle(machines, [end for cable in cables for end in (cable.left, cable.right)])


def settle(machines: Machines, ends: Iterable[Adapter | Plug]) -> None:
    """Return when the kernel's link state machine has seen that ENDS are up.

    Up to a second can pass until it looks by itself; to ask for one link makes it look (on
    older kernels it does not, and then this waits). Until then a bridge drops frames.
    """
    scripts: dict[str, dict[str, None]] = {}
    for end in ends:
        links = [end.name, *([end.switch] if isinstance(end, Plug) else [])]
        scripts.setdefault(end.machine, {}).update(
            dict.fromkeys(_SETTLED.format(link=link) for link in links)
        )
    _run_scripts(machines, {name: list(lines) for name, lines in scripts.items()})


def _run_scripts(machines: Machines, scripts: Mapping[str, Sequence[str]]) -> None:
    children = {
        name: machines[name].popen(["sh", "-ec", "\n".join(script)], user="root")
        for name, script in scripts.items()
    }
    for name, child in children.items():
        output = "".join(child.communicate(timeout=20))
        if child.returncode:
            message = f"{name}: {output}"
            raise LabError(message)


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

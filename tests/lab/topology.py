"""The two topologies of the laboratory, as tables: machines, adapters, cables, names.

Decides nothing and does nothing; `wiring.py` lays the cables, the drawings are in `__init__.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One end of a cable, or a switch's own; an empty GATEWAY makes no default route."""

    machine: str
    name: str
    address: str
    address6: str
    gateway: str = ""
    gateway6: str = ""


@dataclasses.dataclass(frozen=True)
class Plug:
    """An end of a cable in the SWITCH of a machine; it has no address."""

    machine: str
    name: str
    switch: str


@dataclasses.dataclass(frozen=True)
class Cable:
    """A veth pair."""

    left: Adapter
    right: Adapter | Plug


@dataclasses.dataclass(frozen=True)
class Switch:
    """A bridge with an address of its own; COMMANDS are what else its machine needs."""

    adapter: Adapter
    mac: str
    commands: tuple[str, ...] = ()


def wan_adapter(machine: str, number: int) -> Adapter:
    """Return the adapter of a machine whose place in the WAN is NUMBER."""
    return Adapter(
        machine, "wan0", f"203.0.113.{number}/24", f"2001:db8:113::{number}/64",
        "203.0.113.1", "2001:db8:113::1",
    )  # fmt: skip


def wan_plug(name: str) -> Plug:
    """Return the plug called NAME of the internet."""
    return Plug("internet", name, "wan")


# Somebody out in the world, whom only the default route leads to.
WORLD: Final = "198.51.100.1"
WORLD6: Final = "2001:db8:198::1"

_ROUTER: Final = ("192.168.77.254", "fd77::254")
_LAN: Final = Adapter("lan", "eth0", "192.168.77.10/24", "fd77::10/64", "192.168.77.1", "fd77::1")
_LAN0: Final = Adapter("gateway", "lan0", "192.168.77.1/24", "fd77::1/64")
_LAN2: Final = Adapter("lan2", "eth0", "192.168.78.10/24", "fd78::10/64", "192.168.78.1", "fd78::1")
_INNER: Final = Adapter("inner", "eth0", "10.20.0.10/24", "fd20::10/64", "10.20.0.1", "fd20::1")

_BOTH: Final[Mapping[str, Cable]] = {
    "lan2": Cable(_LAN2, Adapter("gateway", "lan1", "192.168.78.1/24", "fd78::1/64")),
    "server": Cable(wan_adapter("server", 20), wan_plug("srv")),
    "inner": Cable(_INNER, Adapter("server", "inner0", "10.20.0.1/24", "fd20::1/64")),
}
# By the machine with which a cable is laid. "gw" is where the emulator and `cut` are.
OFFICE: Final[Mapping[str, Cable]] = {
    **_BOTH,
    "lan": Cable(_LAN, _LAN0),
    "gateway": Cable(wan_adapter("gateway", 10), wan_plug("gw")),
}
HOME: Final[Mapping[str, Cable]] = {
    **_BOTH,
    "lan": Cable(
        dataclasses.replace(_LAN, gateway=_ROUTER[0], gateway6=_ROUTER[1]),
        Plug("router", "to-lan", "home"),
    ),
    "gateway": Cable(
        dataclasses.replace(_LAN0, gateway=_ROUTER[0], gateway6=_ROUTER[1]),
        Plug("router", "to-gateway", "home"),
    ),
    "router": Cable(wan_adapter("router", 10), wan_plug("gw")),
}

# A router of a home: it forwards for the LAN, under its own addresses.
_NAT: Final = """nft -f - <<'END'
table inet home {
    chain nat { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }
}
END"""
SWITCHES: Final[Mapping[str, Switch]] = {
    "internet": Switch(
        Adapter("internet", "wan", "203.0.113.1/24", "2001:db8:113::1/64"),
        "02:00:00:00:00:01",
        (f"ip address add {WORLD}/32 dev lo", f"ip address add {WORLD6}/128 dev lo nodad"),
    ),
    "router": Switch(
        Adapter("router", "home", f"{_ROUTER[0]}/24", f"{_ROUTER[1]}/64"),
        "02:00:00:00:00:02",
        (
            "echo 1 >/proc/sys/net/ipv4/ip_forward",
            "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
            _NAT,
        ),
    ),
}

# The adapter whose address is known by the name, everywhere.
NAMES: Final[Mapping[str, Adapter]] = {
    adapter.machine: adapter
    for adapter in (_LAN, _LAN2, _LAN0, _BOTH["server"].left, _INNER, SWITCHES["router"].adapter)
}
HOSTS: Final = (
    "".join(
        f"{adapter.address.split('/')[0]} {name}\n{adapter.address6.split('/')[0]} {name}\n"
        for name, adapter in NAMES.items()
    )
    + f"{WORLD} world\n{WORLD6} world\n"
)


def main_adapter(name: str) -> Adapter | None:
    """Return the adapter whose address is the machine's own, None for one of `add_server`."""
    return SWITCHES["internet"].adapter if name == "internet" else NAMES.get(name)

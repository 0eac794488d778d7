"""Arrows go down only: which room of the house may import which, and what stays outside.

::

    cli, api, background        the doors
          │
       wiring ─────────────┐    the only one that knows all rooms
          │                │
       runner              │
          │                │
    notebook, jupyter      │        │
    forwarding, tunnel  supervisor  control  config  wire
          │ announcing     │        │
          │   sharing   session     │
    lifecycle  listeners  boundary  spec        system  lan     the outside, each way
   presence  pulse ends  readiness                 privileged      by boundary's Protocols
          │ server_routes                  │
          │     plan  remote  stream  services     │
          └──── model ─────┴───────────────────────┘
                  │
               errors   frozen

An import inside a function counts too: late is a matter of speed, not of arrows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import sshvpn

PACKAGE = Path(sshvpn.__file__).parent

NOUNS = {"errors", "frozen", "model"}
PURE = NOUNS | {"boundary", "client_routes", "lifecycle", "listeners", "plan", "presence", "spec"}
CAPABILITIES = PURE | {
    "announcing", "config", "control", "ends", "following", "forwarding", "jupyter", "notebook",
    "odometer", "path_report", "pulse", "readiness", "rehearsal", "remote", "services", "session",
    "server_routes", "sharing", "supervisor", "tunnel", "waiting", "wire",
}  # fmt: skip
DOORS = CAPABILITIES | {"runner", "wiring"}

ALLOWED: Mapping[str, set[str]] = {
    "errors": set(),
    "frozen": set(),
    "model": {"errors", "frozen"},
    "boundary": NOUNS | {"plan", "remote"},
    "client_routes": NOUNS,
    "lifecycle": NOUNS,
    "listeners": NOUNS,
    "spec": NOUNS,
    "plan": NOUNS,
    "remote": NOUNS,
    "services": NOUNS,
    "readiness": NOUNS | {"boundary"},
    "ends": NOUNS | {"plan", "remote", "server_routes"},
    "server_routes": NOUNS | {"plan", "remote"},
    "pulse": NOUNS,
    "odometer": NOUNS,
    "path_report": NOUNS,
    "following": NOUNS | {"waiting"},
    "session": NOUNS | {"boundary"},
    "tunnel": NOUNS
    | {"boundary", "ends", "following", "listeners", "path_report", "plan", "pulse", "remote"}
    | {"session", "sharing", "waiting"},
    "rehearsal": NOUNS | {"boundary", "ends", "plan", "remote", "sharing", "tunnel"},
    "sharing": NOUNS | {"boundary"},
    "presence": NOUNS,
    "announcing": NOUNS | {"boundary", "presence", "sharing"},
    "config": NOUNS | {"spec"},
    "control": NOUNS | {"boundary", "waiting"},
    "supervisor": NOUNS | {"boundary", "lifecycle", "session", "waiting"},
    "forwarding": NOUNS
    | {"boundary", "following", "lifecycle", "listeners", "odometer", "path_report", "session"}
    | {"sharing"},
    "jupyter": NOUNS | {"boundary", "remote", "waiting"},
    "notebook": NOUNS | {"boundary", "forwarding", "jupyter", "remote"},
    "waiting": set(),
    "wire": NOUNS | {"spec"},
    "stream": set(),
    "system": NOUNS
    | {"boundary", "plan", "privileged", "remote", "services", "spec", "stream", "waiting"},
    "privileged": NOUNS | {"boundary", "plan", "services"},
    "lan": NOUNS | {"boundary", "presence", "waiting"},
    "runner": CAPABILITIES,
    "wiring": CAPABILITIES | {"runner", "system", "lan", "privileged", "remote"},
    "background": DOORS,
    "api": DOORS,
    "cli": DOORS,
    # the package's own module and `python -m sshvpn` only open the doors
    "": {"api", "errors"},
    "__main__": {"cli"},
}
"""What each room may import; a room may import itself."""

WITHIN_WIRING: Mapping[str, set[str]] = {
    "beginning": set(),
    "places": set(),
    "outside": set(),
    "terminal": set(),
    "lan": {"outside", "places"},
    "sessions": {"lan", "outside", "places", "terminal"},
    "privilege": {"places", "terminal"},
    "notebooks": {"outside", "terminal"},
    "forwards": {"lan", "notebooks", "outside", "places", "sessions"},
    "tunnels": {"beginning", "lan", "outside", "places", "privilege", "sessions", "terminal"},
    "services": {"outside", "places", "terminal", "tunnels"},
}
"""Which modules of the room ``wiring`` may import which."""

WITHIN_SYSTEM: Mapping[str, set[str]] = {
    "ssh": set(),
    "remote_agent": set(),
    "network": {"ssh"},
    "openssh": {"network", "remote_agent", "ssh"},
    "sshtunnel": {"network", "openssh", "ssh"},
    "tunnel": {"openssh", "remote_agent", "ssh"},
    "privilege": {"network"},
    "systemd": {"privilege"},
    "metrics": {"network"},
}
"""Which packages of the room ``system`` may import which; its single modules none but those."""

ROOM_OF = {
    "control_server": "control",
    "control_watch": "control",
}
"""Modules that belong to a room of another name."""

REASONS = {
    "errors": "errors are the floor: everything imports them, so they import nothing",
    "frozen": "it makes classes, and knows none of ours",
    "model": "nouns have no I/O, no parsing and no decisions",
    "boundary": "Protocols say what the outside can do, and must not know who asks",
    "client_routes": "it is pure: prefixes and addresses in, commands for others out",
    "lifecycle": "it is pure: state, event and time in, state and commands out",
    "listeners": "it is pure: SPECs and addresses in, listeners out",
    "spec": "a parser of words that looks at the world could not be tested by any text",
    "plan": "it is pure: what is asked for and what is there in, steps out; root reads it too",
    "config": "it reads one file; what it means is decided above",
    "control": "status must start fast, and a session must not know who asks it",
    "following": "it is the same loop whatever is followed, and whatever is compared",
    "session": "it is what a supervisor and the kinds of session agree on, and knows neither",
    "supervisor": "it runs commands of the lifecycle through boundary, whatever the engine",
    "forwarding": "it must run over both engines and over fakes alike",
    "jupyter": "it talks over any connection, and knows nothing of forwards",
    "notebook": "it is a forward that sees to Jupyter, over any engine and over fakes alike",
    "services": "it is pure: an account and a profile in, units and key options out; root reads it",
    "readiness": "it is pure but for the manager that it tells: a fake one stands in for systemd",
    "ends": "it is pure: both sides' facts in, what each shall be out",
    "server_routes": "it is pure: the server's facts in, what they mean for a tunnel out",
    "odometer": "it is pure: what each connection has carried in, the sum out",
    "path_report": "it is pure: what a connection has got in, words out",
    "pulse": "it is pure: what was seen and when in, dead or alive out",
    "tunnel": "it must run over every transport and over fakes alike",
    "rehearsal": "it looks at what a session would do, through the same boundary",
    "presence": "it is pure: snapshot and addresses in, what the LAN is told out",
    "announcing": "it follows any session, and must run over a fake of what speaks to the LAN",
    "sharing": "both kinds of session share the LAN by the same rules",
    "waiting": "whatever waits uses it, at the border too",
    "wire": "a profile is written and read the same way by both processes",
    "system": "an adapter turns the world into boundary's words; decisions are made above it",
    "stream": "it runs on servers too, where nothing else of ours is",
    "remote": "it holds what is said to the server, and who says it is decided above",
    "privileged": "it runs as root: what it needs must be little enough to be read line by line",
    "lan": "an adapter turns the world into boundary's words; decisions are made above it",
    "runner": "it runs what it is given; wiring chooses the engine",
    "wiring": "it builds the system for the doors, and must not know which door was used",
    "background": "only wiring knows all rooms",
    "api": "only wiring knows all rooms",
    "cli": "only wiring knows all rooms",
    "": "importing sshvpn must stay cheap",
    "__main__": "it starts the command line, and nothing else",
}
"""Why a room may import no more than that."""

OUTSIDE: Mapping[str, str] = {
    "pyroute2": "netlink is the outside: fakes of boundary must be able to stand in for it",
    "netifaces": "the adapters are the outside: fakes of boundary must be able to stand in for it",
    "sshtunnel": "an engine is chosen by wiring, and never looked into",
    "paramiko": "an engine is chosen by wiring, and never looked into",
    "subprocess": "processes are started in one place, with a parent-death signal and no shell",
    "zeroconf": "who speaks to the LAN is a process of its own, and no other pays for it",
    "tornado": "who speaks to the LAN is a process of its own, and no other pays for it",
    "segno": "it costs 30 ms, and only a QR code needs it",
    "prometheus_client": "it costs 2 MB, and only who asks for metrics needs it",
}
"""What only the rooms at the border may import, and why."""

BORDER = {"system", "lan", "privileged"}

ONLY_IN_CLI: Mapping[str, str] = {
    "click": "only the command line reads words and prints",
    "rich": "only the command line draws",
}


def modules() -> Iterator[tuple[str, str]]:
    """Yield the dotted name (below sshvpn) and the source of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(p for p in parts if p != "__init__"), path.read_text()


MODULES = dict(modules())


def room_of(module: str) -> str:
    first = module.split(".", maxsplit=1)[0]
    return ROOM_OF.get(first, first)


def imports(source: str, module: str) -> Iterator[str]:
    """Yield the dotted name of everything that ``source`` imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute here"
            # `from sshvpn import wiring` imports a module, `from x import name` perhaps a name.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _calls_import_module(node):
            yield from (
                arg.value
                for arg in node.args
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def _calls_import_module(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in {"import_module", "__import__"}


def imported_rooms(source: str, module: str) -> set[str]:
    """Return the rooms of sshvpn that ``source`` imports; names of the package itself are none."""
    rooms = set()
    for name in imports(source, module):
        package, _, rest = name.partition(".")
        if package == "sshvpn" and rest:
            first = rest.split(".")[0]
            if first in {m.split(".")[0] for m in MODULES if m}:
                rooms.add(room_of(rest))
    return rooms


@pytest.mark.parametrize("module", list(MODULES), ids=lambda name: name or "sshvpn")
def test_a_module_imports_only_what_is_below_it(module: str) -> None:
    room = room_of(module)
    assert room in ALLOWED, f"say in this test where the room {room!r} stands"
    up = imported_rooms(MODULES[module], module) - ALLOWED[room] - {room}
    assert not up, f"{module or 'sshvpn'} imports {sorted(up)}, but {REASONS[room]}"


def parts_of(room: str) -> set[str]:
    """Return the packages of a room, or its modules where it has none."""
    names = [name.split(".") for name in MODULES if name.startswith(f"{room}.")]
    return {name[1] for name in names if len(name) > 2} or {name[1] for name in names}


@pytest.mark.parametrize(("room", "within"), [("system", WITHIN_SYSTEM), ("wiring", WITHIN_WIRING)])
def test_within_a_room_of_many_parts_arrows_go_one_way(
    room: str, within: Mapping[str, set[str]]
) -> None:
    for module in (name for name in MODULES if name.startswith(f"{room}.")):
        own = module.split(".")[1]
        names = [name.split(".") for name in imports(MODULES[module], module)]
        used = {name[2] for name in names if name[:2] == ["sshvpn", room]} & parts_of(room)
        up = used - within.get(own, set()) - {own}
        assert not up, f"{module} imports {sorted(up)}: say in this test where it stands"


@pytest.mark.parametrize("module", list(MODULES), ids=lambda name: name or "sshvpn")
def test_the_outside_is_touched_at_the_border_only(module: str) -> None:
    room = room_of(module)
    found = {name.split(".")[0] for name in imports(MODULES[module], module)}
    if room not in BORDER:
        for name in found & set(OUTSIDE):
            pytest.fail(f"{module} imports {name}, but {OUTSIDE[name]}")
    if room != "cli":
        for name in found & set(ONLY_IN_CLI):
            pytest.fail(f"{module} imports {name}, but {ONLY_IN_CLI[name]}")


def test_the_house_has_no_circle() -> None:
    def below(room: str, seen: tuple[str, ...] = ()) -> None:
        assert room not in seen, " -> ".join((*seen, room))
        for lower in arrows.get(room, ()):
            below(lower, (*seen, room))

    for arrows in (ALLOWED, WITHIN_SYSTEM, WITHIN_WIRING):
        for room in arrows:
            below(room)


def test_every_room_has_its_reason_and_no_room_is_invented() -> None:
    assert set(REASONS) == set(ALLOWED)
    assert set(ALLOWED) == {room_of(module) for module in MODULES}


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import sshvpn.system.paths", {"system"}),
        ("from sshvpn import wiring, __version__", {"wiring"}),
        ("from sshvpn.lan import qr", {"lan"}),
        ("def f():\n    from sshvpn.forwarding import ForwardSession", {"forwarding"}),
        ("import importlib\nimportlib.import_module('sshvpn.system.x')", {"system"}),
        ("if TYPE_CHECKING:\n    from sshvpn.control_server import ControlServer", {"control"}),
        ("import os, json\nfrom sshvpnx import system", set()),
    ],
)
def test_an_import_is_found_wherever_it_stands(source: str, rooms: set[str]) -> None:
    assert imported_rooms(source, "probe") == rooms

"""What ``sshvpn up`` says in the end: for whom and how all is reachable; pure.

At most a dozen lines; what is not a command to be typed elsewhere fits 80 columns, where the
names do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sshvpn.cli import tunnel_view
from sshvpn.cli.told import told
from sshvpn.cli.tunnel_view import Fact, Record, aligned
from sshvpn.client_routes import destinations_of, lans_of, one_line_per_system
from sshvpn.model import NO_LAN

_SHOWN_SERVICES = 3
_LINES_A_SYSTEM = 1
"""With more networks than this what one machine needs is long: there is a command for it."""
_ROUTERS = "dnsmasq|openwrt"
_FORMATS = f"linux|macos|windows|{_ROUTERS}"


def reach(record: Record, wanted: Collection[str] = ()) -> list[str]:
    """Return the lines about a tunnel that runs, for which ``wanted`` was asked."""
    facts: list[Fact] = [*_here(record), *_services(record)]
    if record["lan"]:
        facts.append(("shared with", tunnel_view.networks(record)))
        facts += [*tunnel_view.appearances(record), *told(record)]
        return [*aligned(facts), *_for_clients(record)]
    how = "" if NO_LAN in wanted else f": sshvpn up {record['name']} --lan shares it"
    facts.append(("shared with", [f"nobody{how}"]))
    return aligned(facts)


def _here(record: Record) -> Iterator[Fact]:
    first, *others = tunnel_view.addresses(record) or ["-"]
    # One of IPv6 is as long as half a line.
    yield ("here", [f"{record['host']} is {first}", *(f"and {other}" for other in others)])
    if tunnel_view.routed(record):
        yield ("routes", [tunnel_view.routes(record, most=3)])


def _services(record: Record) -> Iterator[Fact]:
    said = [tunnel_view.published(one) for one in record["published"]]
    if len(said) > _SHOWN_SERVICES:
        more = len(said) - _SHOWN_SERVICES + 1
        said = [*said[: _SHOWN_SERVICES - 1], f"and {more} more: sshvpn status {record['name']}"]
    if said:
        yield ("published", said)


def _for_clients(record: Record) -> Iterator[str]:
    """Yield what a machine of the LAN needs; one that has us as its router needs nothing."""
    name = record["name"]
    routed = tunnel_view.routed(record)
    if not routed:
        where = tunnel_view.address(record)
        yield f"  What a machine there needs to reach {where}: sshvpn routes {name}"
        return
    destinations = destinations_of(routed, ())
    commands = one_line_per_system(destinations, lans_of(record["lan"]))
    if commands and all(len(lines) <= _LINES_A_SYSTEM for lines in commands.values()):
        yield "  A machine there that has another router needs one line, as administrator:"
        router = f"sshvpn routes {name} --format {_ROUTERS}"
        yield from aligned([*commands.items(), ("a router", [router])], "    ")
    else:
        yield "  What a machine there needs, or the router for all of them:"
        yield f"    sshvpn routes {name} --format {_FORMATS}"

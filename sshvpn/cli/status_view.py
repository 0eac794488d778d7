"""What ``sshvpn status`` prints for people; pure. Records are those of ``status --json``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sshvpn.cli import tunnel_view
from sshvpn.cli.told import told
from sshvpn.cli.tunnel_view import Fact, Record, aligned
from sshvpn.cli.words import counted, instant

_HEAD = ("NAME", "STATE", "SINCE", "WHERE", "TO")
_INDENT = "    "


def table(tunnels: Sequence[Record], forwards: Sequence[Record], now: datetime) -> str:
    """Return a row each; below that of a tunnel, by which ways it is used; then the errors."""
    rows = [
        _HEAD,
        *(_tunnel_row(record, now) for record in tunnels),
        *(_forward_row(record, now) for record in forwards),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    head, of_tunnels, of_forwards = lines[0], lines[1 : len(tunnels) + 1], lines[len(tunnels) + 1 :]
    shown = [head]
    for record, line in zip(tunnels, of_tunnels, strict=True):
        shown += [line, *aligned(_below(record), _INDENT)]
    errors = [
        f"{record['name']}: {record['last_error']['message']}"
        for record in (*tunnels, *forwards)
        if record["last_error"]
    ]
    return "\n".join([*shown, *of_forwards, *dict.fromkeys(errors)])


def details(record: Record, now: datetime, traffic: Record | None = None) -> str:
    """Return all that there is to say of one tunnel or one forward.

    ``traffic`` is what the connection of a forward has carried, all its SPECs together.
    """
    is_forward = "direction" in record
    facts = _of_forward(record, traffic or {}) if is_forward else _of_tunnel(record)
    last = record["last_error"]
    tail: list[Fact] = [
        ("process", [f"pid {record['pid']} of user {record['uid']}"]),
        *([("next try", [_since(record["retry_at"], now)])] if record["retry_at"] else []),
        *([("last error", [last["message"]])] if last else []),
    ]
    count = record["reconnects"]
    again = f", {counted(count, 'reconnect')}" if count else ""
    head = f"{record['name']}: {record['state']} since {_since(record['since'], now)}{again}"
    return "\n".join([head, *aligned([*facts, *tail])])


def _below(record: Record) -> Iterator[Fact]:
    figures = tunnel_view.figures(record)
    # The remote host's address stands in the row.
    yield from (fact for fact in tunnel_view.ways(record) if fact[0] != "remote host")
    if figures and record["state"] == "running":
        yield ("traffic", [figures])


def _tunnel_row(record: Record, now: datetime) -> tuple[str, ...]:
    where = tunnel_view.address(record) or "-"
    return (record["name"], record["state"], _since(record["since"], now), where, record["host"])


def _forward_row(record: Record, now: datetime) -> tuple[str, ...]:
    where, target = _ends(record)
    about = record.get("notebook")
    if about:  # a host may have several, each in a directory of its own
        target = f"{record['host']} Jupyter in {about['directory']}"
    return (record["name"], record["state"], _since(record["since"], now), where, target)


def _ends(record: Record) -> tuple[str, str]:
    """Return where a forward listens, and where it leads."""
    if record["direction"] == "remote":
        listen = ", ".join(record["listen"]) or "-"
        return f"{record['host']} {listen}", f"{record['target']} here"
    return record["url"] or "-", f"{record['host']} {record['target'] or '-'}"


def _of_tunnel(record: Record) -> Iterator[Fact]:
    yield ("host", [record["host"]])
    yield from (
        fact if fact[0] != "routes" else ("routes", [tunnel_view.routes(record, most=1000)])
        for fact in tunnel_view.ways(record)
    )
    if any(not one["survives_reconnect"] for one in record["published"]):
        yield ("", ["a reconnect ends the published services' connections"])
    if record["local_addresses"]:
        here = ", ".join(map(tunnel_view.bare, record["local_addresses"]))
        yield ("this machine", [here])
    size = "" if record["mtu"] is None else f", MTU {record['mtu']}"
    transport = f"{record['transport']} ({record['transport_reason']})"
    yield ("device", [f"{record['device']}{size}, transport {transport}"])
    yield from _congestion(record)
    figures = tunnel_view.figures(record)
    if figures:
        yield ("traffic", [figures])


def _of_forward(record: Record, traffic: Record) -> Iterator[Fact]:
    where, target = _ends(record)
    yield ("from", [where])
    yield ("to", [target])
    about = record.get("notebook")
    if about:
        jupyter = f"Jupyter in {about['directory']}, process {about['pid']} there"
        yield ("notebook", [jupyter, *([f"its log: {about['log']}"] if about["log"] else [])])
    if record["direction"] != "remote":
        yield ("listens on", [", ".join(record["listen"]) or "nothing now"])
    yield from told(record)
    yield ("engine", [record["engine"]])
    yield from _congestion(record)
    figures = tunnel_view.figures(traffic)
    count = traffic.get("connections")
    open_now = [] if count is None else [f"{counted(count, 'connection')} open"]
    if figures or open_now:
        yield ("traffic", [", ".join([*([figures] if figures else []), *open_now])])


def _congestion(record: Record) -> Iterator[Fact]:
    """Say what paces ssh's own connection, and what would mend it, once anything is known."""
    found = record.get("congestion_control")
    if found is None:  # a session that began before an upgrade
        return
    ends = (found["local"], found["remote"])
    if ends == ("unknown", "unknown") and not found["notes"]:
        return
    words = ["its own" if end == "unknown" else end for end in ends]
    yield ("congestion", [f"{words[0]} here, {words[1]} at the server", *found["notes"]])


def _since(text: str, now: datetime) -> str:
    when = instant(text).astimezone()
    return f"{when:%H:%M:%S}" if when.date() == now.date() else f"{when:%-d %b %H:%M}"

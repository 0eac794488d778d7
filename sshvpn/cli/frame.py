"""What the live view shows, pure: (snapshot, rates, now, room) -> lines of text.

A snapshot is ``tunnels`` and ``forwards`` as in ``status --json``, ``traffic`` (``rx_bytes``,
``tx_bytes``, ``connections``; each may be None) and ``notices`` (lines of text). Every line
fits the width, but for a word that is longer than that.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.style import Style
from rich.text import Text

from sshvpn.cli.tunnel_view import ways
from sshvpn.cli.words import clock, counted, human_bytes, human_ms, instant
from sshvpn.errors import printable

Snapshot = Mapping[str, Any]

_LOOPBACK = ("127.", "[::1]", "localhost")
_EVERY_ADDRESS = ("0.0.0.0", "[::]", "*")  # noqa: S104 (compared, not bound)
_STYLES = {
    "running": "green",
    "starting": "cyan",
    "stopping": "cyan",
    "backoff": "yellow",
    "failed": "red",
}
_RATE_OVER_S = 3.0
_RATE_AT_LEAST_OVER_S = 0.5


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs that a terminal can show; words say the same beside them."""

    state: str
    to: str
    received: str
    sent: str
    warning: str


UNICODE = Glyphs("●", "→", "↓", "↑", "!")
ASCII = Glyphs("*", "->", "in", "out", "!")


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second in each direction; None where that cannot be said yet."""

    rx: float | None = None
    tx: float | None = None


class RateMeter:
    """Makes rates of byte counts that come at any time."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()
        self._rates = Rates()

    def add(self, now: float, rx_bytes: int | None, tx_bytes: int | None) -> None:
        """Take the counts at ``now`` (seconds). None, or a count that fell, begins anew."""
        if rx_bytes is None or tx_bytes is None:
            self._begin_anew()
            return
        if self._samples:
            last_time, last_rx, last_tx = self._samples[-1]
            if now < last_time or rx_bytes < last_rx or tx_bytes < last_tx:
                self._begin_anew()
        self._samples.append((now, rx_bytes, tx_bytes))
        while len(self._samples) > 1 and now - self._samples[1][0] >= _RATE_OVER_S:
            self._samples.popleft()
        first_time, first_rx, first_tx = self._samples[0]
        span = now - first_time
        if span >= _RATE_AT_LEAST_OVER_S:
            self._rates = Rates((rx_bytes - first_rx) / span, (tx_bytes - first_tx) / span)

    def rates(self) -> Rates:
        """Return the mean over the last seconds."""
        return self._rates

    def _begin_anew(self) -> None:
        self._samples.clear()
        self._rates = Rates()


@dataclass(frozen=True, slots=True)
class Room:
    """Where it is shown: cells of a line, lines, and signs."""

    width: int
    height: int
    glyphs: Glyphs


def frame(snapshot: Snapshot, rates: Rates, now: float, room: Room, hint: str) -> list[Text]:
    """Return the whole picture, no higher than the room where lines can be left out.

    ``now`` is in seconds since the epoch; ``hint`` is the last line, empty for none.
    """
    foot = [
        *_traffic_lines(snapshot.get("traffic") or {}, rates, room),
        *_notice_lines(snapshot.get("notices") or (), room),
        *_wrapped(Text(f"  {hint}" if hint else "", "dim"), room, indent=2),
    ]
    body = [
        *(line for record in _tunnels(snapshot) for line in _tunnel_lines(record, now, room)),
        *(line for group in _sessions(snapshot) for line in _session_lines(group, now, room)),
    ]
    space = max(room.height - len(foot) - 1, 4)
    if len(body) > space:
        left_out = Text(f"  and {len(body) - space + 1} lines more: sshvpn status", "dim")
        body = [*body[: space - 1], *_wrapped(left_out, room)]
    return [*body, *foot] or [Text("nothing is up")]


def plain(snapshot: Snapshot, now: float, room: Room) -> list[str]:
    """Return what is worth a line of its own where nothing can be redrawn.

    It changes only when something has happened: no counters, no countdown.
    """
    lines = []
    for record in _tunnels(snapshot):
        lines.append(f"{_name_of(record)}: {_words_of(record, now, countdown=False)}")
        for label, texts in ways(record):
            lines += [f"  {label}: {printable(text)}" for text in texts]
    for group in _sessions(snapshot):
        first = group[0]
        lines.append(f"{_name_of(first)}: {_words_of(first, now, countdown=False)}")
        for record in group:
            where = ", ".join(printable(url) for url in _urls_of(record)) or "not listening"
            lines.append(f"  {where} {room.glyphs.to} {_target_of(record)}")
    notices = [f"  {room.glyphs.warning} {printable(text)}" for text in _notices(snapshot)]
    return [*lines, *notices] or ["nothing is up"]


# A tunnel -----------------------------------------------------------------------------------


def _tunnels(snapshot: Snapshot) -> Sequence[Snapshot]:
    tunnels: Sequence[Snapshot] = snapshot.get("tunnels") or ()
    return tunnels


def _tunnel_lines(record: Snapshot, now: float, room: Room) -> Iterator[Text]:
    rtt_ms = record["rtt_ms"]
    quick = f", {human_ms(rtt_ms)}" if record["state"] == "running" and rtt_ms is not None else ""
    yield from _head(record, now, room, quick)
    facts = ways(record)
    width = max((len(label) for label, _ in facts), default=0)
    for label, texts in facts:
        for number, text in enumerate(texts):
            before = Text(f"  {'' if number else label:<{width}}  ", "dim")
            first, *rest = printable(text).split(" ", maxsplit=1)
            style = _link(first) if "://" in first else ""
            line = Text.assemble(before, Text(first, style), *(f" {words}" for words in rest))
            yield from _wrapped(line, room, indent=width + 4)
    yield from _running_errors([record], room)


# A session: the forwards of one connection --------------------------------------------------


def _sessions(snapshot: Snapshot) -> list[list[Snapshot]]:
    groups: dict[tuple[Any, ...], list[Snapshot]] = {}
    for record in snapshot.get("forwards") or ():
        key = (record.get("uid"), record.get("pid"), record["name"], record["host"])
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _session_lines(group: Sequence[Snapshot], now: float, room: Room) -> Iterator[Text]:
    yield from _head(group[0], now, room)
    for record in group:
        yield from _forward_lines(record, room)
    yield from _running_errors(group, room)


def _head(record: Snapshot, now: float, room: Room, more: str = "") -> Iterator[Text]:
    style = _STYLES.get(record["state"], "")
    head = Text()
    head.append(f"{room.glyphs.state} ", style)
    head.append(_name_of(record), "bold")
    head.append("  ")
    head.append(f"{_words_of(record, now)}{more}", style)
    yield from _wrapped(head, room, indent=2)


def _running_errors(group: Sequence[Snapshot], room: Room) -> Iterator[Text]:
    """Yield what goes wrong beside a connection that stands; else the state tells it."""
    if group[0]["state"] == "running":
        errors = (record.get("last_error") for record in group)
        yield from _notice_lines([error["message"] for error in errors if error], room)


def _name_of(record: Snapshot) -> str:
    name, host = printable(record["name"]), printable(record["host"])
    return host if name == host else f"{name} ({host})"


def _words_of(record: Snapshot, now: float, *, countdown: bool = True) -> str:
    state = str(record["state"])
    if state == "running":
        words = f"{state} since {clock(record['since'], now)}" if record.get("since") else state
        count = record.get("reconnects") or 0
        return f"{words}, {counted(count, 'reconnect')}" if count else words
    if state not in ("backoff", "failed"):
        return state
    error = record.get("last_error") or {"code": "", "message": "no reason known"}
    words = f"{state}: {printable(error['message'])}"
    if record.get("retry_at") and countdown:
        wait = max(instant(record["retry_at"]).timestamp() - now, 0)
        return f"{words}, next try in {wait:.0f} s" if round(wait) else f"{words}, next try now"
    return f"{words}, waiting for a login" if error.get("code") == "needs_login" else words


def _forward_lines(record: Snapshot, room: Room) -> Iterator[Text]:
    """Yield the URLs, each on a line, the first with its target behind it or below it."""
    target = Text(f"{room.glyphs.to} {_target_of(record)}")
    urls = [Text(printable(url), _link(url)) for url in _urls_of(record)]
    first, *others = urls or [Text(f"{record.get('spec') or 'not yet'}", "dim")]
    if 2 + first.cell_len + 2 + target.cell_len <= room.width:
        yield from _wrapped(Text.assemble("  ", first, "  ", target), room)
    else:
        yield from _wrapped(Text.assemble("  ", first), room, indent=2)
        yield from _wrapped(Text.assemble("    ", target), room, indent=6)
    for url in others:
        yield from _wrapped(Text.assemble("  ", url), room, indent=2)


def _urls_of(record: Snapshot) -> list[str]:
    """Return where it is used: its URL, then one for each address that others reach."""
    listen = [str(where) for where in record.get("listen") or ()]
    if record["direction"] == "remote":
        return [f"{record['host']} {where}" for where in listen]
    url = record.get("url")
    if not url:
        return listen
    parts = urlsplit(url)
    others = [where for where in listen if not where.startswith(("/", *_LOOPBACK))]
    return list(dict.fromkeys([url, *(_url_at(parts, where) for where in others)]))


def _url_at(parts: Any, where: str) -> str:
    if where.startswith(_EVERY_ADDRESS):
        return f"{where} (every address)"
    return str(parts._replace(netloc=where).geturl())


def _target_of(record: Snapshot) -> str:
    target = printable(str(record.get("target") or ""))
    if record["direction"] == "remote":
        return f"{target} here"
    if record["direction"] == "dynamic":
        return f"SOCKS proxy at {printable(record['host'])}"
    return target


@lru_cache(maxsize=256)  # a style has an id of its own, by which a terminal joins its parts
def _link(url: str) -> Style:
    is_link = url.startswith(("http://", "https://"))
    return Style(bold=True, underline=is_link, link=url if is_link else None)


# The foot -----------------------------------------------------------------------------------


def _traffic_lines(traffic: Snapshot, rates: Rates, room: Room) -> Iterator[Text]:
    rx, tx, connections = (traffic.get(key) for key in ("rx_bytes", "tx_bytes", "connections"))
    parts = []
    if rx is not None:
        parts.append(_carried(room.glyphs.received, rx, rates.rx))
    if tx is not None:
        parts.append(_carried(room.glyphs.sent, tx, rates.tx))
    if connections is not None:
        parts.append(counted(connections, "connection"))
    line = ""
    for part in parts:
        if line and len(line) + 3 + len(part) > room.width:
            yield from _wrapped(Text(line), room, indent=2)
            line = ""
        line = f"{line}   {part}" if line else f"  {part}"
    yield from _wrapped(Text(line), room, indent=2)


def _carried(sign: str, total: int, rate: float | None) -> str:
    # As wide as the widest, so that the line stands still.
    speed = "" if rate is None else f"{human_bytes(rate)}/s"
    return f"{sign} {human_bytes(total):>7} {speed:>9}"


def _notice_lines(notices: Iterable[str], room: Room) -> Iterator[Text]:
    for notice in dict.fromkeys(notices):
        line = Text(f"  {room.glyphs.warning} {printable(notice)}", "yellow")
        yield from _wrapped(line, room, indent=4)


def _notices(snapshot: Snapshot) -> list[str]:
    errors = [
        record["last_error"]["message"]
        for record in (*_tunnels(snapshot), *(snapshot.get("forwards") or ()))
        if record["state"] == "running" and record.get("last_error")
    ]
    return list(dict.fromkeys([*errors, *(snapshot.get("notices") or ())]))


def _wrapped(line: Text, room: Room, indent: int = 0) -> Iterator[Text]:
    """Yield ``line`` in parts that fit, all but the first indented; an empty one not at all."""
    if line.cell_len <= room.width:
        yield from [line] if line else []
        return
    parts = line.wrap(_wrapper(), max(room.width - indent, 8), overflow="fold")
    for number, part in enumerate(parts):
        part.rstrip()
        yield Text.assemble(" " * indent, part) if number else part


@lru_cache(maxsize=1)
def _wrapper() -> Console:
    """Return a console that only lends its rules; nothing is printed on it."""
    return Console(file=io.StringIO(), width=80)

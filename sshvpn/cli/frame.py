"""What the live view shows, pure: (snapshots and their rates, now, room) -> lines of text.

A snapshot is what a session says of itself (docs/control-protocol.md): ``kind``, ``records`` as
in ``status --json``, and ``traffic``, of which each may be None. Every line fits the width, but
for a word that is longer than that.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.style import Style
from rich.text import Text

from sshvpn.cli.told import told
from sshvpn.cli.tunnel_view import Fact, ways
from sshvpn.cli.words import clock, counted, human_bytes, human_ms, instant
from sshvpn.errors import printable
from sshvpn.frozen import dataclass

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


Shown = Sequence[tuple[Snapshot, Rates]]
"""The sessions to be shown, each with its rates."""


def frame(
    sessions: Shown, now: float, room: Room, hint: str = "", notices: Iterable[str] = ()
) -> list[Text]:
    """Return the whole picture, no higher than the room where lines can be left out.

    Tunnels stand above forwards. Where several do not fit, each has one line. ``now`` is in
    seconds since the epoch; ``hint`` is the last line, empty for none, below ``notices``.
    """
    ordered = sorted(sessions, key=lambda one: one[0]["kind"] != "tunnel")
    foot = [
        *_notice_lines(notices, room),
        *_wrapped(Text(f"  {hint}" if hint else "", "dim"), room, indent=2),
    ]
    body = [_session_lines(snapshot, now, room) for snapshot, _ in ordered]
    traffic = [[*_traffic_lines(snapshot["traffic"], rates, room)] for snapshot, rates in ordered]
    if len(ordered) == 1:  # what is left out is never what moves
        [lines] = body
        foot = [*traffic[0], *foot]
    else:
        lines = [line for pair in zip(body, traffic, strict=True) for part in pair for line in part]
    space = max(room.height - len(foot) - 1, 4)
    if len(lines) > space and len(ordered) > 1:
        lines = [line for one in ordered for line in _short(*one, now, room)]
    if len(lines) > space:
        left_out = Text(f"  and {len(lines) - space + 1} lines more: sshvpn status", "dim")
        lines = [*lines[: space - 1], *_wrapped(left_out, room)]
    return [*lines, *foot] if ordered else [Text("nothing is up"), *foot]


def brief(
    sessions: Shown, now: float, room: Room, hint: str = "", notices: Iterable[str] = ()
) -> list[Text]:
    """Return a line for each session that runs, the whole of others; no line is the hint's own."""
    lines = []
    for snapshot, rates in sessions:
        if snapshot["records"][0]["state"] != "running":
            return frame(sessions, now, room, hint, notices)
        lines += _short(snapshot, rates, now, room)
    if lines and hint:
        with_hint = Text.assemble(lines[-1], (f"  {hint}", "dim"))
        lines[-1:] = [with_hint] if with_hint.cell_len <= room.width else lines[-1:]
    return [*lines, *_notice_lines(notices, room)]


def plain(
    snapshots: Sequence[Snapshot], now: float, room: Room, notices: Sequence[str] = ()
) -> list[str]:
    """Return what is worth a line of its own where nothing can be redrawn.

    It changes only when something has happened: no counters, no countdown.
    """
    lines = []
    for snapshot in sorted(snapshots, key=lambda one: one["kind"] != "tunnel"):
        first, *_ = records = snapshot["records"]
        lines.append(f"{_name_of(first)}: {_words_of(first, now, countdown=False)}")
        if snapshot["kind"] == "tunnel":
            for label, texts in ways(first):
                lines += [f"  {label}: {printable(text)}" for text in texts]
            continue
        for record in records:
            where = ", ".join(printable(url) for url in _urls_of(record)) or "not listening"
            lines.append(f"  {where} {room.glyphs.to} {_target_of(record)}")
        lines += [f"  {label}: {', '.join(texts)}" for label, texts in told(first)]
    warnings = dict.fromkeys([*_errors_of(snapshots), *notices])
    lines += [f"  {room.glyphs.warning} {printable(text)}" for text in warnings]
    return lines or ["nothing is up"]


# A session ----------------------------------------------------------------------------------


def _session_lines(snapshot: Snapshot, now: float, room: Room) -> list[Text]:
    records = snapshot["records"]
    lines = [*_head(snapshot, now, room)]
    if snapshot["kind"] == "tunnel":
        lines += _fact_lines(ways(records[0]), room)
    else:
        lines += [line for record in records for line in _forward_lines(record, room)]
        lines += _fact_lines(told(records[0]), room)
    return [*lines, *_notice_lines(_errors_of([snapshot]), room)]


def _short(snapshot: Snapshot, rates: Rates, now: float, room: Room) -> list[Text]:
    """Return one line, of a session among many."""
    [head, *_] = _head(snapshot, now, room)
    speeds = [
        f"{sign} {human_bytes(rate)}/s"
        for sign, rate in ((room.glyphs.received, rates.rx), (room.glyphs.sent, rates.tx))
        if rate is not None
    ]
    line = Text.assemble(head, *(f"  {speed}" for speed in speeds))
    return [line if line.cell_len <= room.width else head]


def _fact_lines(facts: Sequence[Fact], room: Room) -> Iterator[Text]:
    """Yield each fact on lines of its own."""
    width = max((len(label) for label, _ in facts), default=0)
    for label, texts in facts:
        for number, text in enumerate(texts):
            before = Text(f"  {'' if number else label:<{width}}  ", "dim")
            first, *rest = printable(text).split(" ", maxsplit=1)
            style = _link(first) if "://" in first else ""
            line = Text.assemble(before, Text(first, style), *(f" {words}" for words in rest))
            yield from _wrapped(line, room, indent=width + 4)


def _head(snapshot: Snapshot, now: float, room: Room) -> Iterator[Text]:
    record = snapshot["records"][0]
    rtt_ms = snapshot["traffic"].get("rtt_ms")
    is_quick = record["state"] == "running" and rtt_ms is not None
    style = _STYLES.get(record["state"], "")
    head = Text()
    head.append(f"{room.glyphs.state} ", style)
    head.append(_name_of(record), "bold")
    head.append("  ")
    head.append(f"{_words_of(record, now)}{f', {human_ms(rtt_ms)}' if is_quick else ''}", style)
    yield from _wrapped(head, room, indent=2)


def _errors_of(snapshots: Iterable[Snapshot]) -> list[str]:
    """Return what goes wrong beside connections that stand; else the state tells it."""
    return [
        record["last_error"]["message"]
        for snapshot in snapshots
        for record in snapshot["records"]
        if record["state"] == "running" and record.get("last_error")
    ]


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
    leads_to = _target_of(record)
    target = Text(f"{room.glyphs.to} {leads_to}" if leads_to else "")
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

"""What the live view shows, as text."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from rich.cells import cell_len
from rich.style import Style

from sshvpn.cli.frame import ASCII, UNICODE, RateMeter, Rates, Room, frame, plain
from sshvpn.cli.words import human_bytes
from tests.unit.cli.records import forward, tunnel, waiting_tunnel

START = datetime(2024, 11, 23, 14, 2, tzinfo=timezone.utc).astimezone()
NOW = START.timestamp() + 60
HINT = "Ctrl-C ends it"
WIDE = Room(79, 24, UNICODE)
NARROW = Room(39, 24, UNICODE)
SINCE = f"{START:%H:%M}"


def record(**changes: Any) -> dict[str, Any]:
    since = START.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return forward(**{"since": since, "pid": 4711, **changes})


def shown(
    *records: dict[str, Any],
    room: Room = WIDE,
    traffic: dict[str, Any] | None = None,
    notices: tuple[str, ...] = (),
    rates: Rates | None = None,
    hint: str = "",
) -> str:
    sessions: dict[int, list[dict[str, Any]]] = {}
    for one in records:
        sessions.setdefault(one["pid"], []).append(one)
    said = [(session(*group, traffic=traffic), rates or Rates()) for group in sessions.values()]
    return "\n".join(line.plain for line in frame(said, NOW, room, hint, notices))


def session(*records: dict[str, Any], traffic: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the snapshot of a session that has RECORDS."""
    kind = "forward" if "direction" in records[0] else "tunnel"
    return {"kind": kind, "name": records[0]["name"], "records": records, "traffic": traffic or {}}


def retry_in(seconds: float) -> str:
    return (START + timedelta(seconds=60 + seconds)).isoformat()


def test_a_forward_that_runs() -> None:
    traffic = {"rx_bytes": 12_300_000, "tx_bytes": 1_000, "connections": 1}
    assert shown(record(), traffic=traffic, rates=Rates(1.2e6, 0), hint=HINT) == (
        f"● gpu-box  running since {SINCE}\n"
        "  http://localhost:9999/  → localhost:8888\n"
        "  ↓   12 MB  1.2 MB/s   ↑  1.0 kB     0 B/s   1 connection\n"
        "  Ctrl-C ends it"
    )


def test_each_address_that_others_reach_has_a_url() -> None:
    listen = ["127.0.0.1:9999", "[::1]:9999", "192.168.1.5:9999", "[fd00::5]:9999"]
    assert shown(record(listen=listen)).splitlines()[1:] == [
        "  http://localhost:9999/  → localhost:8888",
        "  http://192.168.1.5:9999/",
        "  http://[fd00::5]:9999/",
    ]


def test_a_url_can_be_clicked() -> None:
    [link] = [
        span.style.link
        for line in frame([(session(record()), Rates())], NOW, WIDE)
        for span in line.spans
        if isinstance(span.style, Style) and span.style.link
    ]
    assert link == "http://localhost:9999/"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"direction": "remote", "listen": ["localhost:9000"], "url": "tcp://localhost:9000"},
            "  gpu-box localhost:9000  → localhost:8888 here",
        ),
        (
            {"direction": "dynamic", "target": "socks5", "url": "socks5h://localhost:1080"},
            "  socks5h://localhost:1080  → SOCKS proxy at gpu-box",
        ),
        (
            {"listen": ["/run/a.sock"], "url": "unix:/run/a.sock"},
            "  unix:/run/a.sock  → localhost:8888",
        ),
        ({"listen": [], "url": None}, "  9999:8888  → localhost:8888"),
        (
            {"listen": ["0.0.0.0:9999"]},
            "  http://localhost:9999/  → localhost:8888\n  0.0.0.0:9999 (every address)",
        ),
    ],
)
def test_other_kinds_of_forwards(changes: dict[str, Any], line: str) -> None:
    assert shown(record(**changes)).partition("\n")[2] == line


LOST = {"code": "unreachable", "message": "could not reach gpu-box: No route to host"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "starting"}, "starting"),
        ({"state": "stopping"}, "stopping"),
        ({"reconnects": 1}, f"running since {SINCE}, 1 reconnect"),
        ({"since": "2023-01-02T00:00:00Z"}, "running since "),
        (
            {"state": "backoff", "last_error": LOST, "retry_at": retry_in(3)},
            "backoff: could not reach gpu-box: No route to host, next try in 3 s",
        ),
        (
            {"state": "backoff", "last_error": LOST, "retry_at": retry_in(-1)},
            "backoff: could not reach gpu-box: No route to host, next try now",
        ),
        (
            {"state": "backoff", "last_error": {"code": "needs_login", "message": "log in"}},
            "backoff: log in, waiting for a login",
        ),
        ({"state": "failed", "last_error": LOST}, "failed: could not reach gpu-box: No route"),
        ({"state": "failed"}, "failed: no reason known"),
        ({"state": "failed", "last_error": {"code": "x", "message": "a\x1b[2Jb"}}, "a\\x1b[2Jb"),
    ],
)
def test_the_state_in_words(changes: dict[str, Any], words: str) -> None:
    assert words in shown(record(**changes)).splitlines()[0]


def test_a_start_of_another_day_has_its_day() -> None:
    day = datetime(2024, 11, 1, 12, 0, tzinfo=timezone.utc)
    assert f"since 1 Nov {day.astimezone():%H:%M}" in shown(record(since=day.isoformat()))


def test_a_listener_that_failed_and_notices_are_shown_once_each() -> None:
    taken = {"code": "taken", "message": "port 9999 is taken on 192.168.1.5"}
    lines = shown(record(last_error=taken), record(last_error=taken), notices=("be\x07ware",) * 2)
    assert lines.count("! port 9999 is taken on 192.168.1.5") == 1
    assert lines.count("  ! be\\x07ware") == 1


def test_what_the_engine_cannot_tell_is_left_out() -> None:
    nothing = {"rx_bytes": None, "tx_bytes": None, "connections": None}
    assert shown(record(), traffic=nothing) == shown(record(), traffic=None)
    some = {"rx_bytes": None, "tx_bytes": None, "connections": 2}
    assert shown(record(), traffic=some).endswith("\n  2 connections")


def test_nothing_is_up() -> None:
    assert shown() == "nothing is up"


def test_two_sessions_have_a_head_each() -> None:
    lines = shown(record(), record(name="other", host="b", pid=2)).splitlines()
    assert [line for line in lines if line.startswith("●")] == [
        f"● gpu-box  running since {SINCE}",
        f"● other (b)  running since {SINCE}",
    ]


@pytest.mark.parametrize("width", [20, 39, 79, 119])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_every_line_fits(width: int, glyphs: Any) -> None:
    text = shown(
        record(host="alice@gpu.example.com", listen=["192.168.1.5:9999", "[fd00:1:2:3::5]:9999"]),
        record(state="backoff", last_error=LOST, retry_at=retry_in(3), pid=2),
        record(direction="remote", listen=["[::1]:9000"], target="db.internal.example.com:5432"),
        traffic={"rx_bytes": 1, "tx_bytes": 2**40, "connections": 200},
        notices=("port 9999 is taken on 192.168.1.5; choose another port",),
        rates=Rates(0, 9.9e9),
        room=Room(width, 60, glyphs),
        hint=HINT,
    )
    assert all(cell_len(line) <= width for line in text.splitlines()), text


def test_narrow_terminals_have_the_target_below() -> None:
    changed = record(listen=["192.168.1.5:9999"], url="http://192.168.1.5:9999/")
    assert shown(changed, room=NARROW).splitlines() == [
        f"● gpu-box  running since {SINCE}",
        "  http://192.168.1.5:9999/",
        "    → localhost:8888",
    ]


def test_low_terminals_keep_the_foot() -> None:
    records = [record(spec=str(n), url=f"http://localhost:{n}/") for n in range(9000, 9040)]
    text = shown(
        *records,
        room=Room(79, 12, UNICODE),
        traffic={"rx_bytes": 1, "tx_bytes": 1, "connections": 1},
        hint=HINT,
    )
    lines = text.splitlines()
    assert len(lines) <= 12
    assert lines[-1] == "  Ctrl-C ends it"
    assert "1 connection" in lines[-2]
    assert lines[-3] == "  and 33 lines more: sshvpn status"


def test_each_of_several_has_its_own_round_trip_and_rates() -> None:
    traffic = {"rx_bytes": 1000, "tx_bytes": 1, "connections": None, "rtt_ms": 12.3}
    fast, slow = session(tunnel(since=record()["since"]), traffic=traffic), session(record())
    lines = [line.plain for line in frame([(slow, Rates()), (fast, Rates(5e6, 0))], NOW, WIDE)]
    assert lines[0].endswith(f"running since {SINCE}, 12 ms")
    assert lines[5:7] == [
        "  ↓  1.0 kB  5.0 MB/s   ↑     1 B     0 B/s",
        f"● gpu-box  running since {SINCE}",
    ]


def test_where_several_do_not_fit_each_has_a_line() -> None:
    traffic = {"rx_bytes": 1, "tx_bytes": 1, "connections": 1, "rtt_ms": 0.42}
    many = [
        (session(record(pid=n, name=f"n{n}"), traffic=traffic), Rates(1e6, 0)) for n in range(9)
    ]
    lines = [line.plain for line in frame(many, NOW, Room(79, 14, UNICODE), HINT)]
    assert len(lines) == 10
    line = f"● n0 (gpu-box)  running since {SINCE}, 0.4 ms  ↓ 1.0 MB/s  ↑ 0 B/s"
    assert lines[0] == line
    narrow = [line.plain for line in frame(many, NOW, Room(45, 14, UNICODE), HINT)]
    assert narrow[0] == line[: line.index("  ↓")]


def test_plain_lines_have_no_counters_and_no_countdown() -> None:
    down = record(state="backoff", last_error=LOST, retry_at=retry_in(3), url=None, listen=[])
    said = session(down, traffic={"rx_bytes": 5})
    assert plain([said], NOW, Room(80, 24, ASCII), ["beware"]) == [
        "gpu-box: backoff: could not reach gpu-box: No route to host",
        "  not listening -> localhost:8888",
        "  ! beware",
    ]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9960, "10 kB"),
        (999_499, "999 kB"),
        (999_600, "1.0 MB"),
        (12_345_678, "12 MB"),
        (5e12, "5.0 TB"),
        (5e19, "50000 PB"),
    ],
)
def test_bytes_for_people(count: float, words: str) -> None:
    assert human_bytes(count) == words


def test_a_rate_is_the_mean_of_the_last_seconds() -> None:
    meter = RateMeter()
    meter.add(100.0, 0, 0)
    assert meter.rates() == Rates(None, None)
    meter.add(100.01, 500, 500)  # too soon to say
    assert meter.rates() == Rates(None, None)
    for second in range(1, 20):
        meter.add(100.0 + second, 1000 * second, 10 * second)
    assert meter.rates() == Rates(1000, 10)
    for second in range(20, 24):
        meter.add(100.0 + second, 19_000, 190)
    assert meter.rates() == Rates(0, 0)


@pytest.mark.parametrize(
    ("now", "rx", "tx"), [(102.0, 0, 2000), (102.0, 2000, 0), (50.0, 3000, 3000), (102.0, None, 1)]
)
def test_a_count_that_fell_or_a_clock_that_went_back_begins_anew(
    now: float, rx: int | None, tx: int | None
) -> None:
    meter = RateMeter()
    meter.add(100.0, 1000, 1000)
    meter.add(101.0, 2000, 2000)
    meter.add(now, rx, tx)
    assert meter.rates() == Rates(None, None)


# Tunnels -----------------------------------------------------------------------------------


def tunnels_shown(*records: dict[str, Any], room: Room = WIDE) -> str:
    said = [(session(one, traffic={"rtt_ms": one["rtt_ms"]}), Rates()) for one in records]
    return "\n".join(line.plain for line in frame(said, NOW, room))


def test_a_tunnel_that_runs() -> None:
    assert tunnels_shown(tunnel(since=record()["since"], reconnects=1)) == (
        f"● office (alice@vpn.example.com)  running since {SINCE}, 1 reconnect, 12 ms\n"
        "  remote host  100.64.0.2, fd5a::2\n"
        "  routes       10.20.0.0/16\n"
        "  shared with  192.168.1.0/24 on eth0\n"
        "  published    http://192.168.1.5:8888/ -> localhost:8888"
    )


def test_a_tunnel_that_waits() -> None:
    waiting = waiting_tunnel("lost", LOST["message"], retry_at=retry_in(4))
    assert tunnels_shown(waiting, room=Room(120, 24, UNICODE)) == (
        "● office (alice@vpn.example.com)  "
        "backoff: could not reach gpu-box: No route to host, next try in 4 s"
    )


def test_a_tunnel_in_a_narrow_room_fits_it() -> None:
    lines = tunnels_shown(tunnel(), room=NARROW).splitlines()
    assert max(map(cell_len, lines)) <= NARROW.width
    assert "http://192.168.1.5:8888/" in "".join(lines)


def test_tunnels_stand_above_forwards_in_plain_lines_too() -> None:
    both = [session(record()), session(tunnel(since=record()["since"]))]
    assert plain(both, NOW, WIDE) == [
        f"office (alice@vpn.example.com): running since {SINCE}",
        "  remote host: 100.64.0.2, fd5a::2",
        "  routes: 10.20.0.0/16",
        "  shared with: 192.168.1.0/24 on eth0",
        "  published: http://192.168.1.5:8888/ -> localhost:8888",
        f"gpu-box: running since {SINCE}",
        "  http://localhost:9999/ → localhost:8888",
    ]

"""The control socket of a session that runs, under what anybody may send to it.

The fuzzer stands outside of the laboratory and speaks as root, whom every session answers.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sshvpn.control import LONGEST_LINE
from tests.e2e.office import Office
from tests.e2e.sessions import RUNTIME
from tests.lab import wait_until

ERRORS = {"malformed", "version", "unknown", "no_question", "too_long"}
HARMLESS = ["status", "watch", "attach", "answer", "attached ", "", "logs", "__init__"]

_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
        st.sampled_from([2**80, -(2**70), "\ud800", "\x00", "a" * 3000]),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)  # fmt: skip
_requests = st.fixed_dictionaries(
    {},
    optional={
        "v": st.sampled_from([1]) | _values,
        "cmd": st.sampled_from(HARMLESS) | _values,
        "id": st.integers(0, 3) | _values,
        "text": _values,
        "snapshot": _values,
    },
)
_lines = st.one_of(
    (_requests | _values).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=300),
    st.sampled_from([
        b"[" * 50_000, b'{"v":' * 9_000, b"9" * 60_000, b'{"v": 1, "v": 1, "cmd": "status"}', b"\0",
        b'{"v": 1, "cmd": "\\ud800"}', b"\xff\xfe{}", b"NaN", b"-Infinity", b"GET / HTTP/1.0\r",
    ]),
)  # fmt: skip
_ends = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b""])


_acting = st.fixed_dictionaries(
    {"v": st.just(1), "cmd": st.sampled_from(["typed", "wake", "restart", "attached"])},
    optional={"profile": st.none() | st.fixed_dictionaries({
        "kind": st.sampled_from(["forward", "tunnel"]) | _values,
    }) | _values, "id": _values},
)  # fmt: skip


class Running:
    """A session that runs, and its socket as it is seen from outside of the laboratory."""

    def __init__(self, office: Office) -> None:
        office.forward("server", "9999:8888")
        (directory,) = office.gateway.run(["ls", RUNTIME]).stdout.split()
        self.path = office.gateway.host_path(f"{RUNTIME}/{directory}/control")
        self.pid = office.only()["pid"]
        (self._proc,) = (office.gateway.host_path("/proc") / str(self.pid),)

    def connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(self.path))  # waits where many are before it
        connected.settimeout(20)
        return connected

    def say(self, words: bytes) -> list[dict[str, Any]]:
        """Send WORDS and the end, and return all that is answered."""
        with self.connect() as connected:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connected.sendall(words)
                connected.shutdown(socket.SHUT_WR)
            return [json.loads(line) for line in self._read(connected).splitlines()]

    @staticmethod
    def _read(connected: socket.socket) -> bytes:
        pieces = []
        with contextlib.suppress(ConnectionResetError):  # it had not read all when it hung up
            while piece := connected.recv(1 << 16):
                pieces.append(piece)
        return b"".join(pieces)

    def assert_well(self) -> None:
        """Assert that it is the same process, and that it answers as always."""
        (answer,) = self.say(b'{"v": 1, "cmd": "status"}\n')
        assert answer["snapshot"]["state"] == "running"
        assert answer["snapshot"]["records"][0]["pid"] == self.pid

    def descriptors(self) -> int:
        return len(list((self._proc / "fd").iterdir()))

    def rss_bytes(self) -> int:
        return int((self._proc / "statm").read_text().split()[1]) * 4096


@pytest.fixture
def running(office: Office) -> Iterator[Running]:
    session = Running(office)
    yield session
    assert office.only()["reconnects"] == 0
    office.sshvpn("down")
    log = office.logs()
    assert "Traceback" not in log, log


def test_nothing_that_is_sent_breaks_a_session(running: Running) -> None:
    before = running.descriptors()
    rss = running.rss_bytes()

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(st.tuples(_lines, _ends), max_size=6))
    def fuzz(sent: list[tuple[bytes, bytes]]) -> None:
        for answer in running.say(b"".join(line + end for line, end in sent)):
            assert answer["v"] == 1
            if answer.get("ok") is False:
                assert answer["error"]["code"] in ERRORS
                assert answer["error"]["message"].isprintable()
            else:
                assert "snapshot" in answer
        running.assert_well()

    fuzz()
    wait_until(lambda: running.descriptors() == before)
    assert running.rss_bytes() - rss < 20 << 20


def test_what_makes_it_begin_anew_takes_anything_too(office: Office) -> None:
    session = Running(office)
    before = session.descriptors()

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(_acting, min_size=1, max_size=4))
    def fuzz(sent: list[dict[str, Any]]) -> None:
        for answer in session.say(b"".join(json.dumps(one).encode() + b"\n" for one in sent)):
            assert answer["v"] == 1
            assert answer["ok"] or answer["error"]["code"] in ERRORS
        assert office.wait_state("running")["pid"] == session.pid

    fuzz()
    wait_until(lambda: session.descriptors() == before)
    (refused,) = session.say(b'{"v": 1, "cmd": "attached"}\n')
    assert refused["error"]["code"] == "unknown"
    office.sshvpn("down")
    assert "Traceback" not in office.logs()


def test_a_line_without_an_end_is_answered_and_hung_up_on(running: Running) -> None:
    rss = running.rss_bytes()
    for _ in range(5):
        (answer,) = running.say(b"x" * (4 << 20))
        assert answer["error"]["code"] == "too_long"
    longest = b'{"v": 1, "cmd": "status", "x": "' + b"x" * (LONGEST_LINE - 100) + b'"}\n'
    assert running.say(longest)[0]["ok"]
    assert running.rss_bytes() - rss < 20 << 20
    running.assert_well()


def test_a_crowd_that_says_nothing_or_half_a_word_holds_up_nobody(running: Running) -> None:
    before = running.descriptors()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(running.connect()) for _ in range(200)]
        for connected in crowd[::2]:
            connected.sendall(b'{"v": 1, "cm')
        running.assert_well()
        for letter in b'd": "status"}\n':
            crowd[0].sendall(bytes([letter]))
        assert json.loads(crowd[0].recv(1 << 16))["ok"]
    wait_until(lambda: running.descriptors() == before)


def test_who_asks_and_never_reads_is_let_go(running: Running) -> None:
    rss = running.rss_bytes()
    with running.connect() as deaf:
        deaf.settimeout(3)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            while True:
                deaf.sendall(b'{"v": 1, "cmd": "status"}\n' * 1000)
        running.assert_well()
    assert running.rss_bytes() - rss < 20 << 20


def test_it_is_for_its_user_alone(office: Office, running: Running) -> None:
    assert Path(running.path).stat().st_mode & 0o777 == 0o600
    code = f"import socket,glob; socket.socket(1).connect('{RUNTIME}/x/control')"
    told = office.gateway.run(["python3", "-c", code], user="bob", check=False).stderr
    assert "PermissionError" in told

"""Following all sessions at once: what comes and goes, and one that hangs."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshvpn.control import SessionDir
from sshvpn.control_watch import MUTE_AFTER_S, Watcher
from tests.unit.cli.conftest import Begin
from tests.unit.cli.records import forward, tunnel


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watcher(home: Path, clock: Clock) -> Iterator[Watcher]:
    found = Watcher([home / "run"], clock)
    yield found
    found.close()


def wait(watcher: Watcher, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        watcher.wait(0.1)


def names(watcher: Watcher) -> list[str]:
    return sorted(said["name"] for said in watcher.snapshots())


def test_sessions_come_change_and_go(watcher: Watcher, begin: Begin) -> None:
    watcher.look()
    assert watcher.snapshots() == []
    first = begin("tunnel", "office", tunnel())
    watcher.look()
    wait(watcher, lambda: names(watcher) == ["office"])
    begin("forward", "gpu-box", forward())
    watcher.look()
    wait(watcher, lambda: names(watcher) == ["gpu-box", "office"])
    first.publish(state="backoff")  # without being asked
    wait(watcher, lambda: [s["state"] for s in watcher.snapshots()].count("backoff") == 1)
    first.close()
    wait(watcher, lambda: names(watcher) == ["gpu-box"])
    assert watcher.mute() == []


def test_figures_are_asked_for_at_each_look(watcher: Watcher, begin: Begin) -> None:
    session = begin("forward", "gpu-box", forward())
    watcher.look()
    wait(watcher, lambda: len(watcher.snapshots()) == 1)
    session.snapshot["traffic"] = {"rx_bytes": 7}  # nobody is told of it
    watcher.look()
    wait(watcher, lambda: watcher.snapshots()[0]["traffic"] == {"rx_bytes": 7})


def test_one_that_hangs_is_told_of_and_holds_up_nobody(
    watcher: Watcher, begin: Begin, home: Path, clock: Clock
) -> None:
    begin("forward", "gpu-box", forward())
    with (
        SessionDir(home / "run", "forward", "hangs") as directory,
        socket.socket(socket.AF_UNIX) as hangs,
    ):
        hangs.bind(str(directory.path / "control"))
        hangs.listen(1)
        for _ in range(3000):  # until its buffer is full, too
            watcher.look()
        wait(watcher, lambda: names(watcher) == ["gpu-box"])
        assert watcher.mute() == []
        clock.now += MUTE_AFTER_S + 1
        watcher.look()
        wait(watcher, lambda: watcher.mute() == ["forward-hangs"])


def test_garbage_is_no_news(watcher: Watcher, home: Path) -> None:
    with (
        SessionDir(home / "run", "forward", "odd") as directory,
        socket.socket(socket.AF_UNIX) as odd,
    ):
        odd.bind(str(directory.path / "control"))
        odd.listen(1)
        watcher.look()
        peer, _ = odd.accept()
        with peer:
            peer.sendall(b'\xff\n[]\n{"snapshot": 3}\n{"event": "notice"}\n')
            assert not watcher.wait(5)
        assert watcher.wait(5)  # it has gone
        assert not watcher.wait(0)
    watcher.look()

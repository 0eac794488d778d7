"""The service manager is told by datagrams; where there is none, nothing happens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sshvpn.system.systemd.journal import is_stderr
from sshvpn.system.systemd.sd_notify import ServiceManager, _has_root


def test_each_variable_is_a_line_whatever_it_holds(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(path)
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"}
        manager = ServiceManager(environment)
        manager.say(READY="1", STATUS="two\nlines READY=1")
        assert heard.recv(4096) == b"READY=1\nSTATUS=two lines READY=1"
        assert manager.watchdog_s == 2
        assert environment == {}
        manager.close()
        manager.say(READY="1")


def test_an_abstract_address_begins_with_an_at() -> None:
    name = f"sshvpn-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        manager = ServiceManager({"NOTIFY_SOCKET": f"@{name}"})
        manager.say_reloading("again")
        assert heard.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        manager.close()


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(path)
        manager = ServiceManager({"NOTIFY_SOCKET": path})
        for _ in range(10_000):
            manager.say(WATCHDOG="1")
        manager.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/nobody/listens", "WATCHDOG_USEC": "x"},
        {"NOTIFY_SOCKET": "/nobody/listens", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/nobody/listens", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"},
    ],
)
def test_where_nobody_wants_to_be_told_nothing_happens(environment: dict[str, str]) -> None:
    manager = ServiceManager(environment)
    manager.say(READY="1")
    assert manager.watchdog_s is None
    manager.close()


def test_whether_stderr_is_the_journal_is_told_by_its_inode() -> None:
    found = os.fstat(2)
    assert is_stderr({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    assert not is_stderr({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
    assert not is_stderr({"JOURNAL_STREAM": "what"})
    assert not is_stderr({})


@pytest.mark.parametrize(
    ("text", "has_root"),
    [
        ("         0          0 4294967295\n", True),
        ("      1000       1000          1\n", False),
        ("      1000       1000          1\n         0     100000       1000\n", True),
    ],
)
def test_a_namespace_of_one_user_has_no_root(tmp_path: Path, text: str, *, has_root: bool) -> None:
    uid_map = tmp_path / "uid_map"
    uid_map.write_text(text)
    assert _has_root(uid_map) is has_root
    assert _has_root(tmp_path / "none")
    assert not ServiceManager({}).hides_owners

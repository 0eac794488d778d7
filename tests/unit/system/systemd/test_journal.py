"""A service's journal is followed until the service ends, and no longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sshvpn.errors import SshvpnError
from sshvpn.system.systemd import journal
from sshvpn.system.systemd.journal import Follower

UNIT = "sshvpn@office.service"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a journalctl that follows for ever, and a systemctl that tells `state`, into PATH."""
    say(tmp_path, "journalctl", "exec sleep 100")
    say(tmp_path, "systemctl", f'echo "$@" >{tmp_path}/asked; cat {tmp_path}/state')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(journal, "_LAST_WORDS_S", 0.0)
    return tmp_path


def say(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


@pytest.mark.parametrize(
    ("state", "is_over"),
    [
        ("active", False), ("reloading", False), ("deactivating", False), ("activating", False),
        ("", False), ("inactive", True), ("failed", True),
    ],
)  # fmt: skip
def test_it_is_over_when_the_service_has_ended_for_good(
    programs: Path, state: str, *, is_over: bool
) -> None:
    (programs / "state").write_text(f"{state}\n")
    follower = Follower(UNIT, is_users=False)
    assert follower.is_over() is is_over
    assert (follower._process.poll() is not None) is is_over
    follower.close()
    follower.close()
    assert follower._process.poll() is not None


def test_a_service_of_a_user_is_asked_for_where_it_runs(programs: Path) -> None:
    (programs / "state").write_text("active\n")
    follower = Follower(UNIT, is_users=True)
    assert not follower.is_over()
    follower.close()
    assert (programs / "asked").read_text() == f"--user is-active {UNIT}\n"


def test_a_journal_that_may_not_be_read_is_told(programs: Path) -> None:
    say(programs, "journalctl", "exit 1")
    follower = Follower(UNIT, is_users=False)
    follower._process.wait()
    with pytest.raises(SshvpnError, match="cannot be read"):
        follower.is_over()
    follower.close()

"""Where things are kept: what is told where that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sshvpn.errors import SshvpnError
from sshvpn.system import paths


@pytest.fixture
def blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run-time directory that cannot be made: a file stands above it."""
    (tmp_path / "run").touch()
    directory = tmp_path / "run" / "sshvpn"
    monkeypatch.setattr(paths, "runtime_dirs", lambda: (directory,))
    return directory


def hint_for(uid: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "getuid", lambda: uid)
    with pytest.raises(SshvpnError) as raised:
        paths.runtime_dir()
    assert "cannot make the run-time directory" in raised.value.message
    return raised.value.hint


@pytest.mark.usefixtures("blocked")
def test_a_user_may_choose_another_run_time_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "XDG_RUNTIME_DIR" in hint_for(1000, monkeypatch)


def test_root_has_one_only_and_is_told_where_to_look(
    blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hint = hint_for(0, monkeypatch)
    assert "XDG_RUNTIME_DIR" not in hint
    assert f"ls -ld {blocked.parent}" in hint

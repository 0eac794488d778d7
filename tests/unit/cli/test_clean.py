"""``sshvpn clean --forward NAME``, as a unit of a user's has it: of that forward, and no other."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from sshvpn import control
from sshvpn.cli.clean import clean
from sshvpn.control import SessionDir
from sshvpn.errors import UsageError
from tests.unit.cli.conftest import Begin

pytestmark = pytest.mark.usefixtures("home")


def killed(home: Path, kind: str, label: str) -> tuple[Path, Path]:
    """Let a session of that name die; return its directory, and a socket that it has left."""
    path = home / f"{kind}-{label}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    session = SessionDir(home / "run", kind, label)
    session.note_sockets([str(path)])
    os.close(session._fd)  # as kill -9 does
    return session.path, path


def test_it_sweeps_what_a_forward_has_left_and_nothing_of_others(home: Path) -> None:
    directory, left = killed(home, "forward", control.forward_id("notebook"))
    others = [
        *killed(home, "forward", control.forward_id("other")),
        *killed(home, "tunnel", control.tunnel_id("notebook")),
    ]
    done = CliRunner().invoke(clean, ["--forward", "notebook"], catch_exceptions=False)
    assert (done.exit_code, done.output) == (0, f"removed {directory}\n")
    assert not directory.exists()
    assert not left.exists()
    assert all(path.exists() for path in others)


def test_what_runs_is_not_touched(begin: Begin) -> None:
    session = begin("forward", "notebook")
    done = CliRunner().invoke(clean, ["--forward", "notebook"], catch_exceptions=False)
    assert done.exit_code == 0
    assert session.is_up


def test_which_of_two_is_asked_for_by_name() -> None:
    with pytest.raises(UsageError, match="--forward needs a NAME"):
        CliRunner().invoke(clean, ["--forward"], catch_exceptions=False)

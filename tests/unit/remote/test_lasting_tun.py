"""What makes a tun where the server's ip cannot; with a kernel it is tried in tests/contract."""

from __future__ import annotations

import ast
import errno
import os
import sys
from pathlib import Path

import pytest

from sshvpn.remote import agent_script, lasting_tun


def test_it_runs_on_an_old_python_and_in_a_shells_quotes() -> None:
    ast.parse(Path(lasting_tun.__file__).read_text(encoding="ascii"), feature_version=(3, 6))
    script = agent_script()
    begin = script.index("tun_program='") + len("tun_program='")
    program = script[begin : script.index("'", begin)]
    names = {"__name__": "a test"}
    exec(compile(program, "program", "exec"), names)  # noqa: S102 (it is ours)
    assert {"make", "main"} <= set(names)


def test_it_says_why_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(sys, "argv", ["-c", "sshvpnr5600", "1000"])
    with pytest.raises(SystemExit, match="Operation not permitted"):
        lasting_tun.main()

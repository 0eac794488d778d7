"""A command of the system, run to its end."""

from __future__ import annotations

import sys

import pytest

from sshvpn.errors import PrivilegeError, SshvpnError
from sshvpn.privileged import command


def python(code: str) -> list[str]:
    return [sys.executable, "-IS", "-c", code]


def test_it_is_told_what_it_said_whatever_its_exit_code() -> None:
    done = command.run(python("import sys; print(1); sys.stderr.write('no'); sys.exit(3)"), 30.0)
    assert (done.returncode, done.stdout, done.stderr) == (3, "1\n", "no")


def test_nobody_answers_what_it_asks_and_its_environment_is_its_own() -> None:
    code = "import os, sys; print(repr(sys.stdin.read()), os.environ.get('WORD'))"
    done = command.run(python(code), 30.0, environment={"WORD": "here"})
    assert done.stdout == "'' here\n"


@pytest.mark.parametrize("kind", [SshvpnError, PrivilegeError])
def test_a_program_that_is_not_there_is_the_error_that_its_caller_wants(
    kind: type[SshvpnError],
) -> None:
    with pytest.raises(SshvpnError, match="there is no nothing-such on this machine") as raised:
        command.run(["nothing-such"], 30.0, missing=kind)
    assert type(raised.value) is kind


def test_one_that_does_not_end_is_ended() -> None:
    with pytest.raises(SshvpnError, match="took more than 0 s"):
        command.run(python("import signal; signal.pause()"), 0.1)

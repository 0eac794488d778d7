"""What is told of Jupyter at the server: lines that can be typed as they stand."""

from __future__ import annotations

import shlex

import pytest

from sshvpn.jupyter import _error, stop_line
from sshvpn.model import SshOptions
from sshvpn.remote.notebook_protocol import Problem

HOME = "/home/a home"


@pytest.mark.parametrize(
    ("code", "path", "words"),
    [
        ("died", f"{HOME}/1.log", ["cat", f"{HOME}/1.log"]),
        ("died", "/home/alice/1.log", ["cat", "/home/alice/1.log"]),
        ("silent", f"{HOME}/1.log", ["cat", f"{HOME}/1.log"]),
        ("none_in", f"{HOME}/v/bin/python",
         [f"{HOME}/v/bin/python", "-m", "pip", "install", "jupyterlab"]),
        ("no_venv", f"{HOME}/it's", ["python3", "-m", "venv", f"{HOME}/it's"]),
    ],
)  # fmt: skip
def test_the_line_to_type_means_the_same_after_both_shells(
    code: str, path: str, words: list[str]
) -> None:
    hint = _error(Problem(code, path), "gpu").hint
    line = hint.partition(": ")[2].removesuffix(", then install jupyterlab in it")
    program, host, *there = shlex.split(line)
    assert (program, host) == ("ssh", "gpu")
    # ssh joins its words by spaces, and the login shell splits them again.
    assert shlex.split(" ".join(there)) == words


def test_the_line_that_ends_it_logs_in_as_it_was_logged_in() -> None:
    options = (("User", "bob"), ("Port", "2222"), ("HostKeyAlias", "a b"))
    ssh = SshOptions(jump="gate", identity_files=("/k",), options=options)
    assert stop_line("gpu", ssh, "my thesis") == (
        "sshvpn notebook stop -i /k -J gate -l bob -p 2222 -o 'HostKeyAlias=a b' "
        "--dir 'my thesis' gpu"
    )
    assert stop_line("gpu", SshOptions()) == "sshvpn notebook stop gpu"


def test_conda_is_told_the_whole_path_where_only_it_can_be_typed() -> None:
    problem = Problem("none_in_conda", f"{HOME}/envs/x")
    assert _error(problem, "gpu").hint.endswith(f"conda install -p '{HOME}/envs/x' jupyterlab")

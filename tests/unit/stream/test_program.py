"""What is delivered to a server: old Pythons can read it, no shell takes a word of it."""

from __future__ import annotations

import ast
import subprocess
import sys
import zlib

import pytest

from sshvpn.stream import program
from sshvpn.stream.program import OLDEST_PYTHON

NONCE = "0123456789abcdef" * 2
DEVICE = program.device_line("sshvpnr5600")
COMMAND = program.command(NONCE, is_many=False, mark="sshvpn-agent:3e8_1")


def delivered() -> str:
    return zlib.decompress(program.delivery()).decode()


def test_the_oldest_python_can_read_it() -> None:
    ast.parse(delivered(), feature_version=OLDEST_PYTHON)


def test_it_imports_the_standard_library_alone() -> None:
    found = set()
    for node in ast.walk(ast.parse(delivered())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    assert found <= set(sys.stdlib_module_names)


def test_no_part_takes_a_name_of_another() -> None:
    names: list[str] = []
    for node in ast.parse(delivered()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names += [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]
    assert sorted(names) == sorted(set(names))


def test_the_command_is_read_alike_by_every_shell() -> None:
    before, boot, after = COMMAND.split("'")
    assert before == "exec env MALLOC_TRIM_THRESHOLD_=8388608 python3 -ISc "
    assert not set(boot) & set("\\!\n`")
    assert "$" not in COMMAND
    assert after.split()[1:] == [NONCE, "one", "sshvpn-agent:3e8_1"]


@pytest.mark.parametrize("mark", ["", "a b", "x'y", "$(id)", "x\n"])
def test_what_would_need_quoting_is_refused(mark: str) -> None:
    with pytest.raises(ValueError, match="not a nonce"):
        program.command(NONCE, is_many=False, mark=mark)


@pytest.mark.parametrize("device", ["", "..", "a b", "-x", "x" * 16, "x'y", "$(id)", "x\n"])
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="not a device"):
        program.device_line(device)


def served(script: bytes, boot: str = "") -> subprocess.CompletedProcess[bytes]:
    """Return what the command does with this on its input, by this Python."""
    words = COMMAND.split("'")
    argv = [sys.executable, "-ISc", boot or words[1], *words[2].split()]
    return subprocess.run(argv, input=script, capture_output=True, timeout=20, check=False)


def test_a_device_that_is_not_there_is_told_in_one_line() -> None:
    done = served(program.delivery() + DEVICE)
    assert done.returncode == 1
    said = done.stdout.decode().strip()
    assert said.startswith((f"{NONCE} error no_device ", f"{NONCE} error no_tun "))
    assert not done.stderr


@pytest.mark.parametrize("line", [b"", DEVICE[:-1], b"\n", b"x" * 1000 + b"\n"])
def test_without_a_device_it_ends_in_silence(line: bytes) -> None:
    done = served(program.delivery() + line)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_an_old_python_says_so_before_it_reads_anything() -> None:
    boot = COMMAND.split("'")[1].replace("(3,6)", "(9,9)")
    done = served(b"", boot)
    assert done.stdout.decode() == f"\n{NONCE} error python {sys.version.split()[0]}\n"
    assert done.returncode == 0


def test_a_delivery_that_is_cut_runs_nothing() -> None:
    assert served(program.delivery()[:-1]).returncode != 0

"""What prepares a fresh machine is a program that runs, and knows what it would install."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "bootstrap.sh"


def test_it_is_understood_by_sh() -> None:
    done = subprocess.run(["sh", "-n", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "* usage: tests/bootstrap.sh system|peers|venv|python VERSION\n",
    )


def test_each_program_has_its_package_and_its_reason() -> None:
    [block] = re.findall(r"^NEEDED='\n(.*?)\n'$", SCRIPT.read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines():
        assert re.fullmatch(r"[\w-]+:[a-z0-9.+-]+:[^:'\"]+", line, re.IGNORECASE), line

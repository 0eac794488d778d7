"""What `pip install .` installs: the whole program, as it is in the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab.machine import CHECKOUT


def files_of(package: Path) -> set[str]:
    """Return the files of PACKAGE, without what Python makes of them."""
    found = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def test_what_is_installed_is_whole_and_runs(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--target", str(tmp_path), str(CHECKOUT)], check=True)
    assert files_of(tmp_path / "sshvpn") == files_of(CHECKOUT / "sshvpn")

    def said(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, *words], env=environment, cwd="/",
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    told = "import sshvpn; from sshvpn.remote import agent_script; print(sshvpn.__file__)"
    assert said("-c", f"{told}; agent_script()") == str(tmp_path / "sshvpn" / "__init__.py")
    assert said("-m", "sshvpn", "--version") == said(str(tmp_path / "bin" / "sshvpn"), "--version")

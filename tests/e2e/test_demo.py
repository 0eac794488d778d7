"""The demonstration: what `make demo` shows is so, to the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_the_demonstration_runs_to_its_end(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "examples.demo"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as demo:  # fmt: skip
        told, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, told
    for words in (
        "$ sshvpn forward",
        "$ sshvpn up",
        "HTTP 200, the page's title is “JupyterLab”",
        "HTTP 200, the page's title is “the intranet”",
        "Every machine is as it was before",
    ):
        assert words in told, told
    picture = (tmp_path / "notebook.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000, "a blank page is smaller"
    assert "README.md says how" in told.splitlines()[-1], told

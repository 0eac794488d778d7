"""What the tests of `sshvpn notebook` have in common: a server with a real Jupyter, and browsers.

The server's Jupyter is in a virtual environment that is made there, in alice's home directory;
what is installed in it is this project's own, so that it is made in a moment. Notebook 6, which
that one excludes, and Notebook 7, which would be loaded into each JupyterLab, are installed once,
outside of the repository (`python -m tests.e2e.notebooks`).
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from tests.e2e.office import HOME, Office, Result
from tests.lab import LabMachine
from tests.lab.cache import install, made

HERE: Final = Path(__file__).parents[1] / "lab"
VENV: Final = "my venv"
STATE: Final = f"{HOME}/.local/state/sshvpn/notebooks"
RUNTIME: Final = f"{HOME}/.local/share/jupyter/runtime"
SCRIPT: Final = "#!{python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
CLASSIC: Final = ("notebook<7",)
"""Which has nbclassic among what it needs."""
TIMEOUT: Final = 90


PATH_LINE: Final = f'PATH="$HOME/{VENV}/bin:$PATH"; export PATH\n'
"""What puts the environment on the PATH, for a POSIX shell."""


TOOLS: Final = (
    "cat", "chmod", "dd", "grep", "id", "ls", "mkdir", "rm", "sed", "setsid", "sleep", "sort",
    "tail",
)  # fmt: skip
"""All that the script uses of a server's system; curl and python3 are not among it."""


@dataclass(frozen=True)
class Packages:
    """Python packages that are installed: their directories, what has share/ and etc/, commands."""

    libraries: tuple[str, ...]
    prefixes: tuple[str, ...]
    commands: Mapping[str, str]


PROJECT: Final = Packages(
    (sysconfig.get_path("purelib"),), (sys.prefix,), {"jupyter-lab": "jupyterlab.labapp"}
)


def classic() -> Packages:
    """Return Notebook 6 and nbclassic, installed now where they are not there."""
    path = made("notebook6", (CLASSIC, sys.version), lambda root: install(root, CLASSIC))
    names = {"jupyter-notebook": "notebook", "jupyter-nbclassic": "nbclassic"}
    commands = {command: f"{name}.notebookapp" for command, name in names.items()}
    return Packages((str(path),), (str(path),), commands)


def seven() -> Packages:
    """Return Notebook 7 beside this project's JupyterLab, on which it stands, as `classic` does.

    7.N is made for JupyterLab 4.N, and may come some days later.
    """
    _, minor, *_ = version("jupyterlab").split(".")
    wanted = (f"notebook>=7,<7.{int(minor) + 1}",)
    path = made("notebook7", (wanted, sys.version), lambda root: install(root, wanted, "--no-deps"))
    commands = {"jupyter": "jupyter_core.command", "jupyter-notebook": "notebook.app"}
    return Packages((str(path), *PROJECT.libraries), (str(path), *PROJECT.prefixes), commands)


def make_venv(
    machine: LabMachine, place: str, user: str = "alice", packages: Packages = PROJECT
) -> None:
    """Make a virtual environment with Jupyter on MACHINE, in the directory PLACE, as USER."""
    python = [sys.executable, "-m", "venv", "--without-pip", "--symlinks", place]
    machine.run(python, user=user)
    (library,) = machine.host_path(f"{place}/lib").iterdir()
    paths = "".join(f"{path}\n" for path in packages.libraries)
    (library / "site-packages" / "project.pth").write_text(paths)
    how = ["ln", "-s"] if len(packages.prefixes) == 1 else ["cp", "-rs"]
    for prefix in packages.prefixes:
        machine.run([*how, f"{prefix}/share", f"{prefix}/etc", place], user=user)
    # A path with a space is no interpreter's in a #! line.
    interpreter = sys.executable if " " in place else f"{place}/bin/python"
    for command, module in packages.commands.items():
        script = SCRIPT.format(python=interpreter, module=module)
        machine.write(f"{place}/bin/{command}", script, owner=user, mode=0o755)


class Notebooks:
    """alice at the gateway of OFFICE, and Jupyter at the server."""

    def __init__(self, office: Office) -> None:
        """Make the environment, which a login shell finds."""
        self.office = office
        self.server = office.server
        self._before = {path.name for path in self.server.host_path(HOME).iterdir()}
        make_venv(self.server, f"{HOME}/{VENV}")
        self.server.write(f"{HOME}/.profile", PATH_LINE)

    def end(self) -> None:
        """End all that is left, and make the home directory what it was."""
        for pid, line in self.server.processes().items():
            if "jupyter" in line or "ipykernel" in line:
                self.server.kill(pid, signal.SIGKILL)
        for path in self.server.host_path(HOME).iterdir():
            if path.name in self._before:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def end_kernels(self) -> None:
        """End the kernels of the one Jupyter that runs, which goes on."""
        (server,) = self.server.host_path(RUNTIME).glob("jpserver-*.json")
        record = json.loads(server.read_text())
        api, token = (
            f"{record['url']}api/kernels",
            ("-H", f"Authorization: token {record['token']}"),
        )
        for kernel in json.loads(self.office.fetch(api, *token, machine=self.server)):
            url = f"{api}/{kernel['id']}"
            self.office.fetch(url, "-X", "DELETE", *token, machine=self.server)

    def close_pages(self) -> None:
        """Let a browser that opens JupyterLab begin anew, not with what another had open."""
        shutil.rmtree(self.server.host_path(f"{HOME}/.jupyter/lab/workspaces"), ignore_errors=True)

    # -- what a person types, and sees ---------------------------------------------------------

    def run(self, *args: str, check: bool = True, **options: Any) -> Result:
        """Run `sshvpn notebook ARGS`."""
        return self.office.sshvpn("notebook", *args, check=check, timeout=TIMEOUT, **options)

    def open(self, *args: str, **options: Any) -> str:
        """Run `sshvpn notebook -b --no-browser ARGS server`, and return the URL that it prints."""
        return url_in(self.run("-b", "--no-browser", *args, "server", **options).stdout)

    def refused(self, code: int, *args: str) -> str:
        """Assert that `sshvpn notebook ARGS` ends with CODE; return what it says of that.

        Before the error there may be what Jupyter said.
        """
        result = self.run(*args, check=False)
        told = f"{args}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert result.returncode == code, told
        assert "Traceback" not in "".join(result.stderr.splitlines(keepends=True)[-2:]), told
        return result.stderr

    def list(self) -> list[dict[str, Any]]:
        """Return what `sshvpn notebook list --json` says."""
        return list(json.loads(self.run("list", "--json", "server").stdout))

    # -- what the notebook does ----------------------------------------------------------------

    def execute(
        self, url: str, code: str, kernel: str | None = None, *, machine: LabMachine | None = None
    ) -> tuple[str, str]:
        """Run CODE in KERNEL (or a new one) of URL; return text and kernel."""
        return self.execute_at(machine or self.office.gateway, url, code, kernel)

    @classmethod
    def execute_at(
        cls, machine: LabMachine, url: str, code: str, kernel: str | None = None
    ) -> tuple[str, str]:
        """Do so from MACHINE."""
        order = {"url": bare(url), "token": token_of(url), "code": code, "kernel": kernel}
        said = cls._helper(machine, "_kernel.py", order)
        return said["text"], said["kernel"]

    def browse(
        self,
        machine: LabMachine,
        url: str,
        *cells: str,
        screenshot: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Open URL in a browser on MACHINE and run CELLS there; see tests/lab/_browser.py."""
        order = {"url": url, "cells": cells, "screenshot": screenshot, **more}
        return self._helper(machine, "_browser.py", order)

    @staticmethod
    def _helper(machine: LabMachine, name: str, order: dict[str, Any]) -> dict[str, Any]:
        words = [sys.executable, str(HERE / name)]
        said = machine.run(words, input=json.dumps(order), timeout=100)
        return dict(json.loads(said.stdout))

    def status(self, url: str, machine: LabMachine | None = None) -> str:
        """Return the HTTP status of Jupyter's API at URL, with its token."""
        address = f"{bare(url)}api/status?token={quote(token_of(url))}"
        options = ["-o", "/dev/null", "-w", "%{http_code}"]
        return self.office.fetch(address, *options, machine=machine)

    def served(self, url: str, path: str) -> tuple[str, str]:
        """Return the HTTP status of PATH at URL, as it is written, and what came."""
        address = f"{bare(url)}{path}?token={quote(token_of(url))}"
        got = self.office.fetch(address, "--path-as-is", "-w", "\n%{http_code}")
        text, _, status = got.rpartition("\n")
        return status, text

    def servers(self) -> dict[int, str]:
        """Return Jupyter's processes at the server, with their command lines."""
        lines = self.server.processes().items()
        return {pid: line for pid, line in lines if "jupyter" in line and "ipykernel" not in line}


def url_in(printed: str, label: str = "here") -> str:
    """Return the URL that stands behind LABEL in what was printed."""
    (url,) = [
        line.split()[-1] for line in printed.splitlines() if line.strip().startswith(label)
    ]  # fmt: skip
    return url


def token_of(url: str) -> str:
    """Return the token of URL, "" where there is none."""
    return parse_qs(urlsplit(url).query).get("token", [""])[0]


def bare(url: str) -> str:
    """Return URL without its token."""
    return url.partition("?")[0]


if __name__ == "__main__":
    classic()
    seven()

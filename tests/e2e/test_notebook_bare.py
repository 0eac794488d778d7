"""`sshvpn notebook` at a server that has next to nothing: no Jupyter, or no curl and no python3.

gateway ══ssh══ server: a login shell there finds a dozen tools, and nothing else
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.notebooks import PROJECT, TOOLS, VENV, Notebooks, url_in
from tests.e2e.office import HOME, Office
from tests.lab import LabMachine

pytestmark = pytest.mark.lab

LINKS = "/run/tools"
PYTHON = "/run/python"
WHEELS = f"{HOME}/wheels"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
COMMAND = "[console_scripts]\njupyter-lab = jupyterlab.labapp:main\n"


@pytest.fixture
def notebooks(own_office: Office) -> Iterator[Notebooks]:
    """Return a laboratory whose server has these tools on the PATH of a login shell."""
    made = Notebooks(own_office)
    link = f'for tool in {" ".join(TOOLS)}; do ln -s "$(command -v $tool)" {LINKS}; done'
    own_office.server.run(["sh", "-ec", f"mkdir {LINKS}; {link}"], user="root")
    own_office.server.write(f"{HOME}/.profile", f"PATH={LINKS}; export PATH\n")
    yield made
    own_office.sshvpn("down", "--all")
    made.end()


def offer_jupyter(server: LabMachine, path: Path) -> None:
    """Let SERVER have a python3, whose pip finds a `jupyterlab` there and asks nobody else.

    It is a small wheel, made at PATH, which leads to what is installed for the tests.
    """
    name, version = "jupyterlab", "4.0"
    record = f"{name}-{version}.dist-info"
    files = {
        f"{name}-of-the-tests.pth": "\n".join((*PROJECT.libraries, "")),
        f"{record}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{record}/WHEEL": WHEEL,
        f"{record}/entry_points.txt": COMMAND,
    }
    files[f"{record}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{record}/RECORD"])
    wheel = path / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    server.run(["mkdir", WHEELS])
    server.host_path(f"{WHEELS}/{wheel.name}").write_bytes(wheel.read_bytes())
    config = f"[global]\nno-index = true\nfind-links = {WHEELS}\n"
    server.write(f"{HOME}/.config/pip/pip.conf", config)
    # The one for which that was installed; there may be others.
    interpreter = str(Path(sys.executable).resolve())
    server.run(["install", "-d", PYTHON], user="root")
    server.run(["ln", "-s", interpreter, f"{PYTHON}/python3"], user="root")
    server.sshd.restart(SetEnv=f"PATH={PYTHON}:/usr/bin:/bin")


def test_the_line_that_is_told_where_there_is_no_jupyter_installs_one(
    notebooks: Notebooks, tmp_path: Path
) -> None:
    gateway, server = notebooks.office.gateway, notebooks.server
    offer_jupyter(server, tmp_path)
    refused = notebooks.refused(1, "-b", "server")
    told = re.search(
        r"install it: (ssh server '.*'), then add (--venv \S+)$", refused, re.MULTILINE
    )
    assert told, refused
    gateway.run(["sh", "-c", told[1]], timeout=100)
    said = notebooks.run("-b", "--no-browser", *told[2].split(), "server").stdout
    assert said.startswith(
        f"Jupyter in {HOME} at server, started: {HOME}/jupyter/bin/jupyter-lab\n"
    )
    assert notebooks.status(url_in(said)) == "200"
    notebooks.run("stop", "server")


def test_a_server_without_curl_and_with_python3_in_an_environment_only(
    notebooks: Notebooks,
) -> None:
    office, server = notebooks.office, notebooks.server
    server.sshd.restart(SetEnv=f"PATH={LINKS}")
    has = office.gateway.run(
        ["ssh", "server", "command -v curl python3 bash; command -v sed"], check=False
    )
    assert has.stdout == f"{LINKS}/sed\n"
    said = notebooks.run("-b", "--no-browser", "--venv", VENV, "server").stdout
    assert said.startswith(f"Jupyter in {HOME} at server, started: {HOME}/{VENV}/bin/jupyter-lab\n")
    url = url_in(said)
    assert notebooks.execute(url, "print(6 * 7)")[0] == "42\n"
    office.sshvpn("down")
    again = notebooks.run("-b", "--no-browser", "server").stdout
    assert "it ran already" in again
    assert url_in(again) == url
    assert [one["directory"] for one in notebooks.list()] == [HOME]
    assert notebooks.run("stop", "server").stdout.endswith(
        f"Jupyter in {HOME} at server has ended\n"
    )
    assert (notebooks.list(), notebooks.servers()) == ([], {})

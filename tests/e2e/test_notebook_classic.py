"""`sshvpn notebook` at a server that has Notebook 6, or its successor nbclassic, and nothing newer.

gateway ══ssh══ server: jupyter-notebook of its own, which writes nbserver-PID.json
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.notebooks import (
    RUNTIME,
    STATE,
    Notebooks,
    bare,
    classic,
    make_venv,
    token_of,
    url_in,
)
from tests.e2e.office import HOME, Office
from tests.lab import wait_until

pytestmark = pytest.mark.lab

PLACE = f"{HOME}/classic"
PATH = 'PATH="$HOME/classic/bin:/usr/bin:/bin"; export PATH\n'
WAYS = {
    "notebook 6": ("jupyter-notebook", "nbserver", "NotebookApp"),
    "nbclassic": ("jupyter-nbclassic", "jpserver", "ServerApp"),
}


@pytest.fixture
def notebooks(office: Office) -> Iterator[Notebooks]:
    """Return the shared laboratory with these at its server, and no JupyterLab on the PATH."""
    made = Notebooks(office)
    make_venv(office.server, PLACE, packages=classic())
    office.server.write(f"{HOME}/.profile", PATH)
    yield made
    office.sshvpn("down", "--all")
    made.end()


@pytest.mark.parametrize("way", WAYS)
def test_it_is_found_started_shared_and_found_again_with_its_kernels(
    notebooks: Notebooks, way: str
) -> None:
    office, server = notebooks.office, notebooks.server
    command, record, _ = WAYS[way]
    for other in {name for name, _, _ in WAYS.values()} - {command}:
        server.run(["rm", f"{PLACE}/bin/{other}"])
    server.write(f"{HOME}/thesis/data.txt", "x")
    said = notebooks.run("-b", "--no-browser", "--lan", "--dir", "thesis", "server").stdout
    assert said.startswith(f"Jupyter in {HOME}/thesis at server, started: {PLACE}/bin/{command}\n")
    url, lan = url_in(said), url_in(said, "on the LAN")
    assert notebooks.status(url) == "200"
    assert notebooks.status(lan, office.lab.lan) == "200", "it takes the LAN's address"
    assert notebooks.status(bare(lan), office.lab.lan) == "403"
    text, kernel = notebooks.execute(lan, "import os; kept = 42; print(os.getcwd())",
                                     machine=office.lab.lan)  # fmt: skip
    assert text == f"{HOME}/thesis\n"

    listing = server.run(["ls", RUNTIME]).stdout.split()
    files = [name for name in listing if name.startswith(record)]
    assert len(files) == 2, listing
    modes = server.run(["stat", "-c", "%a", *(f"{RUNTIME}/{name}" for name in files)]).stdout
    assert modes.split() == ["600", "600"]
    token = token_of(url)
    assert token not in "\n".join(server.processes().values())
    assert server.run(["grep", "-rlF", token, STATE], check=False).stdout == ""

    office.sshvpn("down")
    again = notebooks.run("-b", "--no-browser", "--dir", "thesis", "server").stdout
    assert "it ran already" in again
    assert url_in(again) == url
    assert notebooks.execute(url, "print(kept)", kernel)[0] == "42\n"
    (listed,) = notebooks.list()
    assert (listed["directory"], listed["started_by_sshvpn"]) == (f"{HOME}/thesis", True)
    stopped = notebooks.run("stop", "server", "--dir", "thesis").stdout
    assert f"Jupyter in {HOME}/thesis at server has ended\n" in stopped
    assert notebooks.list() == []


@pytest.mark.parametrize("way", WAYS)
def test_one_that_others_have_started_is_taken_and_the_lan_needs_its_own_option(
    notebooks: Notebooks, way: str
) -> None:
    office = notebooks.office
    command, _, section = WAYS[way]
    argv = [f"{PLACE}/bin/{command}", "--no-browser", "--port=8890"]
    office.start(argv, machine=office.server, env={"JUPYTER_TOKEN": "mine"},
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    wait_until(lambda: office.server.host_path(RUNTIME).exists() and notebooks.list(), 30)
    assert notebooks.open() == "http://localhost:9999/?token=mine"
    office.sshvpn("down")
    refused = notebooks.refused(1, "-b", "--lan", "server")
    assert f"start it there with --{section}.allow_remote_access=True" in refused
    notebooks.run("stop", "server", "--dir", HOME)


def test_what_its_configuration_says_of_token_and_password_counts(notebooks: Notebooks) -> None:
    office = notebooks.office
    office.server.run(["rm", f"{PLACE}/bin/jupyter-nbclassic"])
    config = f"{HOME}/.jupyter/jupyter_notebook_config.json"
    office.server.write(config, json.dumps({"NotebookApp": {"token": "mine"}}))
    assert token_of(notebooks.open()) == "mine"
    notebooks.run("stop", "server")
    office.server.write(config, json.dumps({"NotebookApp": {"token": "", "password": ""}}))
    said = notebooks.run("-b", "--no-browser", "server")
    assert "asks for no token" in said.stderr
    rebound = ["-H", "Host: evil.example", "-o", "/dev/null", "-w", "%{http_code}"]
    assert office.fetch("http://localhost:9999/api", *rebound) == "403"
    office.sshvpn("down")
    refused = notebooks.refused(1, "-b", "--lan", "server")
    assert "on the local network everybody could run commands" in refused

"""`sshvpn notebook` where Jupyter has to be looked for, or named: `jupyter notebook`, a Python.

lan ── gateway ══ssh══ server
Chromium               Notebook 7, Notebook 6, JupyterLab
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.notebooks import VENV, Notebooks, bare, classic, make_venv, seven, url_in
from tests.e2e.office import HOME, Office
from tests.lab import wait_until
from tests.lab.visit import Browser

pytestmark = pytest.mark.lab

CELL = "import notebook; print(notebook.__version__)"


@pytest.fixture
def notebooks(office: Office) -> Iterator[Notebooks]:
    """Return the shared laboratory with a login shell at its server that finds no Jupyter."""
    made = Notebooks(office)
    office.server.write(f"{HOME}/.profile", 'PATH="$HOME/only:/usr/bin:/bin"; export PATH\n')
    yield made
    office.sshvpn("down", "--all")
    made.end()


def test_notebook_7_as_a_subcommand_of_jupyter_alone_is_found_and_shared(
    notebooks: Notebooks,
) -> None:
    office, lan = notebooks.office, notebooks.office.lab.lan
    make_venv(office.server, f"{HOME}/seven", packages=seven())
    # Only this is on the PATH, as where it was installed as an application; the rest it finds.
    links = "mkdir only && ln -s ../seven/bin/jupyter only/jupyter && mkdir thesis"
    office.server.run(["sh", "-ec", links], cwd=HOME)
    said = notebooks.run("-b", "--no-browser", "--lan", "--dir", "thesis", "server").stdout
    started = f"Jupyter in {HOME}/thesis at server, started: {HOME}/only/jupyter notebook\n"
    assert said.startswith(started)
    url = url_in(said, "on the LAN")
    assert notebooks.status(bare(url), lan) == "403"
    with Browser(lan) as browser:
        browser.open(url)
        is_open = "return document.querySelector('.jp-FileBrowser') !== null"
        wait_until(lambda: browser.script(is_open), 30, what="no page of Notebook 7", every=0.2)
        assert browser.script("return location.href").startswith(f"{bare(url)}tree")
    text, _ = notebooks.execute(url, CELL, machine=lan)
    assert text.startswith("7.")
    stopped = notebooks.run("stop", "server", "--dir", "thesis").stdout
    assert f"Jupyter in {HOME}/thesis at server has ended\n" in stopped
    assert not notebooks.servers()


def test_a_python_that_is_named_starts_what_it_has(notebooks: Notebooks) -> None:
    office = notebooks.office
    make_venv(office.server, f"{HOME}/classic", packages=classic())
    ways = {
        f"~/{VENV}/bin/python": f"{HOME}/{VENV}/bin/python -m jupyterlab",
        "classic/bin/python": f"{HOME}/classic/bin/python -m notebook",
    }
    for number, (python, command) in enumerate(ways.items()):
        place = f"{HOME}/{number}"
        office.server.write(f"{place}/data.txt", "")
        words = ("--python", python, "--lan", "--dir", str(number), "server")
        said = notebooks.run("-b", "--no-browser", *words).stdout
        assert said.startswith(f"Jupyter in {place} at server, started: {command}\n")
        assert notebooks.status(url_in(said, "on the LAN"), office.lab.lan) == "200"
    url = url_in(said)
    running = "import os, sys; print(os.getcwd(), sys.executable)"
    assert notebooks.execute(url, running)[0] == f"{place} {HOME}/classic/bin/python\n"
    notebooks.run("stop", "--all", "server")
    assert not notebooks.servers()
    refused = notebooks.refused(1, "-b", "--python", "/usr/bin/python3", "server")
    assert "there is no Jupyter in what was named at server" in refused
    assert "install it: ssh server /usr/bin/python3 -m pip install jupyterlab" in refused
    refused = notebooks.refused(1, "-b", "--python", "nowhere/python", "server")
    assert f"server has no command {HOME}/nowhere/python" in refused
    assert office.status() == []

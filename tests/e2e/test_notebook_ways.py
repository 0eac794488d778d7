"""`sshvpn notebook` where Jupyter has to be looked for: Notebook 7, by `jupyter notebook`.

lan ── gateway ══ssh══ server
Chromium               Notebook 7
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.notebooks import Notebooks, bare, make_venv, seven, url_in
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

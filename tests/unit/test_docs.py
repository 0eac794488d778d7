"""The pages, README and docs/, that repeat the code are true to it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from sshvpn import errors
from sshvpn.cli.main import load
from sshvpn.config import parse
from sshvpn.config.schema import FORWARD_KEYS, NOTEBOOK_KEYS, TUNNEL_KEYS
from sshvpn.spec import is_host, parse_forward

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*sorted(DOCS.parent.glob("*.md")), *sorted(DOCS.glob("*.md"))]
"""README and its kin, and the pages that they lead to."""


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_reference_is_what_the_code_says(generator: ModuleType) -> None:
    now = generator.reference()
    assert (DOCS / "reference.md").read_text() == now, "run: python docs/generate.py"


def test_every_exit_code_has_its_meaning_on_the_page(generator: ModuleType) -> None:
    raised = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SshvpnError)
    }
    assert set(generator.EXIT_CODES) == raised | {0, 130}


def rows(page: str, heading: str) -> list[str]:
    """Return the first column of the table below ``heading``."""
    section = page.split(f"## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_the_page_on_profiles_has_every_key() -> None:
    page = (DOCS / "configuration.md").read_text()
    assert rows(page, "A forward") == list(FORWARD_KEYS)
    assert rows(page, "A notebook") == list(NOTEBOOK_KEYS)
    assert rows(page, "A tunnel") == list(TUNNEL_KEYS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_configuration_that_is_shown_is_a_good_one(page: Path) -> None:
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        parse(text, page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def typed_lines() -> list[str]:
    """Return every `sshvpn …` that a page shows being typed."""
    return [
        line.removeprefix("$ ")
        for page in PAGES
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("$ sshvpn ")
    ]


@pytest.mark.parametrize("line", typed_lines())
def test_every_command_that_is_shown_is_one(line: str) -> None:
    """It is understood by the command line, and its HOST and SPECs by their parsers."""
    name, *words = shlex.split(line, comments=True)[1:]
    if name.startswith("-"):
        return  # of sshvpn itself
    command = load(name)
    parsed = command.make_context(name, words).params
    if name == "forward":
        typed = [word for word in parsed["words"] if not is_host(word)]
        for spec in (*typed, *parsed["local"], *parsed["remote"]):
            parse_forward(spec)


def test_the_first_page_shows_the_port_everybody_knows_and_then_the_tablet() -> None:
    port = typed_lines().index("sshvpn forward 9999:8888 --host user@example.com")
    tablet = typed_lines().index("sshvpn forward 9999:8888 --host user@example.com --lan --qr")
    assert port < tablet < 8


def test_the_top_of_the_repository_is_what_it_shall_be() -> None:
    top = DOCS.parent
    if not (top / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={top}", "ls-files"],
        cwd=top, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {path.split("/")[0] for path in listed} == {
        *("pyproject.toml", "README.md", "sshvpn", "tests", "docs", "examples", "benchmarks"),
        *("Makefile", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", ".ci", ".gitignore"),
    }

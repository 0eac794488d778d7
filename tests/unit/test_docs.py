"""The pages in docs/ that repeat the code are true to it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from sshvpn import errors
from sshvpn.config import parse
from sshvpn.config.schema import FORWARD_KEYS, NOTEBOOK_KEYS, TUNNEL_KEYS

DOCS = Path(__file__).parents[2] / "docs"


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


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_configuration_that_is_shown_is_a_good_one(page: Path) -> None:
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        parse(text, page)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"

"""The laboratory as fixtures: a fresh one for every test, compared and taken down after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.lab import Lab, Wan

_LABS = pytest.StashKey[list[Lab]]()
_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def make_lab(request: pytest.FixtureRequest) -> Iterator[Callable[..., Lab]]:
    """Build laboratories: `make_lab(wan=Wan(...))`.

    At the end of a test that passed, each must be as it was at its start (`Lab.check`).
    """
    labs: list[Lab] = []
    request.node.stash[_LABS] = labs

    def make(**options: Any) -> Lab:
        lab = Lab(**options)
        labs.append(lab)
        stack.callback(lab.close)
        return lab

    with contextlib.ExitStack() as stack:
        yield make
        if not request.node.stash.get(_FAILED, False):
            for lab in labs:
                lab.check()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Return a fresh laboratory, in about half a second; all links are fast."""
    return make_lab()


@pytest.fixture
def wan_lab(make_lab: Callable[..., Lab]) -> Callable[[Wan], Lab]:
    """Return a function that builds a laboratory with an emulated WAN link."""
    return lambda wan: make_lab(wan=wan)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show, with a test that failed, what its machines would tell."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    if report.failed and report.when == "call":
        for lab in item.stash.get(_LABS, []):
            for machine in lab.machines.values():
                with contextlib.suppress(Exception):
                    report.sections.append((f"{machine.name}", machine.story()))
    return report

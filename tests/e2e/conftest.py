"""The laboratory as fixtures: a fresh one for a test, or one that tests share.

Either is compared with what it was at the start after each test that passed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.e2e.notebooks import Notebooks
from tests.e2e.office import Office
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


@pytest.fixture(scope="module", params=["w", "stream"])
def transport(request: pytest.FixtureRequest) -> str:
    """Return a transport; what uses it runs over each."""
    return str(request.param)


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Return a fresh laboratory, in about half a second; all links are fast."""
    return make_lab()


@pytest.fixture
def wan_lab(make_lab: Callable[..., Lab]) -> Callable[[Wan], Lab]:
    """Return a function that builds a laboratory with an emulated WAN link."""
    return lambda wan: make_lab(wan=wan)


class _Shared:
    """A laboratory that tests share, made when it is wanted; a spoilt one is replaced."""

    def __init__(self) -> None:
        self.office: Office | None = None

    def get(self) -> Office:
        self.office = self.office or Office(Lab())
        return self.office

    def close(self) -> None:
        if self.office is not None:
            self.office.lab.close()
        self.office = None


@pytest.fixture(scope="session")
def _shared() -> Iterator[_Shared]:
    shared = _Shared()
    yield shared
    shared.close()


@pytest.fixture
def office(request: pytest.FixtureRequest, _shared: _Shared) -> Iterator[Office]:
    """Return the shared laboratory, for a test that leaves accounts, agents and sshd alone."""
    office = _shared.get()
    request.node.stash[_LABS] = [office.lab]
    yield office
    if request.node.stash.get(_FAILED, False):
        _shared.close()
        return
    try:
        office.lab.check()
        office.clean()
    except BaseException:
        _shared.close()
        raise


class _Standing:
    """A laboratory with a Jupyter that sshvpn has started, and that goes on; made as `_Shared`."""

    def __init__(self) -> None:
        self.notebooks: Notebooks | None = None

    def get(self) -> Notebooks:
        if self.notebooks is None:
            self.notebooks = Notebooks(Office(Lab()))
            self.notebooks.open()
            self.notebooks.office.sshvpn("down")
            self.notebooks.office.lab.checkpoint()
        return self.notebooks

    def close(self) -> None:
        if self.notebooks is not None:
            self.notebooks.end()
            self.notebooks.office.lab.close()
        self.notebooks = None


@pytest.fixture(scope="session")
def _standing() -> Iterator[_Standing]:
    standing = _Standing()
    yield standing
    standing.close()


@pytest.fixture
def running(request: pytest.FixtureRequest, _standing: _Standing) -> Iterator[Notebooks]:
    """Return a shared laboratory where Jupyter runs already, for a test that only uses it.

    It was started without --lan, and nothing leads to it.
    """
    notebooks = _standing.get()
    lab = notebooks.office.lab
    request.node.stash[_LABS] = [lab]
    yield notebooks
    if request.node.stash.get(_FAILED, False):
        _standing.close()
        return
    try:
        notebooks.office.sshvpn("down", "--all")
        notebooks.end_kernels()
        notebooks.close_pages()
        lab.check()
        notebooks.office.clean()
    except BaseException:
        _standing.close()
        raise


@pytest.fixture
def own_office(lab: Lab) -> Office:
    """Return a fresh laboratory, for a test that changes what `office` shares."""
    return Office(lab)


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


@pytest.fixture(params=["openssh", "sshtunnel"])
def engine(request: pytest.FixtureRequest) -> str:
    """Return the name of each engine in turn."""
    return str(request.param)

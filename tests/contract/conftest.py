"""Fixtures of the contract tests."""

from __future__ import annotations

import asyncio
import inspect
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sshvpn.boundary import ForwardEngine
from sshvpn.system.openssh.engine import OpensshEngine
from sshvpn.system.sshtunnel.engine import SshtunnelEngine
from tests.contract.gateway import Driver
from tests.contract.netns import Namespace, may_make_namespaces
from tests.contract.site import Site
from tests.contract.sshd import Sshd, has_sshd
from tests.lab import LabMachine

ENGINES: dict[str, Callable[[], ForwardEngine]] = {
    "openssh": OpensshEngine,
    "sshtunnel": SshtunnelEngine,
}
TEST_TIMEOUT_S = 90.0
MANY_FILES = 8192


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_TIMEOUT_S))
    return True


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> ForwardEngine:
    """Give the engine under test; every test that uses it runs over both."""
    return ENGINES[request.param]()


@pytest.fixture
def other_engine(engine: ForwardEngine) -> str:
    """Give the name of the engine that is not under test."""
    return next(name for name in ENGINES if name != engine.name)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """Run a real sshd on loopback, which ends with the test."""
    if not has_sshd():
        if os.environ.get("CI"):
            pytest.fail("the contract of the engines needs openssh-server")
        pytest.skip("needs openssh-server")
    directory = tmp_path / "sshd"
    directory.mkdir()
    server = Sshd(directory, {})
    server.start()
    yield server
    server.close()


@pytest.fixture
def site(tmp_path: Path, engine: ForwardEngine, sshd: Sshd) -> Site:
    """Make a user with a key that the server takes, and the engine under test."""
    made = Site(tmp_path, engine, sshd)
    sshd.authorize(made.key)
    return made


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process (and what it starts) open more files than select() can see."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY_FILES:
        pytest.skip(f"this user may not open {MANY_FILES} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY_FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def namespace() -> Iterator[Callable[[], Namespace]]:
    """Make network namespaces that end with the test."""
    if not may_make_namespaces():
        if os.environ.get("CI"):
            pytest.fail("network namespaces need root")
        pytest.skip("network namespaces need root")
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace())
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def driver(gateway: LabMachine) -> Iterator[Callable[..., Driver]]:
    """Start clients on the module's `gateway`, each with a privileged helper of its own."""
    made: list[Driver] = []

    def make(user: str = "alice", **words: str | None) -> Driver:
        made.append(Driver(gateway, user, **words))
        return made[-1]

    yield make
    for one in made:
        one.end()

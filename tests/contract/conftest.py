"""Fixtures of the contract tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.contract.netns import Namespace, may_make_namespaces


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

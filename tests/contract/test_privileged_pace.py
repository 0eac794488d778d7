"""The helper paces a TCP socket that is handed to it, and takes nothing else for one.

On the kernels that this runs on bbr is everybody's, or cubic: the other one is root's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.contract.gateway import Driver, Refused, make_gateway
from tests.lab import LabMachine

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def gateway() -> Iterator[LabMachine]:
    machine = make_gateway()
    yield machine
    machine.close()


@pytest.fixture
def client(driver: Callable[..., Driver]) -> Iterator[Driver]:
    made = driver("alice")
    made.open()
    yield made
    made.close()


def open_in_helper(gateway: LabMachine, client: Driver) -> int:
    """Return how many descriptors the helper has open."""
    return len(list(gateway.host_path(f"/proc/{client.pid}/fd").iterdir()))


def test_what_the_kernel_keeps_to_root_is_to_be_had(client: Driver) -> None:
    by_helper = {name: client.pace("tcp", name) for name in ("bbr", "cubic")}
    for name, told in by_helper.items():
        assert told["by"] == name
    assert [told["alone"] for told in by_helper.values()].count("EPERM") == 1
    assert client.pace("tcp6", "bbr")["by"] == "bbr"


@pytest.mark.parametrize(
    ("kind", "by"),
    [
        ("tcp", "reno"), ("tcp", ""), ("tcp", None), ("tcp", ["bbr"]), ("udp", "bbr"),
        ("unix", "bbr"), ("file", "bbr"), ("none", "bbr"), ("two", "bbr"),
    ],
)  # fmt: skip
def test_nothing_else_is_taken(gateway: LabMachine, client: Driver, kind: str, by: object) -> None:
    with pytest.raises(Refused):  # once it answers it has loaded all that it needs
        client.pace("none", "bbr")
    before = open_in_helper(gateway, client)
    with pytest.raises(Refused):
        client.pace(kind, by)
    assert open_in_helper(gateway, client) == before, "the helper keeps what it is handed"


def test_descriptors_that_nobody_asked_for_are_closed(gateway: LabMachine, client: Driver) -> None:
    client.facts_with_files()  # all that the first question needs is there
    before = open_in_helper(gateway, client)
    for _ in range(20):
        client.facts_with_files()
    assert open_in_helper(gateway, client) == before

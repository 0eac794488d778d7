"""Whether anybody answers on a long way, asked on the laboratory's gateway."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import pytest

from tests.contract.prober_site import firewall
from tests.lab import Lab, Wan, wait_until

pytestmark = pytest.mark.lab

PORT = 2200
WAIT = """
import asyncio, json, sys
from sshvpn.model import Destination, SshOptions
from sshvpn.system.network.way import SystemWay

where = Destination(sys.argv[1], port=int(sys.argv[2])), SshOptions("/dev/null")

async def main():
    print(json.dumps(await SystemWay(lambda: where).wait_open()))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.server.tcp_server(PORT, made.server.address)
        yield made


def words(lab: Lab) -> list[str]:
    return [sys.executable, "-c", WAIT, lab.server.address, str(PORT)]


@pytest.mark.parametrize("delay_ms", [0, 350, 700])
def test_who_answers_late_was_there_all_along(lab: Lab, delay_ms: float) -> None:
    """By satellite the first answer comes after the second knock, or after the kernel's repeat."""
    lab.shape(Wan(delay_ms=delay_ms))
    try:
        # The next hop is asked for its hardware address by satellite, too, which is no SYN's time.
        lab.gateway.run(["ping", "-nc1", "-W5", lab.server.address], user="root")
        assert json.loads(lab.gateway.run(words(lab)).stdout) is False
    finally:
        lab.shape(Wan())


def test_a_way_back_that_was_silent_is_open_again(lab: Lab) -> None:
    """The first knock has arrived, and is answered once more when the way back is open."""
    with firewall(lab.gateway, "input", f"tcp sport {PORT} drop"):
        child = lab.gateway.popen(words(lab))
        asked = ["ss", "-Htn", "state", "syn-sent", f"dport = :{PORT}"]
        wait_until(lambda: lab.gateway.run(asked).stdout, every=0.01)
        time.sleep(0.6)
        assert child.poll() is None
    assert json.loads(child.communicate(timeout=2)[0]) is True

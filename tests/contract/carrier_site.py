"""The laboratory for the carriers of packets: devices on the gateway, and alice's carriers there.

gateway (alice, sshvpn0, sshvpn1) ═══ ssh -w ═══ server (sshd permits tunnels)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sshvpn.plan import marks
from tests.contract.gateway import machine_python
from tests.lab import Lab, LabMachine
from tests.lab.machine import CHECKOUT
from tests.lab.process import read_line

HOSTS = "/home/alice/hosts.json"
BOBS_TUN = "tun8"


class Refused(Exception):  # noqa: N818 (a word of the answer)
    """The error that the carrier or its connection had."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer['message']} [{answer['hint']}]")
        self.code: str = answer["error"]
        self.kind: str = answer["kind"]
        self.message: str = answer["message"]
        self.hint: str = answer["hint"]
        self.exit_code: int = answer["exit"]
        self.retry: str = answer["retry"]


class Carrier:
    """One carrier in a process of alice's on the gateway; its methods are those of the driver."""

    def __init__(
        self, machine: LabMachine, directory: str, transport: str, **timings: float
    ) -> None:
        self._child = machine.popen(
            machine_python("-m", "tests.contract.carrier_driver"),
            user="alice",
            env={"PYTHONPATH": str(CHECKOUT)},
            cwd=str(CHECKOUT),
            stdin=-1,
        )
        self._say({"directory": directory, "hosts": HOSTS, "transport": transport, **timings})

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *words, **more: self._say({"do": name, "words": words, **more})

    def _say(self, record: object) -> Any:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(record) + "\n")
        self._child.stdin.flush()
        line = read_line(self._child, 70)
        if not line:
            raise AssertionError(self._child.communicate()[1])
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Refused(answer)
        return answer["result"]

    def refused(self, what: str, *words: object, **more: object) -> Refused:
        """Return the error that it answers with."""
        with pytest.raises(Refused) as caught:
            getattr(self, what)(*words, **more)
        return caught.value

    def kill(self) -> None:
        """Kill it with -9, and it alone."""
        self._child.kill()
        self._child.wait(10)

    def stop(self) -> str:
        """End it, and return what it had to say on stderr."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.stdin = None
        said = str(self._child.communicate(timeout=20)[1])
        self._child.end()
        return said

    def end(self) -> None:
        """Kill all of it."""
        self._child.end()


def make_device(machine: LabMachine, unit: int, user: str = "alice") -> str:
    """Make the local device as the privileged helper does, with the name that ssh looks for."""
    name = marks.device_name(unit)
    machine.ip("tuntap", "add", "dev", name, "mode", "tun", "user", user)
    machine.ip("link", "property", "add", "dev", name, "altname", marks.ssh_device_name(unit))
    machine.ip("link", "set", "dev", name, "up")
    return name


def give_bob_a_tun(lab: Lab) -> None:
    """Do on the server what docs/server.md tells its administrator to type for bob."""
    lab.server.ip("tuntap", "add", "dev", BOBS_TUN, "mode", "tun", "user", "bob")
    lab.server.ip("address", "add", "10.83.0.2/30", "dev", BOBS_TUN)
    lab.server.ip("link", "set", "dev", BOBS_TUN, "mtu", "16380", "up")


def pings(machine: LabMachine, address: str) -> bool:
    run = machine.run(["ping", "-c1", "-W1", address], check=False)
    return run.returncode == 0


def use(lab: Lab, unit: int = 0) -> None:
    """Give the gateway's end its address."""
    name = marks.device_name(unit)
    lab.gateway.ip("address", "replace", "10.83.0.1/30", "dev", name)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Build a laboratory whose server permits tunnels; alice on the gateway has devices."""
    with Lab() as made:
        made.server.sshd.restart(PermitTunnel="point-to-point")
        made.checkpoint()
        for unit in (0, 1):
            make_device(made.gateway, unit)
        yield made
        for unit in (0, 1):
            made.gateway.ip("link", "delete", marks.device_name(unit))
        made.check()


@pytest.fixture(params=["w", "stream"])
def transport(request: pytest.FixtureRequest) -> str:
    """Return what carries the packets; a test of one of them alone says so (`only_w`)."""
    return str(request.param)


only_w = pytest.mark.parametrize("transport", ["w"])


@pytest.fixture
def carrier(lab: Lab, transport: str) -> Iterator[Callable[..., Carrier]]:
    """Start carriers on the gateway."""
    made: list[Carrier] = []

    def make(**timings: float) -> Carrier:
        directory = f"/home/alice/private{len(made)}"
        made.append(Carrier(lab.gateway, directory, transport, **timings))
        return made[-1]

    yield make
    for one in made:
        one.end()

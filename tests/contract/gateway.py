"""A machine with two adapters and things of others in its kernel, and the helper at work in it.

::

    lan0 192.168.77.1/24, fd77::1/64        wan0 203.0.113.10/24, 2001:db8:113::10/64, default
    a foreign route, rule, table and chain; net.ipv4.conf.wan0.rp_filter strict
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sshvpn.plan import marks
from sshvpn.plan.codec import from_record, to_record
from sshvpn.plan.desired import desired
from sshvpn.plan.request import (
    BypassMark,
    BypassUser,
    Facts,
    TunnelAddresses,
    TunnelPlan,
)
from sshvpn.plan.state import Appearance, Gate, Lan, NetworkState, Published
from sshvpn.plan.steps import Step
from tests.lab import ALICE_PASSWORD, LabMachine
from tests.lab.machine import CHECKOUT
from tests.lab.process import read_line

ALICE = marks.label_of(1000, "office")
FOREIGN_PREFIX = "10.66.0.0/16"
"""Somebody has unreachable routes to it at the metrics of our units 0 to 3."""

_SETUP = f"""
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up
ip link add lan0 address 02:00:00:00:00:01 type veth peer name lan0-peer address 02:00:00:00:00:02
ip link add wan0 address 02:00:00:00:00:03 type veth peer name wan0-peer address 02:00:00:00:00:04
for adapter in lan0 lan0-peer wan0 wan0-peer; do ip link set $adapter up; done
ip address add 192.168.77.1/24 dev lan0
ip address add fd77::1/64 dev lan0 nodad
ip address add 203.0.113.10/24 dev wan0
ip address add 2001:db8:113::10/64 dev wan0 nodad
ip route add default via 203.0.113.1
ip -6 route add default via 2001:db8:113::1 dev wan0
ip route add 10.77.0.0/16 via 192.168.77.9
for metric in 51 52 53 54; do
  ip route add unreachable {FOREIGN_PREFIX} metric $metric
done
ip rule add from 192.0.2.0/24 lookup 77 priority 5250
ip neigh add proxy 192.168.77.200 dev lan0
sysctl -qw net/ipv4/conf/wan0/rp_filter=1
nft -f - <<'EOF'
table inet theirs {{
    chain forward {{ type filter hook forward priority 0; policy accept; tcp dport 25 drop; }}
}}
EOF
iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
ip6tables -P FORWARD DROP
"""


def make_gateway(setup: str = "") -> LabMachine:
    """Return a machine that stands; the caller closes it."""
    machine = LabMachine("gateway")
    machine.ready()
    machine.run(["sh", "-ec", _SETUP + setup], user="root")
    machine.write("/home/alice/askpass", f"#!/bin/sh\necho {ALICE_PASSWORD}\n", mode=0o700)
    machine.write("/home/alice/wrong", "#!/bin/sh\necho wrong\n", mode=0o700)
    return machine


class Refused(Exception):  # noqa: N818 (a word of the answer)
    """What the helper or its client said; ``code`` is that of the error."""

    def __init__(self, answer: Mapping[str, str]) -> None:
        super().__init__(answer["message"])
        self.code, self.hint = answer["error"], answer["hint"]


class Driver:
    """The client in the machine. ``user`` is the supervisor's; alice gives sudo her password."""

    def __init__(
        self, machine: LabMachine, user: str = "alice", *, askpass: str | None = "askpass"
    ) -> None:
        env = {"PYTHONPATH": str(CHECKOUT)}
        if user != "root" and askpass is not None:
            env["SUDO_ASKPASS"] = f"/home/alice/{askpass}"
        self._child = machine.popen(
            machine_python("-m", "tests.contract.privileged_driver"),
            user=user,
            env=env,
            cwd=str(CHECKOUT),
            stdin=-1,
        )
        try:
            self.pid = self._say({})["pid"]
        except BaseException:
            self.end()
            raise

    def _say(self, record: object) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(record) + "\n")
        self._child.stdin.flush()
        line = read_line(self._child, 30)
        if not line:
            raise AssertionError(self._child.communicate()[1])
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Refused(answer)
        return answer

    def _do(self, what: str, **words: object) -> Any:
        return self._say({"do": what, **words})["result"]

    def open(self, label: str = ALICE, unit: int | None = None) -> int:
        return int(self._do("open", label=label, unit=unit))

    def look(self, label: str = ALICE) -> int:
        return int(self._do("look", label=label))

    def facts(self) -> Facts:
        found: Facts = from_record(Facts, self._do("facts"))
        return found

    def read(self) -> NetworkState:
        found: NetworkState = from_record(NetworkState, self._do("read"))
        return found

    def apply(self, steps: Sequence[Step]) -> None:
        self._do("apply", steps=[to_record(step) for step in steps])

    def sweep(self) -> Any:
        return self._do("sweep")

    def pace(self, kind: str, by: object) -> dict[str, str]:
        """Hand over descriptors of KIND to be paced by BY; return what paces them then."""
        return dict(self._do("pace_one", kind=kind, by=by))

    def facts_with_files(self) -> None:
        """Ask for the facts, with descriptors that nobody asked for."""
        self._do("facts_with_files")

    def raw(self, line: str) -> Any:
        return self._do("raw", line=line)

    def close(self) -> Any:
        return self._do("close")

    def kill(self) -> None:
        """Kill the client with -9, and it alone."""
        self._child.kill()
        self._child.wait(10)

    def end(self) -> None:
        self._child.end()


def machine_python(*words: str) -> list[str]:
    import sys

    return [sys.executable, *words]


def full_plan(unit: int, label: str = ALICE, **changes: Any) -> TunnelPlan:
    """Return a plan that wants something of every kind."""
    owner = marks.owner_of(label)
    words: dict[str, Any] = {
        "label": label,
        "unit": unit,
        "owner": owner,
        "mtu": 16380,
        "addresses": TunnelAddresses(
            f"100.64.{unit}.1/30",
            f"100.64.{unit}.2/30",
            f"fd5a:{unit + 1:x}::1/126",
            f"fd5a:{unit + 1:x}::2/126",
        ),
        "gate": Gate.OPEN,
        "routes": (f"10.{20 + unit}.0.0/16", f"fd20:{unit + 1:x}::/48"),
        "exclude": (f"10.{20 + unit}.9.0/24",),
        "has_default": True,
        "reaches_ipv6": True,
        "bypass": BypassMark(0x5353) if owner == 0 else BypassUser(owner),
        "lans": (Lan("lan0", "192.168.77.0/24"), Lan("lan0", "fd77::/64")),
        "published": (
            Published("192.168.77.1", 8888, f"100.64.{unit}.2", 8888),
            Published("fd77::1", 8888, f"fd5a:{unit + 1:x}::2", 8888),
        ),
        "appearances": (
            Appearance("lan0", f"192.168.77.{50 + unit}", f"100.64.{unit}.2"),
            Appearance("lan0", f"fd77::{0x50 + unit:x}", f"fd5a:{unit + 1:x}::2"),
        ),
    }
    return TunnelPlan(**{**words, **changes})


def full_state(driver: Driver, unit: int, label: str = ALICE, **changes: Any) -> NetworkState:
    return desired(full_plan(unit, label, **changes), driver.facts())

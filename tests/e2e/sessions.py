"""What alice's sessions say of themselves, without a process for each look.

A test that waits looks often, and `sshvpn status` is two processes that load Python: several tests
at once would have the machine do little else.
"""

from __future__ import annotations

from typing import Any, Final

from sshvpn import control
from tests.lab import LabMachine
from tests.lab.contents import ALICE

RUNTIME: Final = f"/run/user/{ALICE.uid}/sshvpn"
RUNTIMES: Final = (RUNTIME, f"/tmp/sshvpn-{ALICE.uid}")  # noqa: S108 -- in the machine
"""Where her sessions are, with and without a login of systemd's."""


def records(machine: LabMachine, kind: str) -> list[dict[str, Any]]:
    """Return the records of KIND, "tunnel" or "forward", as `sshvpn status --json` has them."""
    found = control.snapshots(machine.host_path(path) for path in RUNTIMES)
    told = sorted(found.values(), key=lambda said: (said["name"], said["wanted"]))
    return [record for said in told if said["kind"] == kind for record in said["records"]]

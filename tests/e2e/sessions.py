"""What alice's sessions say of themselves, without a process for each look.

A test that waits looks often, and `sshvpn status` is two processes that load Python: several tests
at once would have the machine do little else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sshvpn import control
from tests.lab import LabMachine
from tests.lab.contents import ALICE

RUNTIME: Final = f"/run/user/{ALICE.uid}/sshvpn"
RUNTIMES: Final = (RUNTIME, f"/tmp/sshvpn-{ALICE.uid}")  # noqa: S108 -- in the machine
"""Where her sessions are, with and without a login of systemd's."""


def records(machine: LabMachine, kind: str) -> list[dict[str, Any]]:
    """Return the records of KIND, "tunnel" or "forward", as `sshvpn status --json` has them."""
    found = [said for path in control.session_dirs(map(machine.host_path, RUNTIMES))
             if (said := _snapshot(path)) is not None]  # fmt: skip
    found.sort(key=lambda said: (said["name"], said["wanted"]))
    return [record for said in found if said["kind"] == kind for record in said["records"]]


def _snapshot(directory: Path) -> dict[str, Any] | None:
    """Ask one session, and return when it has let go of who asked: descriptors may be counted."""
    try:
        client = control.Client.connect(directory)
    except OSError:
        return None
    try:
        client.send({"cmd": "status"})
        reply = client.receive()
        client.wait_end(1.0)
    except OSError:
        return None
    finally:
        client.close()
    return None if reply is None else reply.get("snapshot")

"""Uses the privileged helper inside a machine of the laboratory, as a line of JSON says each.

Run as `python -m tests.contract.privileged_driver`, by whoever shall be the supervisor.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from sshvpn.errors import SshvpnError
from sshvpn.plan.codec import step_from_record, to_record
from sshvpn.system.privilege import Helper


def do(helper: Helper, request: dict[str, Any]) -> object:
    what = request.pop("do")
    if what in ("facts", "read"):
        return to_record(getattr(helper, what)())
    if what == "apply":
        helper.apply([step_from_record(record) for record in request["steps"]])
        return None
    if what == "raw":
        # Past everything that the client would check itself.
        helper._peer.sendall(request["line"].encode() + b"\n")
        return json.loads(helper._lines.readline() or b"null")
    return getattr(helper, what)(**request)


def main() -> None:
    try:
        helper = Helper.start(**json.loads(sys.stdin.readline()))
    except SshvpnError as error:
        say({"error": error.code, "message": str(error), "hint": error.hint})
        return
    say({"pid": helper.pid})
    for line in sys.stdin:
        try:
            say({"result": do(helper, json.loads(line))})
        except SshvpnError as error:  # noqa: PERF203 (each line has its answer)
            say({"error": error.code, "message": str(error), "hint": error.hint})


def say(record: object) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

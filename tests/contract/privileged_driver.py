"""Uses the privileged helper inside a machine of the laboratory, as a line of JSON says each.

Run as `python -m tests.contract.privileged_driver`, by whoever shall be the supervisor.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from sshvpn.errors import SshvpnError
from sshvpn.plan.codec import step_from_record, to_record
from sshvpn.system.privilege.helper import Helper


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
    if what == "pace_one":
        return pace_one(helper, **request)
    if what == "facts_with_files":
        send(helper, '{"op": "facts"}', os.open("/dev/null", os.O_RDONLY), os.dup(0))
        return None
    return getattr(helper, what)(**request)


def pace_one(helper: Helper, kind: str, by: object) -> dict[str, str]:
    """Hand over what KIND says as the socket to be paced, past what the client would check."""
    made: dict[str, list[Any]] = {
        "tcp": [socket.socket()],
        "tcp6": [socket.socket(socket.AF_INET6)],
        "udp": [socket.socket(type=socket.SOCK_DGRAM)],
        "unix": [socket.socket(socket.AF_UNIX)],
        "two": [socket.socket(), socket.socket()],
        "file": [Path("/dev/null").open()],  # noqa: SIM115 (this process ends)
        "none": [],
    }
    socks = made[kind]
    alone = ""
    if kind == "tcp" and isinstance(by, str):
        try:
            socks[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, by.encode())
        except OSError as error:
            alone = errno.errorcode[error.errno or 0]
    request = json.dumps({"op": "pace", "by": by})
    send(helper, request, *(os.dup(sock.fileno()) for sock in socks))
    name = socks[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return {"alone": alone, "by": name.rstrip(b"\0").decode()}


def send(helper: Helper, line: str, *descriptors: int) -> None:
    """Send LINE with DESCRIPTORS, which are closed; raises what the helper refuses."""
    socket.send_fds(helper._peer, [line.encode() + b"\n"], descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    helper._receive()


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

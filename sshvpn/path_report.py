"""What is told of the TCP connection under SSH: in ``status --json``, and in the log; pure."""

from __future__ import annotations

import logging
from typing import Any

from sshvpn.model import TcpPath

log = logging.getLogger("sshvpn.path")

DETAIL = logging.INFO + 1
"""The level of what is for the log, and no event to who looks on."""
logging.addLevelName(DETAIL, "DETAIL")

_UNKNOWN = "unknown"


def path_record(path: TcpPath | None) -> dict[str, Any]:
    """Return ``congestion_control`` of ``status --json``; None: nothing is known yet."""
    known = path or TcpPath()
    return {
        "local": known.local or _UNKNOWN,
        "remote": known.remote or _UNKNOWN,
        "notes": list(known.notes),
    }


def tell_path(path: TcpPath, before: TcpPath | None) -> None:
    """Log what paces a connection, unless it is as it was told ``before``."""
    if path == before:
        return
    known = path_record(path)
    ends = (known["local"], known["remote"])
    log.log(DETAIL, "congestion control: %s here, %s at the server", *ends)
    for note in path.notes:
        log.log(DETAIL, "congestion control: %s", note)

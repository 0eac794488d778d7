"""The entry of what installs services: ``python -I -S …/privileged/install.py``, as root, by sudo.

As the helper's (main.py): its standard input is a unix socket, and it takes no words, no
environment but the user for whom it acts, and no file of that user. It lives for one command.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys

_ROOM = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 (as main.py)
_LONGEST_LINE = 1 << 17


def main() -> int:
    """Serve the socket until it ends, and return the exit code."""
    # -I keeps the directory of this file, and all that the caller says, off the path.
    home = os.path.dirname(os.path.dirname(_ROOM))  # noqa: PTH120
    sys.path.append(home)
    from sshvpn.privileged import main as helper

    actor = helper.actor_of_caller()
    if not stat.S_ISSOCK(os.fstat(0).st_mode) or os.geteuid() != 0 or actor is None:
        sys.stderr.write("sshvpn: this is a part of sshvpn, which starts it\n")
        return 2
    # Ctrl-C at the caller's terminal is the caller's business: the socket's end says enough.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    helper.seclude()
    helper.greet(f'"ok": true, "hello": 1, "actor": {actor}, "pid": {os.getpid()}')
    with socket.socket(fileno=helper.PEER) as peer:
        _serve(peer, actor)
    return 0


def _serve(peer: socket.socket, actor: int) -> None:
    from sshvpn.errors import SshvpnError
    from sshvpn.privileged.server import refusal
    from sshvpn.privileged.services import ServiceInstaller

    # The interpreter of this process, isolated as it is: what a unit runs is what was installed.
    installer = ServiceInstaller(actor, (sys.executable, "-I", "-m", "sshvpn"))
    try:
        with peer.makefile("rwb") as lines:
            while (line := lines.readline(_LONGEST_LINE)).endswith(b"\n"):
                try:
                    request = json.loads(line)
                    answer = {"ok": True, **installer.operations[request["op"]](request)}
                except SshvpnError as error:
                    answer = refusal(error.code, str(error), error.hint)
                except Exception as error:  # noqa: BLE001 (what was begun must be undone)
                    answer = refusal("failed", f"refused: {type(error).__name__}: {error}")
                lines.write(json.dumps(answer).encode() + b"\n")
                lines.flush()
    except OSError:  # the client is gone
        pass
    finally:
        installer.undo()


if __name__ == "__main__":
    sys.exit(main())

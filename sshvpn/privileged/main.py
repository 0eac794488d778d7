"""The privileged helper's entry: ``python -I …/privileged/main.py``, as root, by sudo.

Its standard input is a unix socket, over which the tunnel's supervisor sends typed steps. It
takes no words, no environment but the user for whom it acts, and no file of that user.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from pathlib import Path
from types import FrameType

_OK, _FAILED, _USAGE = 0, 1, 2


def main() -> int:
    """Serve the socket until it ends, and return the exit code."""
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        _say("this is a part of sshvpn, which starts it; see: sshvpn --help")
        return _USAGE
    actor = _actor()
    if os.geteuid() != 0 or actor is None:
        _say("must be started by sudo")
        return _USAGE
    peer = socket.socket(fileno=os.dup(0))
    if os.fork():
        # sudo ends with this one: no process with all of root's power lives as long as a tunnel.
        os._exit(_OK)
    os.setsid()
    _seclude()
    # -I keeps the directory of this file, and all that the caller says, off the path.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from sshvpn.errors import SshvpnError

    try:
        _serve(peer, actor)
    except SshvpnError as error:
        _say(str(error))
        return _FAILED
    return _OK


def _actor() -> int | None:
    """Return the user for whom this acts: whoever called sudo, else root."""
    text = os.environ.get("SUDO_UID", "0")
    return (
        int(text)
        if text.isascii() and text.isdecimal() and len(text) <= len("4294967295")
        else None
    )


def _seclude() -> None:
    """Leave the caller's descriptors, directory, environment, signals and terminal."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.chdir("/")
    os.umask(0o077)
    os.environ.clear()
    os.environ.update({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"})
    # Ctrl-C at the caller's terminal is the caller's business: the socket's end says enough.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def _serve(peer: socket.socket, actor: int) -> None:
    from sshvpn.privileged import capabilities, firewall
    from sshvpn.privileged.kernel import Kernel
    from sshvpn.privileged.server import HelperServer
    from sshvpn.privileged.units import Units, state_directory

    directory = state_directory()
    kept = {capabilities.NET_ADMIN}
    if firewall.is_iptables_legacy():
        kept.add(capabilities.NET_RAW)
    capabilities.keep_only(kept)
    kernel = Kernel(directory)

    def end(_: int, __: FrameType | None) -> None:
        # As if the client had gone: what is being done is finished, then all is torn down.
        peer.shutdown(socket.SHUT_RD)

    signal.signal(signal.SIGTERM, end)
    _quiet()
    HelperServer(peer, actor, kernel, Units(directory)).serve()
    kernel.close()


def _quiet() -> None:
    # From here on the socket tells everything; whoever read the errors may close them.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)


def _say(text: str) -> None:
    sys.stderr.write(f"sshvpn helper: {text}\n")


if __name__ == "__main__":
    sys.exit(main())

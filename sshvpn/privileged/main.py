"""The privileged helper's entry: ``python -I -S …/privileged/main.py``, as root, by sudo.

Its standard input is a unix socket, over which the tunnel's supervisor sends typed steps. It
takes no words, no environment but the user for whom it acts, and no file of that user.

::

    sudo ── main, root ── fork ── a session of its own ── few capabilities ── hello ── serves
                 └── ends, and sudo with it

What greets the supervisor is little and quick; the rest is loaded while that goes on.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from types import FrameType

_OK, _FAILED, _USAGE = 0, 1, 2
PEER = 3
_ROOM = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 (pathlib takes 5 ms)


def main() -> int:
    """Serve the socket until it ends, and return the exit code."""
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        _say("this is a part of sshvpn, which starts it; see: sshvpn --help")
        return _USAGE
    actor = actor_of_caller()
    if os.geteuid() != 0 or actor is None:
        _say("must be started by sudo")
        return _USAGE
    _leave_starter()
    seclude()
    # -I keeps the directory of this file, and all that the caller says, off the path; -S what
    # other packages want to be run at each start.
    sys.path.append(os.path.dirname(os.path.dirname(_ROOM)))  # noqa: PTH120
    from sshvpn.privileged import capabilities

    try:
        capabilities.keep_only(capabilities.needed())
    except OSError as error:
        told = f'"code": "privilege", "message": "{error.strerror}", "hint": ""'
        greet(f'"ok": false, "error": {{{told}}}')
        return _FAILED
    greet(f'"ok": true, "hello": 1, "actor": {actor}, "pid": {os.getpid()}')
    return _serve(actor)


def greet(words: str) -> None:
    """Send the first line, ``{WORDS}``."""
    # A line of JSON, made without the library, which would take a third of the time to here.
    os.write(PEER, f"{{{words}}}\n".encode())


def actor_of_caller() -> int | None:
    """Return the user for whom this acts: whoever called sudo, else root."""
    text = os.environ.get("SUDO_UID", "0")
    return (
        int(text)
        if text.isascii() and text.isdecimal() and len(text) <= len("4294967295")
        else None
    )


def _leave_starter() -> None:
    """Go on in a process that sudo and its terminal know nothing of, in a session of its own.

    So no process with all of root's power lives as long as a tunnel. The first one ends only
    when the other has left: sudo hangs up on what its command leaves behind (use_pty).
    """
    # Ctrl-C at the caller's terminal is the caller's business: the socket's end says enough.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.read(reader, 1)
        os._exit(_OK)
    os.setsid()
    os.close(reader)
    os.close(writer)


def seclude() -> None:
    """Leave the caller's descriptors, directory and environment; keep the socket."""
    os.dup2(0, PEER, inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    # Errors too: from here on the socket tells everything.
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(PEER + 1, max(null + 1, 256))
    os.chdir("/")
    os.umask(0o077)
    os.environ.clear()
    os.environ.update({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"})


def _serve(actor: int) -> int:
    import site
    import socket

    site.main()  # what -S left out: where the libraries are
    from sshvpn.privileged import imports

    imports.leave_out_unused()
    from sshvpn.errors import SshvpnError
    from sshvpn.privileged.kernel import Kernel
    from sshvpn.privileged.server import HelperServer, refuse
    from sshvpn.privileged.units import Units, state_directory

    peer = socket.socket(fileno=PEER)
    try:
        directory = state_directory()
    except SshvpnError as error:
        refuse(peer, error)
        return _FAILED
    kernel = Kernel(directory)

    def end(_: int, __: FrameType | None) -> None:
        # As if the client had gone: what is being done is finished, then all is torn down.
        peer.shutdown(socket.SHUT_RD)

    signal.signal(signal.SIGTERM, end)
    HelperServer(peer, actor, kernel, Units(directory)).serve()
    kernel.close()
    return _OK


def _say(text: str) -> None:
    sys.stderr.write(f"sshvpn helper: {text}\n")


if __name__ == "__main__":
    sys.exit(main())

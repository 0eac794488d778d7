"""The guard of a tunnel: it sweeps where a helper was killed, which cannot do so itself.

::

    helper ──────┐
                 ╞══ socket ══ guard: a shell, root, with the helper's capabilities
    supervisor ──┘                └── when nobody holds the socket: this file, as a program

A helper that ends in good order dismisses it with a line. One that was killed says nothing: then
the supervisor still holds the socket, and has the time to start another helper, which takes over
what stands; where it cannot it lets the guard begin, and hears when that is done. A shell, since it
does nothing else, and a tenth of an interpreter's memory is enough for that.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

SWEPT = "swept"
"""The last line of a guard that has tried all; before it, what could not be removed."""
_WAIT = 'read -r _ || exec "$@"'
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_END_TIMEOUT_S = 5.0


class Guard:
    """The guard of the tunnel ``label``, started."""

    def __init__(self, label: str) -> None:
        """Start it. Raises OSError."""
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        program = [sys.executable, "-I", "-S", os.path.realpath(__file__), label]
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WAIT, "sshvpn-guard", *program],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                env=_ENVIRONMENT,
                cwd="/",
            )

    def line(self) -> socket.socket:
        """Return another end of its socket: while that is open, too, it waits."""
        return self._line.dup()

    def dismiss(self) -> None:
        """Let it go: there is nothing to sweep. Twice is fine."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._line.sendall(b"\n")
            self._process.wait(_END_TIMEOUT_S)
        self._line.close()


def main() -> int:
    """Sweep what the tunnel of the only argument has left, unless somebody holds it."""
    (label,) = sys.argv[1:]
    # As in main.py: -I and -S keep all that the caller says off the path.
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # noqa: PTH120
    sys.path.append(home)
    import site

    site.main()
    from sshvpn.errors import SshvpnError
    from sshvpn.privileged.kernel import Kernel
    from sshvpn.privileged.sweeper import Sweeper
    from sshvpn.privileged.units import Units, state_directory

    try:
        directory = state_directory()
        with contextlib.closing(Kernel(directory)) as kernel:
            failed = Sweeper(kernel, Units(directory), actor=0).sweep_one(label)
    except SshvpnError as error:
        failed = [str(error)]
    # Whoever waits for it may be gone.
    with contextlib.suppress(OSError):
        sys.stdout.write("".join(f"{line}\n" for line in (*failed, SWEPT)))
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

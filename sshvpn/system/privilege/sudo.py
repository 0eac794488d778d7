"""Asks for root's power: sudo(8) at the person's terminal, and what its words mean.

sudo asks by itself, at the terminal that it is started at, so that its tickets, fingerprints and
second factors work as everywhere else. What it says meanwhile goes on to the person line by line;
why it refused becomes an error here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import selectors
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sshvpn.errors import PrivilegeError, printable

PROMPT = "sshvpn makes a network device, routes and firewall rules; [sudo] password for %p: "
"""What sudo asks with; ``%p`` is whose password it wants."""
_PLACES = ("/usr/bin/sudo", "/bin/sudo", "/usr/local/bin/sudo")
_RULES = "/etc/sudoers.d/sshvpn"
_END_TIMEOUT_S = 10.0
_INTERRUPTED_S = 1.0
_NO_PASSWORD = "a password is required"  # noqa: S105
# English, as of sudo 1.8 and 1.9: it is run with LC_ALL=C. The first that is found counts.
_SAID: Sequence[tuple[str, str]] = (
    (r"incorrect password attempt", "password"),
    (r"(?:unable to run .*|no askpass program.*)", "askpass"),
    (r"is not in the sudoers file|is not allowed to|may not run sudo", "forbidden"),
    (r"no new privileges", "no_new_privs"),
    (r"this is a part of sshvpn", "no_socket"),
    (rf"no password was provided|{_NO_PASSWORD}|a terminal is required", "unanswered"),
)


class Sudo:
    """A program that is being started as root, by sudo unless this is root already.

    ``stdin`` becomes the program's. sudo asks ``at_terminal``, else by the program that
    ``$SUDO_ASKPASS`` names, else nobody, and without ``asks`` nobody; ``prompt`` says what for.
    ``variables`` are for a program that needs no sudo.
    Raises PrivilegeError where there is no sudo.
    """

    def __init__(
        self,
        program: Sequence[str],
        stdin: socket.socket,
        variables: Mapping[str, str],
        *,
        at_terminal: bool,
        prompt: str = PROMPT,
        asks: bool = True,
    ) -> None:
        self._program = program
        self._at_terminal = at_terminal
        self._heard: list[str] = []
        self._begun = b""
        words, environment = list(program), {**os.environ, **variables}
        if os.geteuid() != 0:
            words = [*_sudo(prompt, at_terminal=at_terminal, asks=asks), *words]
            environment = {**os.environ, "LC_ALL": "C"}
        self._process = subprocess.Popen(
            words,
            stdin=stdin.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
        )

    @property
    def _output(self) -> int:
        return self._process.stdout.fileno() if self._process.stdout is not None else -1

    def wait_for(self, peer: socket.socket) -> None:
        """Wait until ``peer``, the other end of the program's input, has something to read.

        Blocks for as long as a person types. The end counts too.
        """
        output = self._output
        with selectors.DefaultSelector() as selector:
            selector.register(peer, selectors.EVENT_READ)
            selector.register(output, selectors.EVENT_READ)
            while True:
                ready = [key.fd for key, _ in selector.select()]
                if output in ready and not self._read(output):
                    selector.unregister(output)
                if peer.fileno() in ready:
                    return

    def end(self, timeout_s: float = _END_TIMEOUT_S) -> None:
        """Wait until what was started has ended: sudo puts the terminal back as it was."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def interrupted(self) -> None:
        """Wait as :meth:`end` does, but not for long: sudo has had the Ctrl-C, too."""
        self.end(_INTERRUPTED_S)

    def why(self) -> PrivilegeError:
        """Return why the program was not started, once it is known that it was not."""
        while self._read(self._output):
            pass
        self.end()
        return explain(self._heard, self._program, at_terminal=self._at_terminal)

    def _read(self, output: int) -> bool:
        """Hear what was said; False at the end."""
        piece = os.read(output, 4096)
        *lines, self._begun = (self._begun + piece).split(b"\n")
        if not piece and self._begun:
            lines = [self._begun]
        for line in lines:
            self._hear(printable(line.decode(errors="replace")))
        return bool(piece)

    def _hear(self, line: str) -> None:
        self._heard.append(line)
        # What ends it is told as an error, with what to do next.
        if self._at_terminal and _kind_of(line) is None:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _sudo(prompt: str, *, at_terminal: bool, asks: bool) -> list[str]:
    sudo = next((path for path in _PLACES if os.access(path, os.X_OK)), None)
    if sudo is None:
        raise PrivilegeError("changing the network needs root, and there is no sudo", "run as root")
    how = [] if at_terminal else ["-A"] if "SUDO_ASKPASS" in os.environ else ["-n"]
    how = how if asks else ["-n"]
    return [sudo, *how, "-p", prompt, "--"]


def _kind_of(line: str) -> str | None:
    return next((kind for pattern, kind in _SAID if re.search(pattern, line)), None)


def explain(said: Sequence[str], program: Sequence[str], *, at_terminal: bool) -> PrivilegeError:
    """Return what it means that sudo ``said`` this and did not run ``program``."""
    kinds = {_kind_of(line): line for line in said}
    kind = next((kind for _, kind in _SAID if kind in kinds), "")
    user = _user()
    what, hint = {
        "password": ("sudo did not take the password", "start it again; sudo -v tries a password"),
        "askpass": (kinds.get("askpass", ""), "SUDO_ASKPASS must name a program that asks"),
        "forbidden": (
            f"sudo does not let {user} change the network",
            f"let an administrator say in {_RULES}: {_rule(user, program)}",
        ),
        "no_new_privs": (
            "sudo cannot work here: the process may not get new privileges",
            "start it outside of this container or service, or as root",
        ),
        "no_socket": (
            "sudo keeps the helper from its socket (log_input)",
            f"let an administrator say in {_RULES}: Defaults!{_escaped(program[0])} !log_input",
        ),
        "unanswered": ("sudo was given no password", "start it again")
        if at_terminal
        else (
            "sudo wants a password, and there is no terminal to ask at",
            _without_password(user, program),
        ),
        "": (said[-1] if said else "sudo ended without a word", "sudo -v tells more"),
    }[kind]
    return PrivilegeError(f"no privilege to change the network: {what}", hint)


def _without_password(user: str, program: Sequence[str]) -> str:
    theirs = next((path for path in _parts(program) if not _is_roots(path)), None)
    if theirs is None:
        return (
            "run it at a terminal, or let sudo run it without a password: "
            f"{_rule(user, program, 'NOPASSWD: ')}"
        )
    # Whoever can write there would be root with such a rule.
    return (
        "run it at a terminal (for sudo without a password it must be installed where only root "
        f"can write, and {theirs} is not)"
    )


def _rule(user: str, program: Sequence[str], tag: str = "") -> str:
    """Return the line of sudoers(5) that lets ``user`` run ``program``."""
    return f"{user} ALL=(root) {tag}{' '.join(map(_escaped, program))}"


def _escaped(word: str) -> str:
    return re.sub(r"([\\,:=\s*?\[\]!\"])", r"\\\1", word)


def _parts(program: Sequence[str]) -> list[Path]:
    """Return the files that ``program`` names, and all directories above them."""
    files = [Path(word) for word in program if word.startswith("/")]
    return [path for file in files for path in (file, *file.parents)]


def _is_roots(path: Path) -> bool:
    found = path.stat()
    return found.st_uid == 0 and not found.st_mode & 0o022


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"#{os.getuid()}"

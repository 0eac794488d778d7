"""Jupyter at the server: what runs there is looked at, one is started, some are ended.

Over a connection that stands, by the script that sshvpn.remote delivers. It knows nothing of
forwards; sshvpn.notebook does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from sshvpn.boundary import Connection, RemoteCommand
from sshvpn.errors import ConnectionLostError, NotebookError, SshvpnError
from sshvpn.frozen import dataclass
from sshvpn.model import NotebookWish, SshOptions
from sshvpn.remote import notebook_protocol as protocol, notebook_script
from sshvpn.remote.notebook_protocol import (
    Bye,
    Directory,
    Ended,
    Ends,
    Hello,
    Launched,
    LogLine,
    Message,
    Problem,
    Ready,
    Server,
    Took,
)
from sshvpn.waiting import within

log = logging.getLogger("sshvpn.notebook")

_WHY_CLOSED_S = 1.0
_MOST_SERVERS = 200
_TOKEN = re.compile(r"(token=)[^\s&\"'<>]+")


@dataclass(frozen=True, slots=True)
class Found:
    """What was seen: the directory that was asked for, resolved, all servers, the login's home.

    ``boot`` is another one after each start of the server's system, empty where it is not known.
    """

    directory: str
    servers: tuple[Server, ...]
    home: str
    boot: str

    def serving(self, wish: NotebookWish) -> Server | None:
        """Return the server that ``wish`` re-attaches to, one of ours before another's."""
        here = [one for one in self.servers if one.directory == self.directory]
        if not wish.directory:  # Jupyter's own configuration may have named another
            here += [one for one in self.servers if one.origin == "home" and one not in here]
        return max(here, key=lambda one: (one.is_ours, one.pid), default=None)


@dataclass(frozen=True, slots=True)
class Started:
    """A server that was started just now, and the words that did."""

    server: Server
    words: str


class RemoteJupyter:
    """One conversation with the script at ``host``; see :func:`conversation`."""

    def __init__(self, connection: Connection, command: RemoteCommand, host: str) -> None:
        self._connection = connection
        self._command = command
        self._host = host
        self.has_launched = False
        """Whether something was started that has not been told of yet: it goes on by itself."""
        self._has_spoken = False
        self._home = ""
        self._reader: protocol.Reader

    async def begin(self, nonce: str) -> None:
        """Deliver the script."""
        self._reader = protocol.Reader(nonce)
        await self._command.write(notebook_script().encode("ascii"))

    async def look(self, directory: str) -> Found:
        """Return what runs. Raises SshvpnError where there is no such directory."""
        await self._command.write(protocol.look(directory))
        return await self._found()

    async def start(
        self, wish: NotebookWish, token: str, *, shared: bool, within_s: int
    ) -> Started | Found:
        """Start a server in the directory that was looked at last, and wait until it listens.

        What does not ``within_s`` seconds is ended, unless it looks like Jupyter. Where somebody
        else was starting one just then, it is waited for, and what runs now is returned instead.
        Raises SshvpnError.
        """
        await self._command.write(protocol.start(wish, token, shared=shared, within_s=within_s))
        words = ""
        last = ""
        self.has_launched = False
        while True:
            message = await self._next()
            if isinstance(message, Directory):
                return await self._found(message.path)
            if isinstance(message, Server):
                return Started(message, words)
            if isinstance(message, Took):
                words = message.words
                log.info("%s: starting %s", self._host, words)
            elif isinstance(message, Ends):
                log.warning("%s", _mortal(message, self._host))
            elif isinstance(message, LogLine):
                last = _TOKEN.sub(r"\1…", message.text) or last
                log.warning("jupyter: %s", _TOKEN.sub(r"\1…", message.text))
            elif isinstance(message, Problem):
                raise _error(message, self._host, last)
            else:
                assert isinstance(message, Launched)  # noqa: S101 (nothing else comes here)
                self.has_launched = True

    async def stop(self, pids: Sequence[int]) -> list[Ended]:
        """End those servers, with their kernels; return which have ended, and which not."""
        await self._command.write(protocol.stop([*pids]))
        ended = []
        while not isinstance(message := await self._next(), Bye):
            if isinstance(message, Ended):
                ended.append(message)
        return ended

    async def leave(self) -> None:
        """End the conversation; what was started lives on. Twice is fine."""
        await self._command.close()

    async def _found(self, directory: str = "") -> Found:
        servers = []
        while not isinstance(message := await self._next(), Ready):
            if isinstance(message, Directory):
                directory = message.path
            elif isinstance(message, Server):
                servers.append(message)
                if len(servers) > _MOST_SERVERS:
                    raise NotebookError(f"too many Jupyters run at {self._host}")
            elif isinstance(message, Problem):
                raise _error(message, self._host)
        return Found(directory, tuple(servers), self._home, message.boot)

    async def _next(self) -> Message:
        while (line := await self._command.read_line()) is not None:
            message = self._reader.feed(line)
            self._has_spoken = self._has_spoken or message is not None
            if isinstance(message, Hello):
                self._home = message.home
            elif message is not None:
                return message
        raise await self._why_silent()

    async def _why_silent(self) -> SshvpnError:
        """Return why it says nothing more: the connection's end, where that is it."""
        with contextlib.suppress(asyncio.TimeoutError):
            return await within(_WHY_CLOSED_S, self._connection.wait_closed())
        if self._has_spoken:
            return ConnectionLostError("what looks after Jupyter at the server has ended")
        return NotebookError(
            f"this login at {self._host} runs no commands, so Jupyter cannot be looked for there",
            "start it there by other means, and use: sshvpn forward 9999:8888",
        )


@contextlib.asynccontextmanager
async def conversation(connection: Connection, host: str) -> AsyncIterator[RemoteJupyter]:
    """Run the script at the server while entered; what it has started lives on."""
    nonce = secrets.token_hex(16)
    command = await connection.run(protocol.remote_command(notebook_script(), nonce))
    try:
        jupyter = RemoteJupyter(connection, command, host)
        await jupyter.begin(nonce)
        yield jupyter
    finally:
        await command.close()


def new_token() -> str:
    """Return a token as Jupyter makes them: 24 bytes of the system's randomness, in hex."""
    return secrets.token_hex(24)


def stop_line(host: str, ssh: SshOptions, directory: str | None = None) -> str:
    """Return the line that ends Jupyter at ``host``, to be typed here; ``ssh`` is how to log in."""
    letters = {"User": "-l", "Port": "-p"}
    options = [
        word
        for key, value in ssh.options
        for word in ([letters[key], value] if key in letters else ["-o", f"{key}={value}"])
    ]
    words = [*replace(ssh, options=()).ssh_words, *options]
    where = [] if directory is None else ["--dir", directory]
    return shlex.join(["sshvpn", "notebook", "stop", *words, *where, host])


def _typed(host: str, *words: str) -> str:
    """Return the line that runs ``words`` at ``host``, to be typed here: two shells read it."""
    command = shlex.join(words)
    is_plain = command == " ".join(words)
    return f"ssh {host} {command if is_plain else shlex.quote(command)}"


def _mortal(ends: Ends, host: str) -> str:
    why = f"systemd-logind at {host} ends what is left running (KillUserProcesses=yes)"
    if ends.is_with_last:
        return (
            f"Jupyter ends when you are logged out: {why}; so that it goes on, run once: "
            f"ssh {host} loginctl enable-linger"
        )
    return (
        f"Jupyter ends with this connection: {why}, and systemd-run --user does not work there; "
        "who administers it can allow it (dbus-user-session and loginctl enable-linger)"
    )


def _error(problem: Problem, host: str, last_words: str = "") -> NotebookError:  # noqa: C901, PLR0911
    text = problem.text
    match problem.code:
        case "no_directory":
            return NotebookError(
                f"there is no directory {text} at {host}",
                "make it there, or name another with --dir; it is as seen from the home directory",
            )
        case "no_entry":
            return NotebookError(f"{host} does not let you into {text}", "name another with --dir")
        case "no_state":
            return NotebookError(
                f"{text} cannot be written at {host}", "see there whether the disk is full: df -h ~"
            )
        case "none":
            return NotebookError(
                f"no Jupyter was found at {host}: a login shell there has neither jupyter nor a "
                "python3 with it",
                f"install it: ssh {host} 'python3 -m venv jupyter && jupyter/bin/pip install "
                "jupyterlab', then add --venv jupyter",
            )
        case "none_in":
            return NotebookError(
                f"there is no Jupyter in what was named at {host}",
                f"install it: {_typed(host, text, '-m', 'pip', 'install', 'jupyterlab')}",
            )
        case "none_in_conda":
            return NotebookError(
                f"there is no Jupyter in the environment {text} at {host}",
                f"install it there: conda install -p {shlex.quote(text)} jupyterlab",
            )
        case "no_venv":
            return NotebookError(
                f"{text} at {host} is no virtual environment: it has no bin/python",
                f"make it: {_typed(host, 'python3', '-m', 'venv', text)}, then install jupyterlab "
                "in it",
            )
        case "no_conda_env":
            return NotebookError(
                f"no conda environment {text} was found at {host}",
                "its whole path will do, too: conda env list shows it",
            )
        case "no_command":
            return NotebookError(
                f"{host} has no command {text}", "write its whole path, as the server has it"
            )
        case "no_login_shell":
            return NotebookError(
                f"a login shell ({text}) at {host} does not come to its end within twenty seconds",
                "see what its start-up files wait for",
            )
        case "silent":
            return NotebookError(
                f"what was started at {host} has not become a Jupyter in time, and was ended",
                f"what it said: {_typed(host, 'cat', text)}",
            )
        case "died":
            why = f": {last_words}" if last_words else ""
            return NotebookError(
                f"Jupyter ended at {host} while it started{why}",
                f"its whole log: {_typed(host, 'cat', text)}",
            )
    return NotebookError(f"Jupyter at {host}: {problem.code} {text}")

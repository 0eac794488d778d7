"""The control socket, the client's side: which sessions there are, and how to talk to one.

Each session has a directory in the run-time directory, ``KIND-ID/``::

    lock     held by flock(2) while the session lives, else for a moment by who looks or sweeps
    control  a unix socket, mode 0600: JSON lines, see docs/control-protocol.md
    mux, ask ssh's own sockets
    secret   mode 0600: the token of a notebook
    socket-N symbolic links to the unix sockets that its SPECs make

A session whose lock is free is dead, whatever else lies there. Who sweeps holds that of the
run-time directory, too, by which it is told from a session. This module starts fast
(``sshvpn status`` imports little more) and is synchronous; the server is control_server.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from sshvpn.errors import SshvpnError, TakenError

if TYPE_CHECKING:
    from sshvpn.model import ForwardProfile, TunnelProfile

VERSION: Final = 1
LONGEST_LINE: Final = 64 * 1024
_REPLY_TIMEOUT_S = 5.0
_DOWN_TIMEOUT_S = 15.0
_LOCK_POLL_S = 0.02
_NOTED = "socket-"
_KEPT = "secret"
_WARNINGS = ("warning", "error", "critical")
_BEGINNINGS = ("forward-", "tunnel-")


def session_id(profile: ForwardProfile | TunnelProfile) -> str:
    """Return the label of what ``profile`` runs as: a hash of kind and name.

    A tunnel's name stands for one session, and so does a forward's that is the user's own.
    Forwards that were just typed are named after their host, so that one host may have
    several: their SPECs tell them apart, and where they are to listen.
    """
    from sshvpn.model import TunnelProfile

    if isinstance(profile, TunnelProfile):
        return tunnel_id(profile.name)
    return _hash("forward", profile.name, *profile.identity)


def tunnel_id(name: str) -> str:
    """Return the label of what the tunnel NAME runs as."""
    return _hash("tunnel", name)


def forward_id(name: str) -> str:
    """Return the label of what the forward NAME runs as, which is a name of the user's own."""
    return _hash("forward", name)


def _hash(*words: str) -> str:
    import hashlib

    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


class AlreadyUpError(TakenError):
    """The session lives already, in another process."""

    code = "already_up"

    def __init__(self, directory: Path) -> None:
        super().__init__("it is up already", "sshvpn status shows it; sshvpn down ends it")
        self.directory = directory


class SessionDir:
    """A session's directory, locked: as long as this object lives, the session does.

    A process that ends in any way gives the lock back; :meth:`close` also removes the
    directory. Raises AlreadyUpError where somebody else holds the lock.
    """

    def __init__(self, runtime: Path, kind: str, label: str) -> None:
        self.path = runtime / f"{kind}-{label}"
        self._fd = self._take()

    def _take(self) -> int:
        while True:
            try:
                _make_directory(self.path.parent)
                _make_directory(self.path)
                fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # its last owner has just removed the directories
                continue
            if _try_lock(fd, fcntl.LOCK_EX) and _is_at(fd, self.path / "lock"):
                self._clear()
                return fd
            # Those who only look (is_alive) share the lock for a moment; an owner does not.
            is_owned = not _try_lock(fd, fcntl.LOCK_SH)
            os.close(fd)
            if is_owned and is_alive(self.path):
                raise AlreadyUpError(self.path)

    def _clear(self) -> None:
        # What a session that was killed has left: nobody answers there any more.
        _remove_dead_sockets(self.path)
        for left in self.path.iterdir():
            if left.name != "lock":
                left.unlink(missing_ok=True)

    def note_sockets(self, paths: Iterable[str]) -> None:
        """Note the unix sockets that the session makes elsewhere, should it be killed."""
        for number, path in enumerate(paths):
            (self.path / f"{_NOTED}{number}").symlink_to(path)

    def keep_secret(self, secret: Mapping[str, str]) -> None:
        """Write what only this user may know of the session, in place of what was there."""
        new = self.path / f"{_KEPT}.new"
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(dict(secret), file)
        new.replace(self.path / _KEPT)

    def remove(self) -> None:
        """Remove the directory; the lock is held on until the process ends.

        So who waits for the lock (``sshvpn down``) waits for the process.
        """
        _remove(self.path)

    def close(self) -> None:
        """Remove the directory, then give the lock back. May be called twice."""
        if self._fd >= 0:
            self.remove()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> SessionDir:  # noqa: PYI034 (Self is younger than Python 3.10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _make_directory(path: Path) -> None:
    # Not Path.mkdir(exist_ok=True): it looks again, and by then another may have removed it.
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)  # noqa: PTH102


def _is_at(fd: int, path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def is_alive(directory: Path) -> bool:
    """Whether the session of ``directory`` lives: its lock is held, and not by who sweeps."""
    try:
        if not _is_held(directory):
            return False
        with _sweeping(directory.parent, fcntl.LOCK_SH):
            return _is_held(directory)
    except OSError:  # whoever swept has removed it
        return False


def _is_held(directory: Path) -> bool:
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _sweeping(runtime: Path, kind: int) -> Iterator[None]:
    """Hold the lock of all who sweep below ``runtime``; waits for it. Raises OSError."""
    fd = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, kind)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def secret_of(directory: Path) -> dict[str, str]:
    """Return what :meth:`SessionDir.keep_secret` wrote, nothing where it did not."""
    try:
        return dict(json.loads((directory / _KEPT).read_text()))
    except (OSError, ValueError):
        return {}


def session_dirs(runtimes: Iterable[Path]) -> Iterator[Path]:
    """Yield the directories of all sessions, dead ones too."""
    for runtime in runtimes:
        with contextlib.suppress(OSError):
            yield from sorted(p for p in runtime.iterdir() if p.name.startswith(_BEGINNINGS))


def sweep(runtimes: Iterable[Path], only: str | None = None) -> list[Path]:
    """Remove the directories of sessions that have died without doing so, and return them.

    ONLY: the one so called, KIND-ID.
    """
    found = [one for one in session_dirs(runtimes) if only in (None, one.name)]
    return [directory for directory in found if _remove_if_dead(directory)]


def _remove_if_dead(directory: Path) -> bool:
    try:
        with _sweeping(directory.parent, fcntl.LOCK_EX):
            return _remove_unlocked(directory)
    except OSError:
        return False


def _remove_unlocked(directory: Path) -> bool:
    # With the lock in hand: one that is just starting must not lose its directory.
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try_lock(fd, fcntl.LOCK_EX) or not _is_at(fd, directory / "lock"):
            return False
        _remove_dead_sockets(directory)
        _remove(directory)
    finally:
        os.close(fd)
    return True


def _remove_dead_sockets(directory: Path) -> None:
    for note in directory.glob(f"{_NOTED}*"):
        with contextlib.suppress(OSError):
            path = note.readlink()
            if path.is_socket() and path.lstat().st_uid == os.getuid() and not _answers(path):
                path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _remove(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):  # the last one leaves no run-time directory behind
        directory.parent.rmdir()


class Client:
    """One conversation with a session over its control socket (or the launcher's)."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._reader = connected.makefile("rb")

    @classmethod
    def connect(cls, directory: Path) -> Client:
        """Connect to the session of ``directory``. Raises OSError where nobody answers."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(_REPLY_TIMEOUT_S)
        deadline = time.monotonic() + _REPLY_TIMEOUT_S
        while True:
            try:
                connected.connect(str(directory / "control"))
            except BlockingIOError:  # many come at once, and its queue is full (unix(7))
                if time.monotonic() < deadline:
                    time.sleep(_LOCK_POLL_S)
                    continue
                connected.close()
                raise
            except OSError:
                connected.close()
                raise
            return cls(connected)

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self._socket.sendall(json.dumps({"v": VERSION, **message}).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None at the end. Raises SshvpnError on a garbled one.

        The other side's sudden end is an end, too: who is killed before it has read what was sent
        leaves a connection that is reset (unix(7)).
        """
        try:
            line = self._reader.readline()
        except ConnectionError:
            return None
        if not line:
            return None
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise SshvpnError("the running sshvpn answered what is not understood")
        return message

    def wait_at_most(self, seconds: float | None) -> None:
        """Let :meth:`receive` wait so long and then raise TimeoutError; None: without a bound."""
        self._socket.settimeout(seconds)

    def wait_end(self, seconds: float) -> None:
        """Say that nobody is here any more, and wait at most so long for the other side's end."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(1 << 16):
                    return

    def close(self) -> None:
        """End the conversation."""
        self._reader.close()
        self._socket.close()


def request(directory: Path, command: str) -> dict[str, Any] | None:
    """Send one command and return its reply; None where no living session answers."""
    try:
        client = Client.connect(directory)
    except OSError:
        return None
    try:
        client.send({"cmd": command})
        return client.receive()
    except OSError:
        return None
    finally:
        client.close()


def snapshots(runtimes: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """Return what each living session says of itself, by its directory."""
    found = {}
    for directory in session_dirs(runtimes):
        reply = request(directory, "status")
        if reply is not None and isinstance(reply.get("snapshot"), dict):
            found[directory] = reply["snapshot"]
    return found


def take_down(directory: Path, tell: Callable[[str], None] = lambda _: None) -> None:
    """End a session in good order, and wait until its process is gone.

    ``tell`` is called with what it warns of meanwhile (what could not be removed, and why).
    Raises SshvpnError where it does not end in time; it is then still there.
    """
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        deadline = time.monotonic() + _DOWN_TIMEOUT_S
        _ask_to_end(directory, tell, deadline)
        while not _try_lock(lock, fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                raise SshvpnError(
                    "it was told to end, and did not",
                    "sshvpn logs tells why; sshvpn status tells its pid",
                )
            time.sleep(_LOCK_POLL_S)
    finally:
        os.close(lock)
    _remove_if_dead(directory)


def _ask_to_end(directory: Path, tell: Callable[[str], None], deadline: float) -> None:
    """Ask, and listen until the session says that this is the end, or says nothing more."""
    try:
        client = Client.connect(directory)
    except OSError:
        return
    try:
        client.send({"cmd": "watch"})
        client.send({"cmd": "down"})
        while True:
            client.wait_at_most(max(deadline - time.monotonic(), _LOCK_POLL_S))
            message = client.receive()
            if message is None or message.get("event") == "end":
                return
            if message.get("event") == "notice" and message.get("level") in _WARNINGS:
                tell(str(message.get("text")))
    except OSError:
        return
    finally:
        client.close()

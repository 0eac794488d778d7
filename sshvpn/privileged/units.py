"""Unit numbers, each held by one living helper: a locked file that names the label.

A tunnel lives while its file is locked; the kernel unlocks it however the helper ends. A file
that is not locked names what a killed helper may have left. Nobody else can open or make one, and
everybody can see that it is there, and (proc(5), locks) whether somebody holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from sshvpn.errors import SshvpnError, TakenError
from sshvpn.plan import marks

ROOT = Path("/run/sshvpn-state")
SEEN = 0o711
"""For all to see what is there by its name, and no more: whoever sweeps asks without a right."""


def state_directory() -> Path:
    """Make root's directory for this network namespace, and return it: 0711.

    Raises SshvpnError where somebody else made it.
    """
    own = _directory()
    for directory in (ROOT, own):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=SEEN)
        found = directory.lstat()
        is_closed = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o066
        if found.st_uid != 0 or not is_closed:
            raise SshvpnError(f"{directory} is not root's own directory", "remove it")
        if stat.S_IMODE(found.st_mode) != SEEN:
            directory.chmod(SEEN)  # whatever the umask
    return own


def left_units() -> set[int]:
    """Return the units whose helper was killed, and which have not been swept yet.

    Needs no right, and finds other users' too.
    """
    own = _directory()
    locks = set(Path("/proc/locks").read_text("ascii").split())
    devices = {marks.unit_of(name) for _, name in socket.if_nameindex()}
    found = set()
    for unit in range(marks.UNITS):
        try:
            file = (own / f"unit-{unit}").stat()
        except FileNotFoundError:
            if unit in devices:
                found.add(unit)
            continue
        device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
        if device not in locks:
            found.add(unit)
    return found


def _directory() -> Path:
    return ROOT / str(Path("/proc/self/ns/net").stat().st_ino)


class Units:
    """The units of this network namespace; this process holds one at most."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mine: tuple[Path, int] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other helpers from allotting, sweeping or going."""
        with (self._directory / "units.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def claim(self, label: str, is_free: Callable[[int], bool]) -> int:
        """Take the lowest unit that nobody holds and ``is_free``; call it locked.

        Raises TakenError where the label is up, or no unit is left.
        """
        self._refuse_second(label)
        for unit in range(marks.UNITS):
            if is_free(unit) and self._take(unit, label):
                return unit
        raise _all_in_use()

    def likely(self, label: str, is_free: Callable[[int], bool]) -> int:
        """Return the unit that ``label`` would get, once what it has left is swept; call it locked.

        Raises TakenError as :meth:`claim` does.
        """
        self._refuse_second(label)
        living, left = self.living(), self.left()
        for unit in range(marks.UNITS):
            if unit not in living and (left.get(unit) == label or is_free(unit)):
                return unit
        raise _all_in_use()

    def _refuse_second(self, label: str) -> None:
        if label in self.living().values():
            raise TakenError("this tunnel is up already", "see: sshvpn status")

    def take_over(self, unit: int, label: str) -> bool:
        """Take a unit that ``label`` has left, and return whether it was there to be taken."""
        return self.left().get(unit) == label and self._take(unit, label)

    def _take(self, unit: int, label: str) -> bool:
        path = self._path(unit)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, label.encode())
        self._mine = (path, descriptor)
        return True

    def release(self) -> None:
        """Give the unit back; twice is fine."""
        if self._mine is not None:
            path, descriptor = self._mine
            path.unlink(missing_ok=True)
            os.close(descriptor)
            self._mine = None

    def living(self) -> dict[int, str]:
        """Return the units that a helper holds, with their labels."""
        return {unit: label for unit, (label, is_held) in self._all().items() if is_held}

    def left(self) -> dict[int, str]:
        """Return the units whose helper is gone, with their labels."""
        return {unit: label for unit, (label, is_held) in self._all().items() if not is_held}

    def forget(self, unit: int) -> None:
        """Remove the file of a unit whose helper is gone."""
        self._path(unit).unlink(missing_ok=True)

    def _all(self) -> dict[int, tuple[str, bool]]:
        found = {}
        for path in self._directory.glob("unit-*"):
            number = int(path.name.removeprefix("unit-"))
            label = path.read_text()
            if marks.is_label(label):
                found[number] = (label, self._is_held(path))
        return found

    def _is_held(self, path: Path) -> bool:
        if self._mine is not None and path == self._mine[0]:
            return True
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _path(self, unit: int) -> Path:
        return self._directory / f"unit-{unit}"


def _all_in_use() -> TakenError:
    return TakenError(f"all {marks.UNITS} tunnel devices are in use", "take one down")

"""A terminal in a machine, for what asks a person."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from typing import Any, Final

import pexpect
from ptyprocess import PtyProcess  # type: ignore[import-untyped]

# ioctl numbers that Python's termios does not have everywhere.
_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTPEER: Final = 0x5441


class Terminal(pexpect.spawn):  # type: ignore[misc]  # pexpect is not typed
    """A pexpect child in a machine, on a terminal of the machine's own /dev/pts."""

    def __init__(
        self, ptmx: Path, argv: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> None:
        """Start ARGV, which is already wrapped to enter the machine; PTMX is its multiplexer."""
        self._ptmx = ptmx
        super().__init__(
            argv[0],
            list(argv[1:]),
            env=dict(environment),
            timeout=timeout,
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(40, 120),
        )

    def _spawnpty(self, args: list[str], **options: Any) -> PtyProcess:
        master = os.open(self._ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
        slave = ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        rows, columns = options["dimensions"]
        pid = os.posix_spawn(
            args[0],
            args,
            options["env"],
            file_actions=[(os.POSIX_SPAWN_DUP2, slave, number) for number in (0, 1, 2)],
        )
        os.close(slave)
        process = PtyProcess(pid, master)
        process.setwinsize(rows, columns)
        return process

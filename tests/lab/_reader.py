"""Reads all that who runs it may read, again and again, and tells of what looks like a token.

Run in a machine, as somebody who has no business there: `python _reader.py BUT DIRECTORY…`. What is
below DIRECTORY… is read, without the paths in BUT (a JSON list), and every process's command line
and environment. Prints "ready", then "TOKEN PATH" for each that it finds, once; after its standard
input has ended it looks once more, and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import sys
import time
from collections.abc import Iterator

TOKEN = re.compile(rb"(?<![0-9a-f])[0-9a-f]{48}(?![0-9a-f])")
SETTLED_NS = 100_000_000
"""A file that was changed within that is read again: the clock of file systems is a coarse one."""
EVERY_S = 0.01

_known: dict[tuple[int, int], int] = {}
_told: set[tuple[bytes, str]] = set()


def files(directory: str, but: list[str]) -> Iterator[str]:
    """Yield the regular files below DIRECTORY that have changed since they were read."""
    try:
        entries = [*os.scandir(directory)]
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                if entry.path not in but:
                    yield from files(entry.path, but)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                which = (status.st_dev, status.st_ino)
                if _known.get(which) != status.st_ctime_ns:
                    if time.time_ns() - status.st_ctime_ns > SETTLED_NS:
                        _known[which] = status.st_ctime_ns
                    yield entry.path


def processes() -> Iterator[str]:
    """Yield what /proc has of each process."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            yield from (f"{entry.path}/cmdline", f"{entry.path}/environ")


def look(directories: list[str], but: list[str]) -> None:
    """Read all once."""
    for paths in (processes(), *(files(one, but) for one in directories)):
        for path in paths:
            with contextlib.suppress(OSError), open(path, "rb") as stream:  # noqa: PTH123 -- often
                for found in TOKEN.findall(stream.read()):
                    if (found, path) not in _told:
                        _told.add((found, path))
                        print(found.decode(), path, flush=True)  # noqa: T201 -- how the test learns it


def main() -> None:
    """Look until the standard input ends, and once more."""
    but, *directories = sys.argv[1:]
    excluded = json.loads(but)
    look(directories, excluded)
    print("ready", flush=True)  # noqa: T201 -- as above
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        look(directories, excluded)
    look(directories, excluded)


if __name__ == "__main__":
    main()

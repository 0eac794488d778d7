"""Times how long a command takes until a page answers. Runs by itself inside a machine.

``page.py URL WORD...`` prints the seconds from the start of the command to the first answer of
URL, and ends the command where it has not ended by itself; ``page.py - WORD...`` waits for the
command's end instead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

GIVE_UP_S = 60.0
POLL_S = 0.005


def main() -> None:
    """Time it."""
    url, *words = sys.argv[1:]
    # What it says may hold a token.
    null = subprocess.DEVNULL
    start = time.perf_counter()
    with subprocess.Popen(
        words, stdin=null, stdout=null, stderr=null, start_new_session=True
    ) as child:
        while url != "-" and not answers(url):
            if time.perf_counter() > start + GIVE_UP_S:
                sys.exit(f"nothing answers at {url}")
            time.sleep(POLL_S)
        if url == "-" and child.wait():
            sys.exit(f"{words[0]} failed")
        print(time.perf_counter() - start)
        if os.environ.get("END"):
            os.killpg(child.pid, signal.SIGTERM)


def answers(url: str) -> bool:
    """Whether an HTTP server answers at ``url`` without an error."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310
        return bool(reply.status == 200)
    return False


if __name__ == "__main__":
    main()

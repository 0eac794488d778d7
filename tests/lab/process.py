"""Commands that run in a machine, as the host sees them: waited for, signalled, ended."""

from __future__ import annotations

import contextlib
import os
import pathlib
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LONGEST_PAUSE_S = 0.1


def wait_until(
    predicate: Callable[[], T], timeout: float = 10, *, what: str | None = None, every: float = 0.01
) -> T:
    """Call PREDICATE until what it returns is true, and return that.

    TIMEOUT is in seconds. Raises TimeoutError, whose message is WHAT, after that. Between two calls
    is EVERY, and as long as a call took, up to LONGEST_PAUSE_S: who waits leaves the machine to
    those who work.
    """
    deadline = time.monotonic() + timeout
    while True:
        started = time.monotonic()
        result = predicate()
        if result:
            return result
        took_s = time.monotonic() - started
        if time.monotonic() >= deadline:
            message = what or f"not within {timeout} s: {getattr(predicate, '__name__', predicate)}"
            raise TimeoutError(message)
        time.sleep(max(every, min(took_s, LONGEST_PAUSE_S)))


class LabError(Exception):
    """The laboratory itself does not work, or a command in it failed."""


class CommandError(LabError):
    """A command in a machine ended with another exit code than 0; shows all it printed."""

    def __init__(self, machine: str, result: subprocess.CompletedProcess[str]) -> None:
        """Keep RESULT, and make a message that tells the whole story."""
        super().__init__(
            f"{machine}: {shlex.join(result.args)}: exit code {result.returncode}\n"
            f"stdout: {result.stdout}\nstderr: {result.stderr}"
        )
        self.result = result


class Child(subprocess.Popen[str]):
    """A command in a machine. As `subprocess.Popen`, and signals reach the command itself."""

    @property
    def inner_pid(self) -> int | None:
        """The command's process number on the host, None when it has ended."""
        path = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            children = path.read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def send_signal(self, sig: int) -> None:
        """Send SIG to the command; KILL and STOP too, which nothing could pass on."""
        if sig not in (signal.SIGKILL, signal.SIGSTOP):
            super().send_signal(sig)
            return
        self.poll()
        inner = self.inner_pid
        if inner is None:
            super().send_signal(sig)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(inner, sig)

    def has_been_ended(self) -> bool:
        """Whether it has ended and its pipes are closed: nothing is left to do for it."""
        streams = (self.stdin, self.stdout, self.stderr)
        return self.poll() is not None and all(known is None or known.closed for known in streams)

    def kill_tree(self) -> None:
        """Kill the command and all that it started, as far as it is still its descendant.

        The process outside ends by itself then: it is the one that must wait for the command, or
        the machine could not end before the host's init has done so.
        """
        for pid in _descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the tree, wait for it, close the pipes; twice is fine."""
        while self.poll() is None:  # again, should it not have started its command yet
            self.kill_tree()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(0.05)
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _descendants(pid: int) -> list[int]:
    """Return the descendants of PID, the deepest first."""
    found: list[int] = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [*_descendants(int(child)), int(child)]
    return found


def read_line(child: Child, timeout: float) -> str:
    """Return the next line that CHILD prints, "" at its end; raises TimeoutError."""
    assert child.stdout is not None
    # Not by select(): a line that came with the one before is in Python's buffer already.
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = child.stdout.readline
    threading.Thread(target=lambda: lines.put(reader()), daemon=True).start()
    try:
        return lines.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"nothing printed within {timeout} s: {child.args!r}") from None

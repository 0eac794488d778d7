"""A child is held at the line that was named, until it may go on; then nothing holds it."""

from __future__ import annotations

import asyncio
import fcntl
import re
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from sshvpn.system.openssh.held import Gate, HeldLines, Hold

LINE = re.compile("debug1: wants it")
# As ssh does: each line is one write(2) of its own. Behind the last one it leaves a file.
CHILD = """
import os, sys
for line in sys.argv[2:]:
    os.write(2, line.encode() + b"\\r\\n")
open(sys.argv[1], "w").close()
"""
DEADLINE_S = 10.0


class Site:
    """A child with LINES to say, and what was heard of it."""

    def __init__(self, lines: list[str], done: Path) -> None:
        self.lines = lines
        self.gate = Gate()
        self.heard: list[str] = []
        self.pieces = 0
        self.said = HeldLines(self.heard.append, Hold(LINE, self.gate), heard=self._count)
        self.done = done

    def start(self) -> None:
        words = [sys.executable, "-I", "-S", "-c", CHILD, str(self.done), *self.lines]
        self.child = subprocess.Popen(words, stderr=self.said.write_fd)
        self.said.release()

    def _count(self) -> None:
        self.pieces += 1

    def is_held(self) -> bool:
        """Whether it waits in write(2), behind the line: by the kernel's function (proc(5), wchan).

        There is one line more in the pipe then.
        """
        waiting = fcntl.ioctl(self.said._fd, termios.FIONREAD, bytes(4))
        is_writing = "pipe_write" in Path(f"/proc/{self.child.pid}/wchan").read_text()
        return self.gate.is_reached and any(waiting) and is_writing

    async def wait_held(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not self.is_held():
            assert time.monotonic() < deadline, (self.heard, self.child.poll())
            await asyncio.sleep(0.005)

    async def wait_end(self) -> None:
        await asyncio.to_thread(self.child.wait, DEADLINE_S)
        await self.said.wait_end(DEADLINE_S)

    def end(self) -> None:
        self.child.kill()
        self.child.wait(DEADLINE_S)
        self.said.close()
        self.said.close()


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("before", [0, 3, 60])
def test_it_is_held_behind_the_line_until_it_may_go_on(tmp_path: Path, before: int) -> None:
    lines = [f"debug1: {number}" for number in range(before)]
    lines += ["debug1: wants it now", "debug1: opened", "debug1: asked", "debug1: got it"]

    async def play() -> None:
        site = Site(lines, tmp_path / "done")
        site.start()
        try:
            await site.wait_held()
            assert site.heard == lines[: before + 1]
            assert site.gate.is_reached
            assert not site.done.exists()
            site.gate.is_open.set_result(None)
            await site.wait_end()
            assert site.heard == lines
            assert site.done.exists()
            assert site.pieces > before
        finally:
            site.end()

    asyncio.run(play())


@pytest.mark.parametrize("when", ["before", "after"])
def test_one_that_may_go_on_when_it_starts_is_never_held(tmp_path: Path, when: str) -> None:
    lines = ["debug1: wants it", *(f"debug1: {number}" for number in range(200))]

    async def play() -> None:
        site = Site(lines, tmp_path / "done")
        try:
            if when == "before":
                site.gate.is_open.set_result(None)
                await asyncio.sleep(0)
            site.start()
            if when == "after":
                site.gate.is_open.set_result(None)
            await site.wait_end()
            assert site.heard == lines
        finally:
            site.end()

    asyncio.run(play())


def test_one_that_is_held_no_more_is_not_held_up_by_who_is_slow_to_hear(tmp_path: Path) -> None:
    # As much as a pipe takes, without anybody who reads: packets of a line would fill it at once.
    lines = ["debug1: wants it", *(f"debug1: {number:04d}" for number in range(3000))]

    async def play() -> None:
        site = Site(lines, tmp_path / "done")
        site.start()
        try:
            await site.wait_held()
            site.gate.is_open.set_result(None)
            site.said.go_on()
            site.said._pause()  # nobody hears it now
            site.child.wait(DEADLINE_S)
            assert site.done.exists()
            site.said._resume()
            await site.said.wait_end(DEADLINE_S)
            assert site.heard == lines
        finally:
            site.end()

    asyncio.run(play())


def test_of_one_that_ends_while_it_is_held_the_last_words_are_heard(tmp_path: Path) -> None:
    async def play() -> None:
        site = Site(["debug1: wants it", "debug1: opened", "never said"], tmp_path / "done")
        site.start()
        try:
            await site.wait_held()
            site.child.kill()
            await site.wait_end()
            assert site.heard == ["debug1: wants it", "debug1: opened"]
        finally:
            site.end()

    asyncio.run(play())


def test_it_is_let_go_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    async def play() -> None:
        before = descriptors()
        site = Site(["debug1: wants it", "b", "c"], tmp_path / "done")
        site.start()
        await site.wait_held()
        site.end()
        site.gate.is_open.cancel()  # afterwards: there is nothing to be let go
        await asyncio.sleep(0)
        assert descriptors() == before

    asyncio.run(play())

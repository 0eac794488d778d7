"""What a child writes is heard line by line, however it writes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import pytest

from sshvpn.system.process import ChildLines


def heard(pieces: Sequence[bytes], longest: int = 100) -> list[str]:
    """Return the lines that come of PIECES."""

    async def hear() -> list[str]:
        lines: list[str] = []
        child = ChildLines(lines.append, longest)
        for piece in pieces:
            os.write(child.write_fd, piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        child.release()
        await child.wait_end(5)
        child.close()
        return lines

    return asyncio.run(hear())


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"on", b"e\r\ntw", b"o"], ["one", "two"]),
        ([b"\n\n"], ["", ""]),
        ([b"\xff\n"], ["\N{REPLACEMENT CHARACTER}"]),
        ([], []),
    ],
)
def test_lines_are_whole_whatever_the_pieces(pieces: list[bytes], lines: list[str]) -> None:
    assert heard(pieces) == lines


def test_of_a_line_without_end_the_last_part_is_kept() -> None:
    assert heard([b"x" * 50, b"y" * 30, b"end\nnext\n"], 20) == ["y" * 17 + "end", "next"]

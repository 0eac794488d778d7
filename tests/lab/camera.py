"""A camera before a terminal: what it reads from the QR codes there, by a decoder that is not ours.

Takes the characters and colours as they were printed, or as a terminal holds them (tmux).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import zxingcpp

_DARK: Final = 0
_LIGHT: Final = 255
_SHADES: Final = {"16": _DARK, "231": _LIGHT}
"""Of the 256 colours those that no theme changes."""
_INKED: Final = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}
_SIDE: Final = 4
"""Pixels of a half of a character; a character is two of them, one above the other."""
_SGR: Final = re.compile("\x1b\\[([0-9;]*)m")


def qr_codes(printed: str, *, is_dark: bool) -> list[str]:
    """Return what is in the QR codes of a terminal that shows PRINTED, on a dark or light ground.

    Dark on light, as the standard has it: a code with its colours swapped is none.
    """
    rows = list(_rows(printed, *((_DARK, _LIGHT) if is_dark else (_LIGHT, _DARK))))
    width = max(len(row) for row in rows)
    ground = bytes([_DARK if is_dark else _LIGHT])
    pixels = b"".join(row.ljust(width, ground) * _SIDE for row in rows)
    picture = memoryview(pixels).cast("B", shape=[len(rows) * _SIDE, width])
    found = zxingcpp.read_barcodes(picture, try_invert=False)
    return [code.text for code in found]


def _rows(printed: str, ground: int, ink: int) -> Iterator[bytes]:
    """Yield the upper and the lower half of each line, a byte a pixel; letters are left out."""
    paper, pen = ground, ink
    for line in printed.splitlines():
        above, below = bytearray(), bytearray()
        pieces = _SGR.split(line)
        for text, colours in zip(pieces[::2], [*pieces[1::2], None], strict=True):
            for character in text:
                upper, lower = _INKED.get(character, (False, False))
                above += bytes([pen if upper else paper]) * _SIDE
                below += bytes([pen if lower else paper]) * _SIDE
            # Colours stay from one line to the next, as on a terminal.
            if colours is not None:
                paper, pen = _coloured(colours, (paper, pen), (ground, ink))
        yield bytes(above)
        yield bytes(below)


def _coloured(words: str, now: tuple[int, int], plain: tuple[int, int]) -> tuple[int, int]:
    """Return the shades of ground and ink after the escape sequence of WORDS."""
    (paper, pen), numbers = now, words.split(";")
    while numbers:
        number = numbers.pop(0)
        if number in ("", "0"):
            paper, pen = plain
        elif number == "39":
            pen = plain[1]
        elif number == "49":
            paper = plain[0]
        elif number in ("38", "48") and numbers[:1] == ["5"]:
            shade = _SHADES.get(numbers[1])
            numbers = numbers[2:]
            if number == "38":
                pen = plain[1] if shade is None else shade
            else:
                paper = plain[0] if shade is None else shade
    return paper, pen

"""A QR code for the terminal or a page, so that a tablet opens a URL without typing."""

from __future__ import annotations

from collections.abc import Sequence

_QUIET_ZONE = 2
"""Modules around it. The standard asks for four; readers do with two, and a code that is too
tall for the window is worth nothing."""

_HALVES = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
_BLACK_ON_WHITE = "\x1b[38;5;16;48;5;231m"
_WHITE_ON_BLACK = "\x1b[38;5;231;48;5;16m"
_AS_BEFORE = "\x1b[0m"

_Rows = Sequence[Sequence[bool]]


def terminal_qr(text: str, encoding: str = "utf-8") -> str:
    """Return ``text`` as a QR code (ISO/IEC 18004) to be printed on a terminal.

    Half-block characters, two rows of modules a line; where the terminal's ``encoding`` has
    none, spaces, two a module. The colours are its own (16 and 231 of 256, which no theme
    changes), so that it reads the same on dark and light terminals. Raises ValueError for more
    text than a QR code holds.
    """
    import segno

    modules = segno.make(text, micro=False).matrix_iter(border=_QUIET_ZONE)
    rows = [[bool(module) for module in row] for row in modules]
    try:
        "".join(_HALVES.values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return "\n".join(_spaces(row) for row in rows)
    return _half_blocks(rows)


def svg_qr(text: str) -> str:
    """Return ``text`` as a QR code in SVG, to stand in a page: black, without a ground or a size.

    Raises ValueError for more text than a QR code holds.
    """
    import segno

    code = segno.make(text, micro=False, error="m")
    return code.svg_inline(border=_QUIET_ZONE, omitsize=True, svgclass=None, lineclass=None)


def _half_blocks(rows: _Rows) -> str:
    even = [*rows, [False] * len(rows[0])] if len(rows) % 2 else rows
    lines = []
    for above, below in zip(even[::2], even[1::2], strict=True):
        line = "".join(_HALVES[pair] for pair in zip(above, below, strict=True))
        lines.append(f"{_BLACK_ON_WHITE}{line}{_AS_BEFORE}")
    return "\n".join(lines)


def _spaces(row: Sequence[bool]) -> str:
    colours = (_WHITE_ON_BLACK if module else _BLACK_ON_WHITE for module in row)
    return "".join(f"{colour}  " for colour in colours) + _AS_BEFORE

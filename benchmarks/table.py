"""The table of results, and the arithmetic behind its ratios. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HEAD = ("measure", "ours", "peer", "ratio", "bound", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what was measured, of us and of the peer, and whether the bound holds.

    ``ok`` is None where there is no bound: the line is for information.
    """

    measure: str
    ours: str
    peer: str = "-"
    ratio: str = "-"
    bound: str = "-"
    ok: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """The words of the line."""
        verdict = "" if self.ok is None else "ok" if self.ok else "NOT"
        return (self.measure, self.ours, self.peer, self.ratio, self.bound, verdict)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A median of ratios, and the middle half of them, which tells how noisy the run was."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def paired(ours: Sequence[float], peers: Sequence[float]) -> Ratio:
    """Return the ratios of what ran one after the other, round by round.

    So a machine that slows down for a while slows both down. Needs two rounds or more.
    """
    ratios = [mine / other for mine, other in zip(ours, peers, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high)


def render(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, aligned so that it also reads well as it is."""
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(cell.ljust(n) for cell, n in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], rule, *lines[1:])
    )

"""Many connections at once through one forward, byte for byte."""

from __future__ import annotations

from benchmarks.office import Office
from benchmarks.table import Row

COUNT = 200
SIZE = 1_000_000


def measure(office: Office) -> list[Row]:
    """Each moves a megabyte there and back, and is half closed after the last byte."""
    return [_row(office, way) for way in ("openssh", "sshtunnel")]


def _row(office: Office, way: str) -> Row:
    seconds = office.crowd(way, COUNT, SIZE)
    peer = office.crowd("ssh", COUNT, SIZE) if way == "openssh" else None
    return Row(
        f"{way}, {COUNT} connections at once, 1 MB there and back",
        "wrong bytes" if seconds is None else f"{seconds:.1f} s",
        "-" if peer is None else f"{peer:.1f} s",
        bound="every byte",
        ok=seconds is not None,
    )

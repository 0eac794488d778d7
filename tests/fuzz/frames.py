"""Feeds the stream transport's decoder for as long as wanted: make fuzz SECONDS=600.

Starts from whole frames and damages them: bits, lengths, cuts, repeats. Prints the input that
broke a promise (tests.unit.stream.test_frames.check_any_bytes) and ends with 1.
"""

from __future__ import annotations

import random
import sys
import time

from sshvpn.stream.frames import Opening, OpeningError
from tests.unit.stream.test_frames import FIRST, NONCE, WHOLE, check_any_bytes


def damaged(source: random.Random) -> bytes:
    """Return some frames with some damage; mostly behind a whole HELLO, without which it ends."""
    data = bytearray(b"".join(source.choices(WHOLE[1:], k=source.randint(1, 8))))
    for _ in range(source.randint(0, 6)):
        at = source.randrange(len(data) or 1)
        match source.randrange(4):
            case 0 if data:
                data[at] ^= 1 << source.randrange(8)
            case 1:
                data[at : at + source.randint(0, 9)] = source.randbytes(source.randint(0, 9))
            case 2:
                del data[at : at + source.randint(1, 100)]
            case _:
                data[at:at] = data[at : at + source.randint(1, 2000)]
    return (FIRST if source.randrange(8) else b"") + bytes(data)


def check_opening(data: bytes, source: random.Random) -> None:
    """Feed it to an Opening, too."""
    opening = Opening(NONCE)
    line = source.choice(["", f"{NONCE} ", f"\n{NONCE} stream ", f"\n{NONCE} error "])
    data = data[:100] + line.encode() + data
    try:
        while data and opening.feed(data[:4096]) is None:
            data = data[4096:]
    except OpeningError:
        pass


def main() -> int:
    """Run for so many seconds (default: 60), from a seed that is printed."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    source = random.Random(seed)  # noqa: S311 (no secret)
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data, piece = damaged(source), source.choice([1, 7, 1000, 1 << 16])
        if len(data) > 20000:  # a byte at a time would take too long
            piece = max(piece, 1000)
        try:
            check_any_bytes(data, piece)
            check_opening(data, source)
        except Exception:
            print(f"seed {seed}, input {count}, pieces of {piece}: {data.hex()}")
            raise
        count += 1
    print(f"{count} inputs, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

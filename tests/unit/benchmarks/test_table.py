"""The arithmetic and the look of the benchmarks' table."""

import pytest

from benchmarks.table import Row, paired, render


def test_a_ratio_is_taken_round_by_round() -> None:
    # The machine was half as fast in the second round: that is nobody's merit.
    ratio = paired([300, 150, 300], [200, 100, 200])
    assert str(ratio) == "1.50 (1.50-1.50)"


def test_one_odd_round_does_not_move_the_ratio() -> None:
    assert paired([2, 2, 2, 2, 20], [1, 1, 1, 1, 1]).median == 2


def test_ours_and_the_peer_ran_equally_often() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired([1, 2], [1])


def test_the_table_is_markdown_that_lines_up() -> None:
    rows = [
        Row("start", "10 ms", "8 ms", "1.25 (1.20-1.30)", "<= 1.5", ok=True),
        Row("memory", "50 MB", bound="< 40 MB", ok=False),
        Row("login", "300 ms"),
    ]
    assert render(rows) == (
        "| measure | ours   | peer | ratio            | bound   |     |\n"
        "| ------- | ------ | ---- | ---------------- | ------- | --- |\n"
        "| start   | 10 ms  | 8 ms | 1.25 (1.20-1.30) | <= 1.5  | ok  |\n"
        "| memory  | 50 MB  | -    | -                | < 40 MB | NOT |\n"
        "| login   | 300 ms | -    | -                | -       |     |"
    )

from __future__ import annotations

import math

from luthier.command.curve import draw


def plain(series: dict[str, list[tuple[int, float]]], **size: int) -> list[str]:
    return [line.plain for line in draw(series, **size)]


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right() -> None:
    chart = plain({"loss": [(1, 2.0), (9, 1.0)]}, width=17, height=4)
    assert chart == [
        "         ⠒⠒ loss",
        "      2 ┤⠑⢄",
        "        │  ⠑⢄",
        "        │    ⠑⢄",
        "      1 ┤      ⠑⢄",
        "   step  1      9",
    ]


def test_two_lines_share_one_scale_and_keep_their_colours() -> None:
    chart = draw(
        {"train": [(0, 1.0), (10, 1.0)], "valid": [(0, 0.0), (10, 0.0)]}, width=19, height=3
    )
    assert chart[1].plain.startswith("      1 ┤⠉")
    assert chart[3].plain.startswith("      0 ┤⣀")
    assert {str(span.style) for span in chart[1].spans} == {"cyan"}
    assert {str(span.style) for span in chart[3].spans} == {"bold magenta"}


def test_many_steps_are_averaged_into_the_columns_there_are() -> None:
    noisy = [(step, 1.0 + (-1) ** step) for step in range(10_000)]
    chart = plain({"loss": noisy}, width=30, height=5)
    assert max(map(len, chart)) <= 31
    # Every column's mean is 1: the noise of neighbouring steps is gone.
    assert float(chart[1].split("┤")[0]) < 1.1


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert draw({"loss": []}, width=40) == []
    assert draw({"loss": [(1, math.nan), (2, math.inf)]}, width=40) == []
    assert plain({"a": [(1, math.nan), (2, 3.0)], "b": []}, width=40)[0].split() == ["⠒⠒", "a"]
    assert len(plain({"loss": [(5, 0.5)]}, width=40, height=6)) == 8

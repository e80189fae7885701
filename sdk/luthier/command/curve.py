"""A line chart in braille: each character is a grid of 2 x 4 dots.

Drawn here rather than by a plotting library: those for the terminal come as compiled parts that
some machines have no build of, and a client must install everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text

Points = Sequence[tuple[int, float]]
"""(step, value), by rising step."""

STYLES = ("cyan", "bold magenta")
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of the dot at row, column of a braille character (Unicode 2800 ff.)."""
AXIS_WIDTH = 9


def draw(series: Mapping[str, Points], *, width: int, height: int = 12) -> list[Text]:
    """The chart's lines, `width` characters wide: a legend, `height` lines of plot, the steps.

    Values that are not finite are left out. Where several steps share a column of dots, their
    mean is shown. Empty when there is nothing to draw.
    """
    kept = {
        name: [(step, value) for step, value in points if math.isfinite(value)]
        for name, points in series.items()
    }
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return []
    columns, rows = max(width - AXIS_WIDTH, 8) * 2, height * 4
    first = min(points[0][0] for points in kept.values())
    last = max(points[-1][0] for points in kept.values())
    lines = {name: _columns(points, first, last, columns) for name, points in kept.items()}
    values = [value for line in lines.values() for _, value in line]
    low, high = min(values), max(values)

    cells: dict[tuple[int, int], tuple[int, str]] = {}
    for line, style in zip(lines.values(), STYLES, strict=False):
        for x, y in _dots(line, low, high, rows):
            place = y // 4, x // 2
            bits, _ = cells.get(place, (0, style))
            cells[place] = bits | DOTS[y % 4][x % 2], style

    chart = [_legend(kept)]
    labels = {0: high, height - 1: low}
    for row in range(height):
        text = Text(f"{labels[row]:{AXIS_WIDTH - 2}.4g} ┤" if row in labels else " " * 8 + "│")
        for column in range(columns // 2):
            bits, style = cells.get((row, column), (0, ""))
            text.append(chr(0x2800 + bits) if bits else " ", style)
        text.rstrip()
        chart.append(text)
    steps = f"{first}{last:>{columns // 2 - len(str(first))}}"
    chart.append(Text(f"{'step':>{AXIS_WIDTH - 2}}  {steps}"))
    return chart


def _columns(points: Points, first: int, last: int, columns: int) -> list[tuple[int, float]]:
    """The mean value of each column of dots that has any."""
    sums: dict[int, tuple[float, int]] = {}
    for step, value in points:
        x = round((step - first) / max(last - first, 1) * (columns - 1))
        total, count = sums.get(x, (0.0, 0))
        sums[x] = total + value, count + 1
    return [(x, total / count) for x, (total, count) in sorted(sums.items())]


def _dots(
    line: list[tuple[int, float]], low: float, high: float, rows: int
) -> Iterable[tuple[int, int]]:
    """The dots of the polyline; row 0 is the top."""

    def row(value: float) -> float:
        # A flat line goes through the middle.
        return (rows - 1) * ((high - value) / (high - low) if high > low else 0.5)

    (x, value), rest = line[0], line[1:]
    yield x, round(row(value))
    if not rest:  # a single dot would be overlooked
        yield from ((x ^ side, round(row(value)) ^ up) for side in (0, 1) for up in (0, 1))
    for next_x, next_value in rest:
        start, end = row(value), row(next_value)
        stretch = max(next_x - x, math.ceil(abs(end - start)))
        for i in range(1, stretch + 1):
            yield x + round((next_x - x) * i / stretch), round(start + (end - start) * i / stretch)
        x, value = next_x, next_value


def _legend(names: Iterable[str]) -> Text:
    text = Text(" " * AXIS_WIDTH)
    for name, style in zip(names, STYLES, strict=False):
        text.append("⠒⠒ ", style)
        text.append(name + "   ")
    text.rstrip()
    return text

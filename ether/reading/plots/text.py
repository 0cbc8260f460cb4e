"""Plots as text, for a terminal: rows of characters with a scale. Pure.

One line is drawn in braille dots, two by four in a character; several in a character each, so that they can be told
apart without colours. What is drawn has the width and height that were asked for, whatever the values are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ether.reading.plots.svg import Line, Plot, number_text, time_unit

_MARKS = "•+×o◆#▲*"
_PLAIN_MARKS = "*+xo@#%&"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of a braille character, by row and column."""
_SCALE = 11
"""Characters beside the plot, for its scale."""
_LEAST = (24, 4)

Cell = tuple[int, int]
"""A row, from the top, and a column."""


def text_plot(plot: Plot, width: int = 80, height: int = 14, *, unicode: bool = True) -> str:
    """The plot in `height` lines of at most `width` characters. Times are drawn as they are given: seconds before now
    are negative. Without `unicode` in ASCII alone."""
    width, height = max(width, _LEAST[0]), max(height, _LEAST[1])
    points = [point for line in plot.lines for point in line.points]
    columns, rows = width - _SCALE, height - 3
    title = plot.title if unicode else ascii(plot.title)[1:-1]
    if not points:
        return "\n".join([title[:width], "(no numbers yet)"])
    x_low, x_high = _widened([x for x, _ in points])
    y_low, y_high = _widened([y for _, y in points])
    fine = unicode and len(plot.lines) == 1
    across, down = (2, 4) if fine else (1, 1)

    def place(point: tuple[float, float]) -> Cell:
        x, y = _share(point[0], x_low, x_high), 1.0 - _share(point[1], y_low, y_high)
        return round(y * (rows * down - 1)), round(x * (columns * across - 1))

    drawn: dict[Cell, str] = {}
    marks = _MARKS if unicode else _PLAIN_MARKS
    for number, line in enumerate(plot.lines):
        cells = _connected([place(point) for point in line.points])
        drawn.update(_braille(cells) if fine else dict.fromkeys(cells, marks[number % len(marks)]))
    return "\n".join([title[:width], *_framed(drawn, rows, columns, (y_low, y_high)), _below((x_low, x_high), columns),
                      _legend(plot.lines, marks, width)]).rstrip()  # fmt: skip


def _widened(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    low, high = max(low, -1e300), min(high, 1e300)
    by = 0.0 if high > low else abs(low) * 0.01 or 1.0
    return low - by, high + by


def _share(value: float, low: float, high: float) -> float:
    """Where a value is in its range, from 0 to 1; a value beyond is at the edge."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _connected(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells, and those between one and the next."""
    yield from cells[:1]
    for (row, column), (next_row, next_column) in pairwise(cells):
        steps = max(abs(next_row - row), abs(next_column - column), 1)
        for step in range(1, steps + 1):
            yield row + round((next_row - row) * step / steps), column + round((next_column - column) * step / steps)


def _braille(dots: Iterator[Cell]) -> dict[Cell, str]:
    bits: dict[Cell, int] = {}
    for row, column in dots:
        cell = (row // 4, column // 2)
        bits[cell] = bits.get(cell, 0) | _DOTS[row % 4][column % 2]
    return {cell: chr(0x2800 + of) for cell, of in bits.items()}


def _framed(drawn: dict[Cell, str], rows: int, columns: int, scale: tuple[float, float]) -> Iterator[str]:
    labelled = {0: scale[1], rows // 2: scale[1] - (scale[1] - scale[0]) * (rows // 2) / max(rows - 1, 1)}
    labelled[rows - 1] = scale[0]
    for row in range(rows):
        label = number_text(_round(labelled[row], scale)) if row in labelled else ""
        line = "".join(drawn.get((row, column), " ") for column in range(columns))
        yield f"{label[: _SCALE - 2]:>{_SCALE - 2}} |{line}".rstrip()


def _round(value: float, scale: tuple[float, float]) -> float:
    """A value with as many digits as its scale tells apart."""
    span = scale[1] - scale[0]
    if not 0 < span < 1e300:
        return value
    return round(value, max(0, 2 - math.floor(math.log10(span))))


def _below(span: tuple[float, float], columns: int) -> str:
    seconds, unit = time_unit(span[1] - span[0])
    begin, end = f"{span[0] / seconds:.3g} {unit}", f"{span[1] / seconds:.3g} {unit}"
    scale = f"{begin}{end:>{max(columns - len(begin), len(end) + 1)}}"
    return f"{'':{_SCALE - 1}}+{scale[:columns]}"


def _legend(lines: Sequence[Line], marks: str, width: int) -> str:
    if len(lines) < 2:
        return ""
    return "   ".join(f"{marks[number % len(marks)]} {line.name}" for number, line in enumerate(lines))[:width]

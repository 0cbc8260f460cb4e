"""Plots as SVG text: lines over time, and points against a condition. Pure; no library draws.

Promises: a plot of any number of values has a bounded size, and shows every extreme: of the values that fall into one
column of the picture the smallest and the largest are kept. Values that are not finite are counted, and drawn nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape as html_escape

WIDTH, HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 34
COLUMNS = WIDTH - _LEFT - _RIGHT
"""How many columns of pixels a plot has."""

Point = tuple[float, float]

LIGHT = "--line:#dce2e6;--dim:#566572;--s0:#0b65b0;--s1:#c2570c;--s2:#0a7a5c;--s3:#8a4f9e"
DARK = "--line:#27313a;--dim:#9aa9b5;--s0:#6cb4f5;--s1:#ff9d57;--s2:#4fcfa5;--s3:#d5a0e6"
"""The colours of the parts of a plot."""
STYLE = """
svg{width:100%;height:auto;display:block}
.grid{stroke:var(--line)}.axis{stroke:var(--dim)}
.tick{fill:var(--dim);font-size:11px}
.line{fill:none;stroke-width:1.5}
.line.s0{stroke:var(--s0)}.line.s1{stroke:var(--s1);stroke-dasharray:6 3}.line.s2{stroke:var(--s2)}
.line.s3{stroke:var(--s3);stroke-dasharray:6 3}
.dot.s0{fill:var(--s0)}.dot.s1{fill:var(--s1)}.dot.s2{fill:var(--s2)}.dot.s3{fill:var(--s3)}
.key{display:inline-block;width:14px;height:3px;margin:0 4px 3px 8px}
.key.s0{background:var(--s0)}.key.s1{background:var(--s1)}.key.s2{background:var(--s2)}.key.s3{background:var(--s3)}
"""
"""How the parts of a plot look, by the colours of whatever page it is in."""

_STEPS = (1.0, 2.0, 5.0, 10.0)
_SPANS = ((1.0, "s"), (60.0, "min"), (3600.0, "h"), (86400.0, "d"))
"""Units of time by their seconds."""


def escape(text: str) -> str:
    """Text for the page: without markup, and without characters that would turn the direction of writing or hide."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() or char in "\t\n" else ascii(char)[1:-1] for char in text)
    return html_escape(text)


class Thinned:
    """The values of one line, thinned to the columns of a plot as they come. Times are seconds; those outside of
    `begin` to `end` are put into the first or the last column."""

    def __init__(self, begin: float, end: float) -> None:
        self.count = 0
        self.not_finite = 0
        self._begin, self._span = begin, max(end - begin, 1e-9)
        self._columns: dict[int, tuple[Point, Point]] = {}

    def take(self, at: float, value: float) -> None:
        """Add one value."""
        self.count += 1
        if not math.isfinite(value) or not math.isfinite(at):
            self.not_finite += 1
            return
        column = min(COLUMNS - 1, max(0, int((at - self._begin) / self._span * COLUMNS)))
        point = (at, value)
        low, high = self._columns.get(column, (point, point))
        self._columns[column] = (min(low, point, key=_value), max(high, point, key=_value))

    def points(self) -> list[Point]:
        """What is drawn, by time: at most two points a column."""
        kept = {point for low_high in self._columns.values() for point in low_high}
        return sorted(kept)


def _value(point: Point) -> float:
    return point[1]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot, or one set of points."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Plot:
    """What a picture shows. `x` and `y` name the axes, with their units."""

    title: str
    lines: Sequence[Line]
    x: str = ""
    y: str = ""
    scatter: bool = False
    notes: Sequence[str] = field(default=())


def time_unit(span_s: float) -> tuple[float, str]:
    """The unit in which a span of time is read: how many seconds it has, and its name."""
    fitting = [unit for unit in _SPANS if span_s >= 2 * unit[0]]
    return fitting[-1] if fitting else _SPANS[0]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two numbers, at most `most` of them; at least one where the numbers are finite."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    found = [
        round(number * step, 12) for number in range(first, first + most + 1) if number * step <= high + step * 1e-9
    ]
    return found or [low]


def number_text(value: float) -> str:
    """A number as it is written at an axis."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:,.6g}"
    return f"{value:.3g}"


def svg(plot: Plot) -> str:
    """The picture, as an SVG element. It has a title, so that it can be read aloud."""
    points = [point for line in plot.lines for point in line.points]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(plot.title)}</title>",
    ]
    if not points:
        parts.append(f'<text class="tick" x="{_LEFT}" y="{HEIGHT // 2}">no finite values</text></svg>')
        return "".join(parts)
    frame = _Frame.around(points)
    parts.extend(_axes(frame, plot))
    for number, line in enumerate(plot.lines):
        parts.append(
            _dots(frame, line, number) if plot.scatter or len(line.points) == 1 else _path(frame, line, number)
        )
    parts.append("</svg>")
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The part of the plane that is shown."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, points: Sequence[Point]) -> _Frame:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        y_low, y_high = _widened(min(ys), max(ys))
        margin = (y_high - y_low) * 0.04 if y_high - y_low < 1e300 else 0.0
        return cls(*_widened(min(xs), max(xs)), y_low - margin, y_high + margin)

    def place(self, point: Point) -> tuple[float, float]:
        """Where a point is in the picture."""
        x = _LEFT + (point[0] - self.x_low) / (self.x_high - self.x_low) * COLUMNS
        y = _TOP + (self.y_high - point[1]) / (self.y_high - self.y_low) * (HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range that has a width, also where all values are equal, and where the difference is beyond a float."""
    low, high = max(low, -1e300), min(high, 1e300)
    if high > low:
        return low, high
    by = abs(low) * 0.01 or 1.0
    return low - by, high + by


def _axes(frame: _Frame, plot: Plot) -> Iterator[str]:
    bottom = HEIGHT - _BOTTOM
    for value in ticks(frame.y_low, frame.y_high, 7):
        _, y = frame.place((frame.x_low, value))
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{escape(number_text(value))}</text>'
    for value in ticks(frame.x_low, frame.x_high, 7):
        x, _ = frame.place((value, frame.y_low))
        yield f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{escape(number_text(value))}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text class="tick" x="{WIDTH - _RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(plot.x)}</text>'
    if plot.y:
        yield f'<text class="tick" x="4" y="{_TOP}" >{escape(plot.y)}</text>'


def _path(frame: _Frame, line: Line, number: int) -> str:
    places = " ".join(f"{x},{y}" for x, y in map(frame.place, line.points))
    return f'<polyline class="line s{number % 4}" points="{places}"/>'


def _dots(frame: _Frame, line: Line, number: int) -> str:
    places = map(frame.place, line.points)
    return "".join(f'<circle class="dot s{number % 4}" cx="{x}" cy="{y}" r="3"/>' for x, y in places)

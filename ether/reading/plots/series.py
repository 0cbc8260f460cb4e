"""The recent past of one number, thinned so that a plot shows every peak: minimum and maximum of each short span. Pure.

Memory is bounded: about a minute in spans of 20 ms, and half an hour in spans of half a second, however fast it comes.
A slow number is kept as it is: a span with one value is that value. NaN and infinities are gaps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain

Point = tuple[float, float | None]
"""A time in unix seconds, and the value; None for a gap."""

_SPANS = ((0.02, 6000), (0.5, 7200))


class _Spans:
    """Points in spans of one length."""

    def __init__(self, span_s: float, most: int) -> None:
        self._span_s = span_s
        self.points: deque[Point] = deque(maxlen=most)
        self._number = 0
        self._low: Point | None = None
        self._high: Point | None = None

    def add(self, time: float, value: float | None) -> None:
        number = int(time / self._span_s)
        if number != self._number or value is None:
            self.finish()
            self._number = number
        if value is None:
            self.points.append((time, None))
            return
        if self._low is None or self._low[1] is None or value < self._low[1]:
            self._low = (time, value)
        if self._high is None or self._high[1] is None or value >= self._high[1]:
            self._high = (time, value)

    def finish(self) -> None:
        """The span is over."""
        if self._low is not None and self._high is not None:
            both = (self._low, self._high) if self._low[0] <= self._high[0] else (self._high, self._low)
            self.points.append(both[0])
            if both[1] != both[0]:
                self.points.append(both[1])
        self._low = self._high = None


class Series:
    """One number over time. Not locked."""

    def __init__(self) -> None:
        self._fine, self._coarse = (_Spans(*each) for each in _SPANS)
        self._last = 0.0

    def add(self, time: float, value: float) -> None:
        """A value came. Times that go back are taken as the next moment."""
        time = max(time, self._last + 1e-6)
        self._last = time
        known = value if math.isfinite(value) else None
        self._fine.add(time, known)
        self._coarse.add(time, known)

    def settle(self, now: float) -> None:
        """Let the last value be seen, although nothing came after it."""
        if now - self._last > _SPANS[0][0]:
            self._fine.finish()

    def since(self, time: float) -> list[Point]:
        """The points after a time, the newest ones in fine spans, older ones in coarse ones."""
        fine = self._fine.points
        oldest = fine[0][0] if fine else math.inf
        older: Iterable[Point] = ()
        if time < oldest:
            older = (point for point in self._coarse.points if time < point[0] < oldest)
        return [point for point in chain(older, fine) if point[0] > time]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most about `most` points with the same outline: of each of `most / 2` equal spans the lowest and the highest
    point, and every gap that is the only point of its span."""
    if len(points) <= most or most < 2:
        return list(points)
    begin, end = points[0][0], points[-1][0]
    width = (end - begin) / (most // 2) or 1.0
    spans: dict[int, list[Point]] = {}
    for point in points:
        spans.setdefault(min(int((point[0] - begin) / width), most // 2 - 1), []).append(point)
    return [point for span in spans.values() for point in _outline(span)]


def _outline(span: Sequence[Point]) -> list[Point]:
    values = [(value, time) for time, value in span if value is not None]
    if not values:
        return [span[0]]
    low, high = min(values), max(values)
    both = {low[1]: low[0], high[1]: high[0]}
    return [(time, both[time]) for time in sorted(both)]

"""Message and byte rates over the last seconds of a stream. Pure; `now` is an argument in seconds.

Memory is bounded: at most `_LONGEST` messages are kept, so for a faster stream the rate covers less than the window.
"""

from __future__ import annotations

import statistics
from collections import deque
from itertools import pairwise
from typing import NamedTuple

_LONGEST = 20_000


class TopicRate(NamedTuple):
    """Over the window: messages and bytes a second, and the time between two messages (None for fewer than two)."""

    messages: int
    hz: float
    bytes_per_s: float
    mean_bytes: float
    interval_mean_s: float | None
    interval_min_s: float | None
    interval_max_s: float | None
    interval_deviation_s: float | None


class Meter:
    """Measures the rate of a stream: `take` for each message, `rate` for the result. Not locked."""

    def __init__(self, window_s: float, now: float) -> None:
        self._window_s = window_s
        self._began = now
        self._taken: deque[tuple[float, int]] = deque(maxlen=_LONGEST)
        self.total = 0

    def take(self, now: float, size_bytes: int = 0) -> None:
        """A message arrived."""
        self._taken.append((now, size_bytes))
        self.total += 1

    def rate(self, now: float) -> TopicRate:
        """The rate until now."""
        while self._taken and self._taken[0][0] <= now - self._window_s:
            self._taken.popleft()
        times = [when for when, _ in self._taken]
        seen_s = self._seen_s(now, times)
        size = sum(size for _, size in self._taken)
        gaps = [after - before for before, after in pairwise(times)]
        return TopicRate(
            len(times),
            len(times) / seen_s,
            size / seen_s,
            size / len(times) if times else 0.0,
            statistics.fmean(gaps) if gaps else None,
            min(gaps, default=None),
            max(gaps, default=None),
            statistics.pstdev(gaps) if gaps else None,
        )

    def _seen_s(self, now: float, times: list[float]) -> float:
        """The seconds that the kept messages cover: the window, or less at the begin and where the memory is full."""
        since = times[0] if len(times) == _LONGEST else max(self._began, now - self._window_s)
        return max(now - since, 1e-6)


def shown_bytes(count: float) -> str:
    """A number of bytes with its unit: 999 B, 1.5 kB, 2.0 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"

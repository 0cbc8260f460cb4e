"""How fast a ledger grows, and when its disk is full at that rate.

    rate = bytes that the ledger has grown by in the last `WINDOW_S` seconds, or since the beginning where that is less

Promises: pure; `now` is in seconds of a monotonic clock. A rate is None until `LEAST_S` seconds were seen, because the
first values bring the explanations of their programs with them. A ledger that was made smaller (a volume that was
closed, runs that were deleted) begins its window anew.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 600.0
LEAST_S = 10.0
_STEP_S = 5.0

SOON_S = 24 * 3600.0
"""A disk that is full within this time is worth a warning."""
VERY_SOON_S = 3600.0
"""Within this time it is worth an error."""


class Growth:
    """The size of one ledger in time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._last: tuple[float, int] | None = None

    def note(self, now: float, size: int | None) -> None:
        """The ledger has this many bytes now; None where that is not known."""
        if size is None:
            return
        if self._last is not None and size < self._last[1]:
            self._seen.clear()
        self._last = now, size
        if not self._seen or now - self._seen[-1][0] >= _STEP_S:
            self._seen.append((now, size))
        while len(self._seen) > 1 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()

    @property
    def bytes_per_s(self) -> float | None:
        """None where that is not known yet."""
        if self._last is None or self._last[0] - self._seen[0][0] < LEAST_S:
            return None
        return (self._last[1] - self._seen[0][1]) / (self._last[0] - self._seen[0][0])


def seconds_left(free_bytes: int, bytes_per_s: float | None) -> float | None:
    """In how many seconds the disk is full; None where nothing is written, or the rate is not known."""
    return free_bytes / bytes_per_s if bytes_per_s and bytes_per_s > 0 else None


def size_text(size: float) -> str:
    """A size as text: `850 B`, `1.2 GB`."""
    for limit, unit, divisor in ((1e3, "B", 1.0), (1e6, "kB", 1e3), (1e9, "MB", 1e6), (1e12, "GB", 1e9)):
        if size < limit:
            return f"{size / divisor:.3g} {unit}"
    return f"{size / 1e12:.4g} TB"


def left_text(seconds: float) -> str:
    """A time that is left, for people: `11 h`, `4 days`."""
    for size, unit in ((365 * 86_400.0, "years"), (86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size or (unit in ("h", "min") and seconds >= size):
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def forecast_text(free_bytes: int, bytes_per_s: float | None) -> str:
    """A sentence about the disk of a ledger: its rate, its room, how long that lasts."""
    room = f"{size_text(free_bytes)} free"
    if bytes_per_s is None:
        return f"{room}; the rate is not known yet"
    left = seconds_left(free_bytes, bytes_per_s)
    if left is None:
        return f"{room}; nothing is written at present"
    return f"{size_text(bytes_per_s * 3600)} an hour, {room}: full in {left_text(left)}"


def warning_of(free_bytes: int, bytes_per_s: float | None) -> str | None:
    """The same sentence where the disk is full within `SOON_S`, else None."""
    left = seconds_left(free_bytes, bytes_per_s)
    return None if left is None or left > SOON_S else forecast_text(free_bytes, bytes_per_s)

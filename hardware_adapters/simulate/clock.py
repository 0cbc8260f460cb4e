"""The time of a simulated lab: as fast as real time, faster, or advanced by hand.

`ScaledClock(100)` lets an hour pass in 36 s; `ManualClock` stands still until `advance()`, so that a test is exact.
Times are seconds since the clock was made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Tells the lab's time."""

    def now(self) -> float:
        """Seconds of the lab."""

    def wall_s(self, duration_s: float) -> float:
        """How long to wait in real time for this duration of the lab; a poll's length where it is not known."""

    def on_advance(self, callback: Callable[[], None]) -> None:
        """Register a callback for jumps of the time."""


class ScaledClock:
    """Runs `speed` times as fast as real time."""

    def __init__(self, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError(f"the speed of a clock is more than 0, not {speed}")
        self.speed, self._start = speed, time.monotonic()

    def now(self) -> float:
        """See `Clock`."""
        return (time.monotonic() - self._start) * self.speed

    def wall_s(self, duration_s: float) -> float:
        """See `Clock`."""
        return max(duration_s, 0.0) / self.speed

    def on_advance(self, callback: Callable[[], None]) -> None:
        """This clock never jumps."""


class ManualClock:
    """Stands still until `advance()`. A running delay of the lab ends with the `advance()` that reaches its end."""

    _POLL_S = 0.5

    def __init__(self) -> None:
        self._now, self._guard = 0.0, threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def now(self) -> float:
        """See `Clock`."""
        with self._guard:
            return self._now

    def advance(self, duration_s: float) -> None:
        """Let this time pass; the callbacks carry out what is due."""
        if duration_s < 0:
            raise ValueError(f"time does not run backwards: {duration_s}")
        with self._guard:
            self._now += duration_s
        for callback in tuple(self._callbacks):
            callback()

    def wall_s(self, duration_s: float) -> float:
        """See `Clock`."""
        return self._POLL_S if duration_s > 0 else 0.0

    def on_advance(self, callback: Callable[[], None]) -> None:
        """See `Clock`."""
        self._callbacks.append(callback)

"""A point in time by which something must be done, shared by several waits one after the other."""

from __future__ import annotations

import time


class Deadline:
    """`timeout_s` seconds from now, on the monotonic clock."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._at = time.monotonic() + timeout_s

    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        """True when no time is left."""
        return self.left() == 0.0

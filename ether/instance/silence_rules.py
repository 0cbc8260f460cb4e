"""Who has been silent for too long for a device to be left as it is. Decisions only: `now` is an argument.

Promise: what was heard of last at some time is gone `after_s` later, not sooner and not later; nothing else counts. The
trap: who has never been heard counts from the beginning, so that a name that is misspelt is gone and not trusted.
"""

from __future__ import annotations

from collections.abc import Iterable


class Absences:
    """Times in seconds of a steady clock. Not locked: one dict entry is written at a time."""

    def __init__(self, after_s: float, names: Iterable[str], now: float) -> None:
        self.after_s = after_s
        self._heard = dict.fromkeys(names, now)

    def hear(self, name: str, now: float) -> None:
        """A sign of it came."""
        if name in self._heard:
            self._heard[name] = now

    def gone(self, now: float) -> tuple[str, ...]:
        """Who has been silent for `after_s`."""
        return tuple(name for name, heard in self._heard.items() if now - heard >= self.after_s)

    def look_again_s(self, now: float) -> float:
        """Seconds until somebody may be gone who is not yet."""
        left = [heard + self.after_s - now for heard in self._heard.values() if now - heard < self.after_s]
        return min(left, default=self.after_s)

"""Computes when each message of a replay is due, so that the replay keeps the recording's timing. Pure.

Promises: due times depend on the recorded times alone, so the replay does not drift, however long sending takes; they
never decrease, even where a source's clock was set back. The trap: a clock that was set forward during the recording
becomes a pause of the replay.
"""

from __future__ import annotations

import math

from ether.errors import QueryMistake

AT_ONCE = math.inf
"""The speed of a replay without pauses."""


class ReplayPacing:
    """The due times of one replay. `speed` is the number of recorded seconds that pass in one second, or `AT_ONCE`.
    Raises `QueryMistake` for a speed that is not above 0."""

    def __init__(self, speed: float) -> None:
        if not speed > 0:
            raise QueryMistake(f"cannot play at the speed {speed!r}; 1 is the recording's own, 10 ten times as fast")
        self._speed = speed
        self._first: float | None = None
        self._latest_s = 0.0

    def due_s(self, time: float) -> float:
        """Seconds from the beginning of the replay until a message is due that was recorded at `time` (unix
        seconds)."""
        if self._first is None:
            self._first = time
        self._latest_s = max(self._latest_s, (time - self._first) / self._speed)
        return self._latest_s


def speed_of(speed: float | str) -> float:
    """A speed as users write it: a number above 0, or "max" for `AT_ONCE`. Raises `QueryMistake`."""
    if speed == "max":
        return AT_ONCE
    try:
        number = float(speed)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise QueryMistake(f"cannot play at the speed {speed!r}; give a number above 0, or 'max'")
    return number

"""When each message of a recording is due, so that a replay has the recording's rhythm. Pure.

Promises: due times follow from the recorded times alone, so nothing drifts, however long sending takes; they never go
back, even where a source's clock did. The trap: a clock that was set forward in the recording is a pause in the replay.
"""

from __future__ import annotations

import math

from ether.errors import QueryMistake

AT_ONCE = math.inf
"""A speed without any pauses."""


class ReplayPacing:
    """`speed` is how many recorded seconds pass in one; `AT_ONCE` for no pauses. Raises `QueryMistake` for none."""

    def __init__(self, speed: float) -> None:
        if not speed > 0:
            raise QueryMistake(f"cannot play at the speed {speed!r}; 1 is the recording's own, 10 ten times as fast")
        self._speed = speed
        self._first: float | None = None
        self._latest_s = 0.0

    def due_s(self, time: float) -> float:
        """Seconds from the beginning of the replay at which a message is due that was recorded at `time`."""
        if self._first is None:
            self._first = time
        self._latest_s = max(self._latest_s, (time - self._first) / self._speed)
        return self._latest_s


def speed_of(speed: float | str) -> float:
    """A speed as users give it: a number, or "max". Raises `QueryMistake`."""
    if speed == "max":
        return AT_ONCE
    try:
        number = float(speed)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise QueryMistake(f"cannot play at the speed {speed!r}; give a number above 0, or 'max'")
    return number

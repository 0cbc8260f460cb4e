"""The offset between the clocks of two machines, estimated from questions and answers as in NTP.

One machine asks at `asked`, the other answers with its own time, and the answer arrives at `answered`. The other clock
was read at some moment in between. Its middle is taken, which is wrong by half of the round trip at most. Of the last
few answers the one with the shortest round trip counts, because it waited least in queues.

The trap: the ways there and back may differ in time, and no measurement here shows it. The error bound still holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

_SAMPLES = 8
_DRIFT_S = 1.0
"""Clocks that are left alone drift apart by less than this while the samples are collected."""


class ClockOffset(NamedTuple):
    """Seconds by which this machine's clock is ahead of the other one, and the largest error of that."""

    ahead_s: float
    error_s: float


@dataclass(slots=True)
class OffsetEstimator:
    """Compares this machine's clock with another. Not locked; all times in unix seconds."""

    _samples: deque[ClockOffset] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    def note(self, asked: float, theirs: float, answered: float) -> None:
        """Take one answer. It is ignored where this machine's clock was set back in between. Earlier answers that it
        contradicts are dropped: one of the clocks was set since."""
        if answered < asked:
            return
        latest = ClockOffset((asked + answered) / 2 - theirs, (answered - asked) / 2)
        if any(abs(latest.ahead_s - old.ahead_s) > latest.error_s + old.error_s + _DRIFT_S for old in self._samples):
            self._samples.clear()
        self._samples.append(latest)

    def offset(self) -> ClockOffset | None:
        """The best of the latest answers; None before the first."""
        return min(self._samples, key=lambda sample: sample.error_s, default=None)

"""How far two machines' clocks are apart, from questions and answers.

We ask at `asked`, the other answers with its own time, the answer is here at `answered`: the other's clock was read
somewhere in between, so half of the round trip is the most by which the middle can be wrong. Of the last few answers
the one with the shortest round trip counts, as in NTP: it has waited least in queues.

The trap: the network's way there and back need not take the same time, and nothing here can tell. The bound holds all
the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

_SAMPLES = 8


class ClockOffset(NamedTuple):
    """Seconds that our clock is ahead of the other one, and by how much that may be wrong."""

    ahead_s: float
    error_s: float


@dataclass(slots=True)
class OffsetEstimator:
    """Compares our clock with one other. Not locked; all times in seconds of the epoch."""

    _samples: deque[ClockOffset] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    def note(self, asked: float, theirs: float, answered: float) -> None:
        """One question; nothing where our clock was set in between."""
        if answered >= asked:
            self._samples.append(ClockOffset((asked + answered) / 2 - theirs, (answered - asked) / 2))

    def offset(self) -> ClockOffset | None:
        """The best answer of the last ones; None before the first."""
        return min(self._samples, key=lambda sample: sample.error_s, default=None)

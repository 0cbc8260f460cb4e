"""Notices that a machine's wall clock was set: it then moved against the machine's uptime. Decisions only.

Promise: a machine that was asleep, and a clock that runs slightly fast or slow and is pulled right, are no clock that
was set. The trap: both clocks have to be read at the same moment (`ether.system.clock.wall_and_uptime`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

STEP_S = 1.0
"""A wall clock that moves by more than this against the uptime, between two looks, was set."""


class ClockStep(NamedTuple):
    """The clock was set between two looks."""

    set_by_s: float
    ahead_s: float
    """By how much the wall clock is ahead of the uptime since."""
    after_uptime: float
    """The uptime of the look before, and of this one."""
    uptime: float


@dataclass(slots=True)
class ClockSteps:
    """One machine's clock, as one process looks at it. Not locked."""

    wall: float
    uptime: float

    @property
    def ahead_s(self) -> float:
        """By how much the wall clock was ahead of the uptime at the last look."""
        return self.wall - self.uptime

    def look(self, wall: float, uptime: float) -> ClockStep | None:
        """Take a look; None where the clock was not set."""
        before, after_uptime = self.ahead_s, self.uptime
        self.wall, self.uptime = wall, uptime
        set_by_s = self.ahead_s - before
        if abs(set_by_s) <= STEP_S:
            return None
        return ClockStep(set_by_s, self.ahead_s, after_uptime, uptime)


def set_words(host: str, set_by_s: float) -> str:
    """What happened, for people: "the clock of pi3 was set back by 7,200 s"."""
    amount = f"{abs(set_by_s):,.0f}" if abs(set_by_s) >= 10 else f"{abs(set_by_s):.1f}"
    return f"the clock of {host} was set {'forward' if set_by_s > 0 else 'back'} by {amount} s"

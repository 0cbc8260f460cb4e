"""How long a run will take, by how long its trials took. Pure.

The median of the trials that are done, times those that are left; pauses between trials are not counted, so the time
left is never too long. Without a trial that is done nothing is said.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ether.protocol.run_record import RunState


@dataclass(frozen=True, slots=True)
class Outlook:
    """`left_s` is None where it is not known: no trial is done, or nobody knows how many there will be."""

    done: int
    planned: int | None
    """None where conditions are drawn while the run goes on."""
    left_s: float | None
    trial_s: float | None
    shortest_s: float | None
    longest_s: float | None
    measured: int
    """How many trials that is derived from."""


def outlook(state: RunState) -> Outlook:
    """What the facts of a run say of its end."""
    took = [found.seconds for found in state.trials.values() if found.seconds is not None]
    planned = state.planned if state.complete else None
    median = statistics.median(took) if took else None
    left = None if planned is None or median is None else max(0, planned - len(state.done)) * median
    return Outlook(len(state.done), planned, left, median, min(took, default=None), max(took, default=None), len(took))

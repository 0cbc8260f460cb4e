"""The quantities that the instruments of a lab measure and change, by name, and wires between them.

A wire lets one quantity follow another with a time constant (a first-order lag): `offset + gain × source` is its
goal, `tau_s` its time constant. So a heater's power warms what the thermometer reads. Values are computed when they
are read, from the last reading on in steps that are short against the smallest time constant; the same seed, commands
and times of reading give the same values.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

_STEPS_PER_TAU = 20
_MAX_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class Wire:
    """`to` goes towards `offset + gain × source`, with the time constant `tau_s` (0: at once)."""

    source: str
    to: str
    gain: float = 1.0
    offset: float = 0.0
    tau_s: float = 0.0


class World:
    """The quantities of a lab, at a time that never goes back."""

    def __init__(self, wires: tuple[Wire, ...] = ()) -> None:
        self._wires = wires
        self._values: dict[str, float] = {}
        self._now, self._guard = 0.0, threading.RLock()

    def add(self, name: str, value: float) -> None:
        """Enter a quantity and its first value."""
        with self._guard:
            self._values[name] = value

    def check(self) -> None:
        """Raise ValueError for a wire from or to an unknown quantity."""
        for wire in self._wires:
            for name in (wire.source, wire.to):
                if name not in self._values:
                    raise ValueError(f"there is no quantity {name!r}; there are: {', '.join(sorted(self._values))}")

    def value(self, name: str, now: float) -> float:
        """The quantity at this time of the lab. Raises KeyError for an unknown name."""
        with self._guard:
            self._advance(now)
            return self._values[name]

    def set(self, name: str, value: float, now: float) -> None:
        """Change a quantity from this time on."""
        with self._guard:
            self._advance(now)
            self._values[name] = value
            self._step(0.0)

    def _advance(self, now: float) -> None:
        passed = now - self._now
        if passed <= 0 or not self._wires:
            self._now = max(self._now, now)
            return
        slow = [wire.tau_s for wire in self._wires if wire.tau_s > 0]
        steps = min(max(math.ceil(passed / (min(slow) / _STEPS_PER_TAU)), 1), _MAX_STEPS) if slow else 1
        for _ in range(steps):
            self._step(passed / steps)
        self._now = now

    def _step(self, duration_s: float) -> None:
        """Let every wire act for this time, by the exact solution for a constant source; 0 s moves only wires
        without lag."""
        for wire in self._wires:
            goal = wire.offset + wire.gain * self._values[wire.source]
            left = math.exp(-duration_s / wire.tau_s) if wire.tau_s > 0 else 0.0
            self._values[wire.to] = goal + (self._values[wire.to] - goal) * left

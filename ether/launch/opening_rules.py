"""When the ticks of instances that are started together begin. Decisions only: `now` is an argument.

Promises: they begin together, when everybody is ready; where somebody is missing, each of the others begins at the
latest `wait_s` seconds after it was seen to be ready. Each is told once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Begins(NamedTuple):
    """The instances that begin now, and those that are not ready."""

    names: list[str]
    without: list[str]


@dataclass(slots=True)
class OpeningRules:
    """Not locked; `now` in seconds of a steady clock."""

    everybody: Collection[str]
    """All that the program starts, on whichever machine."""
    own: Iterable[str]
    """Those of them that wait to be told."""
    wait_s: float
    _waiting: list[str] = field(default_factory=list)
    _ready_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._waiting = list(self.own)

    @property
    def over(self) -> bool:
        """Whether all have been told."""
        return not self._waiting

    def look(self, ready: Collection[str], now: float) -> Begins:
        """The instances to be told now, of those that are ready; they count as told."""
        without = [name for name in self.everybody if name not in ready]
        for name in self._waiting:
            if name in ready:
                self._ready_at.setdefault(name, now)
        due = [
            name
            for name in self._waiting
            if name in ready and (not without or now - self._ready_at[name] >= self.wait_s)
        ]
        self._waiting = [name for name in self._waiting if name not in due]
        return Begins(due, without)

    def next_s(self, now: float) -> float | None:
        """After how long the next one is due, whoever is missing; None where only a change of what is ready matters."""
        times = [self._ready_at[name] + self.wait_s for name in self._waiting if name in self._ready_at]
        return max(0.0, min(times) - now) if times else None

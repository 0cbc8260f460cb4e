"""The states of an alarm: what a value's limits, an acknowledgement and a shelf make of it.

    ok            within its limits
    warn, alarm   outside of them, and nobody has acknowledged it
    acknowledged  still outside, and somebody knows
    latched       within them again, after an alarm that nobody has acknowledged (`latch: true`)
    shelved       somebody wants to hear nothing of it for a time; what is below goes on

Promises: pure; moments are arguments. A level is left when the value is inside of the limit by the dead band. A value
that is no finite number is an alarm: a broken sensor must not look well. The trap: `now` has two clocks. Ages go by the
one that cannot be set, people and records get the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ether.spec.wrapping import PlannedCall, planned

Ends = tuple[float | None, float | None]
LEVELS = ("ok", "warn", "alarm")
OK, WARN, ALARM = LEVELS
ACKNOWLEDGED, LATCHED, SHELVED = "acknowledged", "latched", "shelved"
NO_END: Ends = (None, None)


class Now(NamedTuple):
    """A moment: seconds of a clock that cannot be set, and of the epoch."""

    steady: float
    wall: float


@dataclass(frozen=True, slots=True)
class AlarmSpec:
    """An alarm as the registry writes it. Beyond the ends of `warn` or `alarm` is that level."""

    name: str
    warn: Ends = NO_END
    alarm: Ends = NO_END
    latch: bool = False
    dead_band: float = 0.0
    unit: str = ""
    calls: tuple[PlannedCall, ...] = ()
    """What is called on the device when it becomes an alarm."""

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any], on_alarm: Any, unit: str = "") -> AlarmSpec:
        """As the registry writes it."""
        calls = planned([{**call, "method": call["call"]} for call in on_alarm or ()])
        warn, alarm = (tuple(options.get(level) or NO_END) for level in (WARN, ALARM))
        return cls(name, warn, alarm, bool(options.get("latch")), options.get("dead_band") or 0.0, unit, calls)

    def level_of(self, numbers: list[float] | None, before: str) -> str:
        """The worst level of the numbers of a value; None is none at all."""
        if numbers is None:
            return ALARM
        for level in (ALARM, WARN):
            ends = self.alarm if level == ALARM else self.warn
            held = self.dead_band if LEVELS.index(before) >= LEVELS.index(level) else 0.0
            if any(_beyond(ends, number, held) for number in numbers):
                return level
        return OK

    def worst_of(self, numbers: list[float]) -> float:
        """Of several numbers the one that is told: the farthest beyond its limits, or else the largest."""
        for held in (0.0, self.dead_band):
            for ends in (self.alarm, self.warn):
                worst = max(numbers, key=lambda number, ends=ends: _excess(ends, number))  # type: ignore[misc]
                if _excess(ends, worst) > -held:
                    return worst
        return max(numbers)

    def limits_text(self, level: str) -> str:
        """`above 80 °C`: what a level means."""
        low, high = self.alarm if level == ALARM else self.warn
        ends = [f"below {low:g}"] if low is not None else []
        ends += [f"above {high:g}"] if high is not None else []
        return f"{' or '.join(ends)} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Shelf:
    """Who wants to hear nothing of an alarm, since when and until when, and why."""

    by: str
    since: float
    until: float
    until_steady: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who knows of an alarm, since when, and what was said."""

    by: str
    at: float
    note: str = ""


class AlarmState:
    """One alarm of one instance. Not locked."""

    def __init__(self, spec: AlarmSpec, now: Now) -> None:
        self.spec, self.level, self.latched = spec, OK, False
        self.acknowledged: Acknowledgement | None = None
        self.shelf: Shelf | None = None
        self.value: object = None
        self.since = now.wall
        """When the present state began."""

    @property
    def state(self) -> str:
        """One of the words above."""
        return SHELVED if self.shelf is not None else self._below_the_shelf()

    def _below_the_shelf(self) -> str:
        if self.latched and self.level != ALARM:
            return LATCHED
        return ACKNOWLEDGED if self.level != OK and self.acknowledged is not None else self.level

    @property
    def wants_calls(self) -> bool:
        """Whether it is an alarm that nobody has acknowledged or shelved."""
        return self.state == ALARM

    def look(self, numbers: list[float] | None, value: object, now: Now) -> bool:
        """Take a value; whether the state or the level has changed."""
        before = self.state, self.level
        self.value = value
        level = self.spec.level_of(numbers, self.level)
        if LEVELS.index(level) > LEVELS.index(self.level):
            self.acknowledged = None
        if level == ALARM != self.level:
            self.latched = self.spec.latch
        self.level = level
        if level == OK:
            self.acknowledged = None
        return self._changed(before, now)

    def acknowledge(self, by: str, note: str, now: Now) -> str:
        """Somebody knows of it; why not, or an empty text."""
        if self.level == OK and not self.latched:
            return "there is nothing to acknowledge: it is ok"
        if self.acknowledged is not None and not self.latched:
            return f"it is acknowledged already, by {self.acknowledged.by}"
        before = self.state, self.level
        self.latched = False
        self.acknowledged = Acknowledgement(by, now.wall, note) if self.level != OK else None
        self._changed(before, now)
        return ""

    def shelve(self, by: str, seconds: float, note: str, now: Now) -> None:
        """Nobody is to hear of it for so long. A second time counts from now."""
        before = self.state, self.level
        self.shelf = Shelf(by, now.wall, now.wall + seconds, now.steady + seconds, note)
        self._changed(before, now)

    def unshelve(self, now: Now) -> str:
        """Take it from the shelf; why not, or an empty text."""
        if self.shelf is None:
            return "it is not shelved"
        before, self.shelf = (self.state, self.level), None
        self._changed(before, now)
        return ""

    def is_due(self, now: Now) -> bool:
        """Whether its time on the shelf is over."""
        return self.shelf is not None and now.steady >= self.shelf.until_steady

    def about(self) -> dict[str, Any]:
        """As it is announced and published."""
        said: dict[str, Any] = {"state": self.state, "level": self.level, "value": self.value, "since": self.since}
        said |= {"unit": self.spec.unit} if self.spec.unit else {}
        said |= {f"{level}_when": text for level in (WARN, ALARM) if (text := self.spec.limits_text(level))}
        if self.acknowledged is not None:
            known = self.acknowledged
            said["acknowledged"] = {"by": known.by, "at": known.at, "note": known.note}
        if self.shelf is not None:
            shelf = self.shelf
            said["shelved"] = {"by": shelf.by, "at": shelf.since, "until": shelf.until, "note": shelf.note}
        return said

    def _changed(self, before: tuple[str, str], now: Now) -> bool:
        if before == (self.state, self.level):
            return False
        self.since = now.wall
        return True


def _beyond(ends: Ends, number: float, held: float) -> bool:
    return _excess(ends, number) > -held


def _excess(ends: Ends, number: float) -> float:
    """How far a number is beyond its ends; below zero where it is within them."""
    low, high = ends
    nothing = float("-inf")
    return max(nothing if low is None else low - number, nothing if high is None else number - high)

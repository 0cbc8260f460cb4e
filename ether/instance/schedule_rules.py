"""When the next tick is due, and which ticks were missed. Decisions only: `now` is an argument.

Promises: the ticks of a period lie on a grid that does not drift, however late each one is noticed. A tick that could
not be taken in time is counted as missed and never made up for, so that a process which stood still for a minute does
not fire sixty times.

A point in time that the wall clock never showed, because it was set forward, was not missed: nobody was late. It is due
after all where the clock is set right again before it. And a clock that was set back does not silence a calendar until
the old time is reached again (`clock_set`).

The trap: a period goes by the steady clock (which cannot be set), a point in time goes by the wall clock. Each schedule
says which of the two `now` has to come from (`steady`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple, Protocol

from ether.config.when import Cron, Once, Period, When

LATE_S = 30.0
"""A point in time that is noticed later than this (the machine slept, the clock was set) counts as missed."""

SMALL_STEP_S = 3 * 3600.0
"""A wall clock that is set by no more than this was about right, as when clocks are changed for the summer."""

_FREQUENT_S = 3600.0
_CORRECTION_S = 300.0
"""A calendar with ticks closer than the one goes on by the new time at once when the clock is set back by more than the
other. By less, a minute that comes again is the same minute."""

_REMEMBERED = 64
_DAYS_AHEAD = 366 * 8
"""How far ahead a calendar is searched: from one 29th of February to the next takes eight years across 2100."""

_MISSED_MAX = 10_000
"""More missed ticks are not counted: a clock that jumped by years must not cost minutes of counting."""
_EVERY_HOUR = frozenset(range(24))


class Tick(NamedTuple):
    """A tick that is due: whether to run it, and how many ticks were missed."""

    runs: bool
    missed: int


class Schedule(Protocol):
    """One schedule. Not locked."""

    steady: bool
    """True: `now` comes from the steady clock; False: `now` is in seconds of the epoch."""

    def due(self) -> float | None:
        """The time of the next tick; None where there is none."""

    def take(self, now: float) -> Tick | None:
        """Take the tick that is due now; None where none is due. Each tick is given once."""

    def clock_set(self, before: float, now: float) -> bool:
        """The wall clock was set: it would show `before` now, and shows `now`. Whether a tick is left out by that."""


def schedule(when: When, steady_now: float, wall_now: float, zone: tzinfo | None = None) -> Schedule:
    """A schedule that begins now. A period's first tick is due at once. Without `zone`, the machine's zone counts."""
    if isinstance(when, Period):
        return _Periodic(when.seconds, steady_now)
    if isinstance(when, Once):
        return _OneShot(_local(when.time, zone).timestamp())
    return _ByCalendar(when, wall_now, zone)


class _Periodic:
    steady = True

    def __init__(self, period_s: float, start: float) -> None:
        self._period_s, self._start, self._next = period_s, start, 0

    def due(self) -> float:
        return self._start + self._next * self._period_s

    def take(self, now: float) -> Tick | None:
        if now < self.due():
            return None
        latest = max(self._next, int((now - self._start) / self._period_s))
        missed, self._next = latest - self._next, latest + 1
        return Tick(True, missed)

    def clock_set(self, before: float, now: float) -> bool:
        return False


class _OneShot:
    steady = False

    def __init__(self, time: float) -> None:
        self._time = time
        self._taken = self._left_out = False

    def due(self) -> float | None:
        return None if self._taken or self._left_out else self._time

    def take(self, now: float) -> Tick | None:
        due = self.due()
        if due is None or now < due:
            return None
        in_time, self._taken = now - due <= LATE_S, True
        return Tick(in_time, int(not in_time))

    def clock_set(self, before: float, now: float) -> bool:
        was_out, self._left_out = self._left_out, not self._taken and self._time < now - LATE_S
        return self._left_out and not was_out


class _ByCalendar:
    steady = False

    def __init__(self, cron: Cron, start: float, zone: tzinfo | None) -> None:
        self._cron, self._zone = cron, zone
        self._next = next_time(cron, start, zone)
        self._set_by = 0.0
        """By how much the clock was set since the start, in all."""
        self._soon_s = 0.0
        """A time that was given comes again within this: it is the same time. 0 where the clock was never set."""
        self._given: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        """The latest ticks that were given: for which time, and when by a clock that was never set."""

    def due(self) -> float | None:
        return self._next

    def take(self, now: float) -> Tick | None:
        """Of all ticks up to now only the latest one can run, if it is not too late; the others are missed."""
        if self._next is None or now < self._next:
            return None
        passed = 0
        latest = self._next
        while self._next is not None and self._next <= now and passed < _MISSED_MAX:
            latest, passed = self._next, passed + 1
            self._next = self._following(latest)
        if passed == _MISSED_MAX:
            self._next = self._following(now)
        in_time = now - latest <= LATE_S
        if in_time:
            self._given.append((latest, now - self._set_by))
        return Tick(in_time, passed - in_time)

    def clock_set(self, before: float, now: float) -> bool:
        """Go on by the new time. A tick that has been given is not given again where its time comes again soon: a rare
        one within hours (as in an hour that occurs twice), a frequent one within minutes."""
        due = self._next
        self._set_by += now - before
        self._soon_s = _CORRECTION_S if self._is_frequent(before) else SMALL_STEP_S
        if now < before:
            self._next = self._following(now)
            return False
        if due is None or due > now:
            return False
        self._next = self._following(max(before, now - LATE_S))
        return due != self._next and now - before <= SMALL_STEP_S

    def _following(self, after: float) -> float | None:
        """The first time after this one that is not one that was given just now."""
        found = next_time(self._cron, after, self._zone)
        while found is not None and self._soon_s and self._was_given(found):
            found = next_time(self._cron, found, self._zone)
        return found

    def _was_given(self, time: float) -> bool:
        return any(time == given and time - self._set_by - when <= self._soon_s for given, when in self._given)

    def _is_frequent(self, after: float) -> bool:
        first = next_time(self._cron, after, self._zone)
        second = None if first is None else next_time(self._cron, first, self._zone)
        return first is not None and second is not None and second - first <= _FREQUENT_S


def next_time(cron: Cron, after: float, zone: tzinfo | None = None) -> float | None:
    """The first tick after `after`, in seconds of the epoch; None where there is none within eight years.

    When clocks are put back, an hour occurs twice: schedules for every hour run in both, other schedules in the first.
    When clocks are put forward, a time that falls into the gap runs an hour later.
    """
    begin = datetime.fromtimestamp(after, zone)
    # `fold` tells the two occurrences of such an hour apart.
    folds = (0, 1) if cron.hours == _EVERY_HOUR else (0,)
    for day in _days(cron, begin.date()):
        found = [time for time in _times_of(cron, day, zone, folds) if time > after]
        if found:
            return min(found)
    return None


def _days(cron: Cron, first: date) -> Iterator[date]:
    # From one day back: where clocks are put back at midnight, an hour of the day before occurs again after its end.
    for number in range(-1, _DAYS_AHEAD):
        day = first + timedelta(days=number)
        if day.month in cron.months and _is_day(cron, day):
            yield day


def _is_day(cron: Cron, day: date) -> bool:
    """Whether a day matches; as in cron, either the date or the weekday is enough where both are restricted."""
    by_date, by_weekday = day.day in cron.days, day.isoweekday() % 7 in cron.weekdays
    return by_date or by_weekday if cron.either_day else by_date and by_weekday


def _times_of(cron: Cron, day: date, zone: tzinfo | None, folds: tuple[int, ...]) -> Iterator[float]:
    for hour in sorted(cron.hours):
        for minute in sorted(cron.minutes):
            for fold in folds:
                local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone, fold=fold)
                yield local.timestamp()


def _local(time: datetime, zone: tzinfo | None) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=zone)

"""When the next tick is due, and which ones were missed. Decisions only: `now` is an argument.

Promises: ticks of a period stand on a grid that does not drift, however late each one is noticed; a tick that nobody
could take in time is counted as missed and never made up for, so that a process which stood still for a minute does
not fire sixty times. The trap: a period is a matter of the steady clock (which nobody sets), a point in time of the
wall clock. Each schedule says which one it is to be asked with.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple, Protocol

from ether.config.when import Cron, Once, Period, When

LATE_S = 30.0
"""A point in time that is noticed later than this (a machine that slept, a clock that was set) has been missed."""

_DAYS_AHEAD = 366 * 8
"""Far enough for the 29th of February across 2100."""

_MISSED_MAX = 10_000
_EVERY_HOUR = frozenset(range(24))


class Tick(NamedTuple):
    """What is due: whether to run, and how many ticks before were missed."""

    runs: bool
    missed: int


class Schedule(Protocol):
    """One schedule. Not locked."""

    steady: bool
    """True: ask with the steady clock; False: with seconds of the epoch."""

    def due(self) -> float | None:
        """When the next tick is; None for never."""

    def take(self, now: float) -> Tick | None:
        """The tick that is due now, once; None where none is."""


def schedule(when: When, steady_now: float, wall_now: float, zone: tzinfo | None = None) -> Schedule:
    """A schedule that begins now. A period's first tick is due at once. `zone` is the machine's own where left out."""
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


class _OneShot:
    steady = False

    def __init__(self, time: float) -> None:
        self._time: float | None = time

    def due(self) -> float | None:
        return self._time

    def take(self, now: float) -> Tick | None:
        if self._time is None or now < self._time:
            return None
        in_time, self._time = now - self._time <= LATE_S, None
        return Tick(in_time, int(not in_time))


class _ByCalendar:
    steady = False

    def __init__(self, cron: Cron, start: float, zone: tzinfo | None) -> None:
        self._cron, self._zone = cron, zone
        self._next = next_time(cron, start, zone)

    def due(self) -> float | None:
        return self._next

    def take(self, now: float) -> Tick | None:
        if self._next is None or now < self._next:
            return None
        passed = 0
        latest = self._next
        while self._next is not None and self._next <= now and passed < _MISSED_MAX:
            latest, passed = self._next, passed + 1
            self._next = next_time(self._cron, latest, self._zone)
        if passed == _MISSED_MAX:
            self._next = next_time(self._cron, now, self._zone)
        in_time = now - latest <= LATE_S
        return Tick(in_time, passed - in_time)


def next_time(cron: Cron, after: float, zone: tzinfo | None = None) -> float | None:
    """The first time after `after`, in seconds of the epoch; None where there is none within eight years.

    Where clocks are put back an hour comes twice: lines for every hour run in both, others in the first. Where they are
    put forward, what falls into the gap runs an hour later.
    """
    begin = datetime.fromtimestamp(after, zone)
    folds = (0, 1) if cron.hours == _EVERY_HOUR else (0,)
    for day in _days(cron, begin.date()):
        found = [time for time in _times_of(cron, day, zone, folds) if time > after]
        if found:
            return min(found)
    return None


def _days(cron: Cron, first: date) -> Iterator[date]:
    # One day back: where the clocks are put back at midnight, a day's hour comes again after its end.
    for number in range(-1, _DAYS_AHEAD):
        day = first + timedelta(days=number)
        if day.month in cron.months and _is_day(cron, day):
            yield day


def _is_day(cron: Cron, day: date) -> bool:
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

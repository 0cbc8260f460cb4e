"""When something is due, as users write it: a period, a line of cron, or a point in time.

    0.5s   200 ms   5min   1h   2d   10Hz          again and again
    */5 * * * *                                    minute, hour, day of the month, month, weekday; local time
    at 2026-01-16 07:30                            once; local time where no offset is given

Cron means the common subset: `*`, numbers, ranges, lists, steps, names of months and weekdays, 7 for Sunday. Where both
the day and the weekday are given, one of them is enough, as in every cron. No seconds, no `@daily`, no `L` or `W`.
It imports only the error tree and the calendar, because every process that runs an instance loads this module.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from ether.errors import ConfigError

UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
SHORTEST_S, LONGEST_S = 0.001, 366 * 86_400.0
DURATION_RULE = f"write a number and its unit ({', '.join(UNITS_S)}), such as 0.5s."
WHEN_RULE = (
    "expected a period such as 0.5s, 5min or 10Hz; five fields of cron such as '*/5 * * * *'; or a point in time such"
    " as 'at 2026-01-16 07:30'."
)

_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]+)")
_PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Period(NamedTuple):
    """A period: due every so many seconds."""

    seconds: float


class Cron(NamedTuple):
    """A set of minutes of local time. `weekdays` counts from 0 for Sunday; `either_day`: day or weekday is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool


class Once(NamedTuple):
    """A point in time; local where it has no offset."""

    time: datetime


When = Period | Cron | Once


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 7, _WEEKDAYS),
)


def parse_when(text: object) -> When:
    """The times that a text describes; raises `ConfigError` with the rule."""
    if not isinstance(text, str):
        raise ConfigError(f"found {text!r:.60}; {WHEN_RULE}")
    words = text.split()
    if words[:1] == ["at"]:
        return _once(text, " ".join(words[1:]))
    if len(words) == len(_FIELDS):
        return _cron(words)
    return Period(_period_s(text))


def duration_s(text: object) -> float:
    """The seconds of a duration such as `2s`; raises `ConfigError` with the rule."""
    found = _AMOUNT.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None or found[2] not in UNITS_S:
        raise ConfigError(f"found {text!r:.60}; {DURATION_RULE}")
    return _within(text, float(found[1]) * UNITS_S[found[2]])


def _period_s(text: str) -> float:
    found = _AMOUNT.fullmatch(text.strip())
    if found is not None and found[2] == "Hz" and float(found[1]) > 0:
        return _within(text, 1 / float(found[1]))
    if found is None or found[2] not in UNITS_S:
        raise ConfigError(f"found {text!r:.60}; {WHEN_RULE}")
    return _within(text, float(found[1]) * UNITS_S[found[2]])


def _within(text: object, seconds: float) -> float:
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ConfigError(f"found {text!r:.60}; from 1 ms to 366 days are possible.")
    return seconds


def _once(text: str, written: str) -> Once:
    try:
        return Once(datetime.fromisoformat(written))
    except ValueError as error:
        raise ConfigError(f"found {text!r:.60}; {WHEN_RULE}") from error


def _cron(words: list[str]) -> Cron:
    minutes, hours, days, months, weekdays = (_numbers(word, field) for word, field in zip(words, _FIELDS, strict=True))
    either = not words[2].startswith("*") and not words[4].startswith("*")
    cron = Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)
    if not either and not _some_day(cron):
        raise ConfigError(f"found {' '.join(words)!r:.60}; there is no such day in any year.")
    return cron


def _some_day(cron: Cron) -> bool:
    """Whether one of the months is long enough for one of the days; `30 2` (30 February) never comes."""
    longest = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
    return any(min(cron.days) <= longest.get(month, 31) for month in cron.months)


def _numbers(word: str, field: _Field) -> frozenset[int]:
    """The numbers that one field of cron names: a list of parts, each `*`, `n`, `n-m`, with `/step` behind it or not.
    As in every cron, `n/step` runs from n to the end of the range. `*` of a weekday leaves out 7, which is Sunday
    again."""
    numbers: set[int] = set()
    for part in word.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise _not_in(field, part)
        every, first, last, step = found.groups()
        if every:
            low, high = field.low, field.high - (field.name == "weekday")
        else:
            low = _number(first, field)
            high = _number(last, field) if last else field.high if step else low
        if low > high or step == "0":
            raise _not_in(field, part)
        numbers.update(range(low, high + 1, int(step or 1)))
    return frozenset(numbers)


def _number(text: str, field: _Field) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.low
    if not text.isdecimal() or not field.low <= int(text) <= field.high:
        raise _not_in(field, text)
    return int(text)


def _not_in(field: _Field, part: str) -> ConfigError:
    return ConfigError(
        f"found {part!r:.40} as {field.name}; expected *, a number from {field.low} to {field.high}, a range, a list,"
        " or a step such as */5."
    )

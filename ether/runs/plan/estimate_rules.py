"""Estimates the duration of a planned run, and the bytes that it records, from past runs and from the plan.

Promises: pure. Where neither past runs nor the plan give a figure, the estimate is None, never a guess. The duration of
a trial is the median of past trials, so that one that was held up for a night does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from ether.config.plan import PlannedData, RunPlan, size_bytes
from ether.config.when import Period, duration_s, parse_when
from ether.protocol.run_record import RunState
from ether.recording.forecast_rules import size_text
from ether.runs.plan.call_rules import Place, PlanFault
from ether.runs.trial_rules import duration_text

_PAGE, _USABLE, _MOST_LOCAL, _LEAST_LOCAL, _OVERFLOW = 4096, 4088, 4061, 489, 4092
"""The layout of an SQLite file, in bytes, since a ledger is one (https://www.sqlite.org/fileformat2.html, "B-tree
Pages"): the size of a page; the part of it for rows; the longest row that fits into a page as a whole; the least that
stays there of a longer row; what an overflow page takes of its rest."""

_ROW_BYTES, _INDEX_BYTES = 150, 100
"""Bytes of a record beside its payload: in its row (ids, names, checksums), and in the indexes."""

_FILE_BYTES = 64 * 1024
"""A larger payload is a file of its own, which takes whole blocks of the disk."""

SLOWER = 1.1
"""Past trials contradict the plan's `each` where their median is more than this many times as long."""

_KEEP_FREE_BYTES = 1e9
"""With less free space than this, other programs begin to fail."""


@dataclass(frozen=True, slots=True)
class PastTopic:
    """What past trials recorded on a topic: number of messages, their mean size in bytes, the total duration of the
    trials in seconds, the number of trials."""

    count: int
    size: float
    seconds: float
    trials: int


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier runs of the same name show. `trial_s` are the durations of their finished trials, in seconds."""

    runs: int = 0
    trial_s: tuple[float, ...] = ()
    topics: Mapping[str, PastTopic] | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of a run; None where a figure is not known. `based_on` names the source of `seconds`; `unknown` are
    the topics whose size or rate is not known, and `bytes` is without them."""

    trials: int
    seconds: float | None
    based_on: str
    bytes: float | None
    unknown: tuple[str, ...] = ()


def past_trials(runs: Iterable[RunState], name: str) -> tuple[int, tuple[float, ...]]:
    """The number of past runs of that name, and the durations of their finished trials in seconds. A trial inside of
    another one is part of that one's time."""
    same = [run for run in runs if run.name == name]
    seconds: list[float] = []
    for run in same:
        nested = run.nested
        seconds += [t.seconds for number, t in run.trials.items() if t.seconds is not None and number not in nested]
    return len(same), tuple(seconds)


def estimate(plan: RunPlan, trials: int, past: Past) -> Estimate:
    """The estimate for a whole run of `trials` trials."""
    each, based_on = _trial_s(plan, past)
    seconds = None if each is None else each * trials
    sizes = {topic: _topic_bytes(expected, topic, trials, seconds, past) for topic, expected in plan.data.items()}
    unknown = tuple(topic for topic, size in sizes.items() if size is None)
    known = [size for size in sizes.values() if size is not None]
    return Estimate(trials, seconds, based_on, sum(known) if known or not unknown else None, unknown)


def _trial_s(plan: RunPlan, past: Past) -> tuple[float | None, str]:
    if past.trial_s:
        times = f"{len(past.trial_s)} past trial{'s' if len(past.trial_s) != 1 else ''}"
        return median(past.trial_s), f"median of {times}"
    return (duration_s(plan.each), "as stated") if plan.each is not None else (None, "no past trials, nothing stated")


def _topic_bytes(expected: PlannedData, topic: str, trials: int, seconds: float | None, past: Past) -> float | None:
    before = (past.topics or {}).get(topic)
    size = size_bytes(expected.size) if expected.size is not None else before.size if before else None
    count = _count(expected, trials, seconds, before)
    return None if size is None or count is None else count * kept_bytes(size)


def kept_bytes(size: float) -> float:
    """The bytes of disk that a payload of `size` bytes takes in a ledger.

    Small rows share a page, whose remainder stays empty: a row takes a page's share. A row above `_MOST_LOCAL` spills
    into overflow pages; by SQLite's rule the part that stays is chosen so that the last overflow page is full where
    possible.
    """
    if size > _FILE_BYTES:
        return math.ceil(size / _PAGE) * _PAGE + _ROW_BYTES + _INDEX_BYTES
    row = math.ceil(size) + _ROW_BYTES
    overflow = 0
    if row > _MOST_LOCAL:
        local = _LEAST_LOCAL + (row - _LEAST_LOCAL) % _OVERFLOW
        local = local if local <= _MOST_LOCAL else _LEAST_LOCAL
        overflow, row = math.ceil((row - local) / _OVERFLOW), local
    return overflow * _PAGE + _PAGE / (_USABLE // row) + _INDEX_BYTES


def _count(expected: PlannedData, trials: int, seconds: float | None, before: PastTopic | None) -> float | None:
    """The number of messages on a topic: as planned for each trial, by the planned period, or as in past trials."""
    if expected.per_trial is not None:
        return expected.per_trial * trials
    if expected.every is not None:
        when = parse_when(expected.every)
        return None if seconds is None or not isinstance(when, Period) else seconds / when.seconds
    return before.count / before.trials * trials if before and before.trials else None


def time_faults(plan: RunPlan, place: Place, found: Estimate, past: Past) -> list[PlanFault]:
    """The faults of a run that needs more time than `at_most`, or whose past trials took longer than `each`."""
    faults = []
    if past.trial_s and plan.each is not None and median(past.trial_s) > SLOWER * duration_s(plan.each):
        took = f"the {len(past.trial_s)} trials of past runs took {_precise(median(past.trial_s))} (median)"
        faults.append(PlanFault((*place, "each"), f"{plan.each} for a trial", took))
    if plan.at_most is not None and found.seconds is not None and found.seconds > duration_s(plan.at_most):
        needs = f"{found.trials} trials need {_precise(found.seconds)} ({found.based_on})"
        faults.append(PlanFault((*place, "at_most"), f"{plan.at_most} for the run", needs))
    return faults


def disk_faults(place: Place, found: Estimate, free_bytes: float, folder: str) -> list[PlanFault]:
    """The fault of a run that records more data than the disk has room for; a GB is to stay free."""
    if found.bytes is None or found.bytes <= max(0.0, free_bytes - _KEEP_FREE_BYTES):
        return []
    room = f"the disk of {folder} has {size_text(free_bytes)} free, of which 1 GB should stay free"
    return [PlanFault((*place, "data"), f"{size_text(found.bytes)} of data", room)]


def _precise(seconds: float) -> str:
    return duration_text(seconds) if seconds >= 10 else f"{seconds:.2g} s"

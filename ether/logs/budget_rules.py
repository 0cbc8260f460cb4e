"""Which log records are sent when there are more than a person can read: decided by level, and counted.

Two bounds. The rate: each level has a token bucket; a level whose bucket is empty takes tokens of the levels below it.
The queue: when it is full, it drops the oldest record of the lowest level in it.

Promises: while an error is refused, every record of a lower level is refused, too; no record is dropped for one of a
lower level; each dropped record is counted once, under its level. The trap: nothing here is locked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Band(IntEnum):
    """The levels that are told apart here; critical records and everything above count as errors."""

    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


def band_of(level: int) -> Band:
    """The band of a level number of the standard library, where 10 is debug and 40 is error."""
    if level < 20:
        return Band.DEBUG
    if level < 30:
        return Band.INFO
    return Band.WARNING if level < 40 else Band.ERROR


@dataclass(frozen=True, slots=True)
class LogRate:
    """Records per second in the long run, and how many may come at once after a pause (the size of the bucket)."""

    per_s: float
    burst: float


RATES: Mapping[Band, LogRate] = MappingProxyType(
    {
        Band.DEBUG: LogRate(100, 1000),
        Band.INFO: LogRate(200, 1000),
        Band.WARNING: LogRate(200, 1000),
        Band.ERROR: LogRate(500, 2000),
    }
)
"""Together 1,000 records per second, for which a process spends about 5 % of a core."""


class LogBudget:
    """Decides by level and rate which records are sent. `now` is in monotonic seconds."""

    def __init__(self, now: float, rates: Mapping[Band, LogRate] = RATES) -> None:
        self._buckets = [_Bucket(rates[band], now) for band in Band]

    def admits(self, band: Band, now: float) -> bool:
        """Take a token for one record; False where there is none, and the record is to be cut."""
        # Its own bucket first, then those below, the next lower one first: only errors may use up all of them.
        buckets = self._buckets
        return any(buckets[lower].take(now) for lower in range(band, -1, -1))


class _Bucket:
    """The token bucket of one level."""

    __slots__ = ("_at", "_burst", "_per_s", "_tokens")

    def __init__(self, rate: LogRate, now: float) -> None:
        self._per_s, self._burst = rate.per_s, rate.burst
        self._tokens, self._at = rate.burst, now

    def take(self, now: float) -> bool:
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
            self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Queued(NamedTuple, Generic[Item]):
    """A queued record; `order` counts arrivals."""

    order: int
    band: Band
    size: int
    item: Item


class LogQueue(Generic[Item]):
    """Records in the order of their arrival, bounded by number and by size. One line for each level, so that the oldest
    record of the lowest level is at hand; `order` restores the order of arrival among the lines."""

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count, self._max_size = max_count, max_size
        self._lines: list[deque[Queued[Item]]] = [deque() for _ in Band]
        self._count = self._size = self._arrived = 0

    def __len__(self) -> int:
        return self._count

    def offer(self, band: Band, item: Item, size: int) -> Sequence[Band]:
        """Queue a record; returns the bands of the records dropped for it. Where only records of higher levels are in
        the queue, the new one itself is dropped, and its own band comes last."""
        cut: list[Band] = []
        while self._count and (self._count >= self._max_count or self._size + size > self._max_size):
            lowest = next(line for line in self._lines if line)
            if lowest[0].band > band:
                return [*cut, band]
            cut.append(self._pop(lowest).band)
        self._arrived += 1
        self._count += 1
        self._size += size
        self._lines[band].append(Queued(self._arrived, band, size, item))
        return cut

    def take(self) -> Queued[Item] | None:
        """The oldest record; None where there is none."""
        lines = [line for line in self._lines if line]
        return self._pop(min(lines, key=_order)) if lines else None

    def _pop(self, line: deque[Queued[Item]]) -> Queued[Item]:
        queued = line.popleft()
        self._count -= 1
        self._size -= queued.size
        return queued


def _order(line: deque[Queued[Item]]) -> int:
    return line[0].order


Cut = Mapping[Band, int]
"""How many records of each level were cut (refused or dropped)."""

REPORT_EVERY_S = 1.0


class CutCount:
    """Counts the records that were cut, in all and since the last report. `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._total = dict.fromkeys(Band, 0)
        self._unreported = dict.fromkeys(Band, 0)
        self._report_at = float("-inf")

    @property
    def total(self) -> dict[Band, int]:
        """All records that were cut, by level."""
        return dict(self._total)

    def note(self, band: Band, count: int = 1) -> None:
        """A record was cut."""
        self._total[band] += count
        self._unreported[band] += count

    def wait_s(self, now: float) -> float | None:
        """Seconds until a report is due; None where there is nothing to report."""
        return max(0.0, self._report_at - now) if any(self._unreported.values()) else None

    def take_report(self, now: float) -> dict[Band, int]:
        """The counts for a report that is made now; they count as reported from here on."""
        counts = {band: count for band, count in self._unreported.items() if count}
        self._unreported = dict.fromkeys(Band, 0)
        self._report_at = now + REPORT_EVERY_S
        return counts

    def take_back(self, cut: Cut) -> None:
        """A report was not delivered: its counts are to be reported again."""
        for band, count in cut.items():
            self._unreported[band] += count


def cut_sentence(cut: Cut) -> str:
    """`412 records were cut: 400 debug, 12 info`."""
    total = sum(cut.values())
    listed = ", ".join(f"{count:,} {band.name.lower()}" for band, count in sorted(cut.items()) if count)
    return f"{total:,} {'record was' if total == 1 else 'records were'} cut: {listed}"

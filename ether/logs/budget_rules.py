"""Which log records travel when there are more than anybody can read: decided by level, and counted.

Two bounds. The rate: each level has tokens that come back with time, and whoever has used up its own takes those of
the levels below. The queue: a full one makes room by giving up the oldest record of the lowest level in it.

Promises: while an error is refused, everything less is refused, too; no record leaves the queue for one of a lower
level; each record that was given up is counted, once, under its level. The trap: nothing here is locked.
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
    """The levels among which is chosen; critical records and everything above count as errors."""

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
    """Records per second for as long as it takes, and how many may come at once after a pause."""

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
"""All of them together are 1,000 records a second, for which a process spends about 5 % of a core."""


class LogBudget:
    """How many records of which level may travel. `now` is monotonic seconds."""

    def __init__(self, now: float, rates: Mapping[Band, LogRate] = RATES) -> None:
        self._buckets = [_Bucket(rates[band], now) for band in Band]

    def admits(self, band: Band, now: float) -> bool:
        """Take a token for one record; False where it is to be cut."""
        buckets = self._buckets
        return any(buckets[lower].take(now) for lower in range(band, -1, -1))


class _Bucket:
    """The tokens of one level."""

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
    """A record in line."""

    order: int
    band: Band
    size: int
    item: Item


class LogQueue(Generic[Item]):
    """Records in the order of their arrival, bounded by number and by size."""

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count, self._max_size = max_count, max_size
        self._lines: list[deque[Queued[Item]]] = [deque() for _ in Band]
        self._count = self._size = self._arrived = 0

    def __len__(self) -> int:
        return self._count

    def offer(self, band: Band, item: Item, size: int) -> Sequence[Band]:
        """Queue a record; returns the bands of those that were given up for it, its own where that was itself."""
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
"""How many records of each level were cut."""

SAY_EVERY_S = 1.0


class CutCount:
    """What was cut, in all and since it was last said. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._in_all = dict.fromkeys(Band, 0)
        self._unsaid = dict.fromkeys(Band, 0)
        self._may_say_at = float("-inf")

    @property
    def in_all(self) -> dict[Band, int]:
        """All that was ever cut, by level."""
        return dict(self._in_all)

    def note(self, band: Band, count: int = 1) -> None:
        """A record was cut."""
        self._in_all[band] += count
        self._unsaid[band] += count

    def wait_s(self, now: float) -> float | None:
        """How long until something may be said; None where there is nothing to say."""
        return max(0.0, self._may_say_at - now) if any(self._unsaid.values()) else None

    def to_say(self, now: float) -> dict[Band, int]:
        """What has to be said now; it counts as said from here on."""
        said = {band: count for band, count in self._unsaid.items() if count}
        self._unsaid = dict.fromkeys(Band, 0)
        self._may_say_at = now + SAY_EVERY_S
        return said

    def unsay(self, cut: Cut) -> None:
        """It could not be said after all."""
        for band, count in cut.items():
            self._unsaid[band] += count


def cut_sentence(cut: Cut) -> str:
    """`412 records were cut: 400 debug, 12 info`."""
    total = sum(cut.values())
    listed = ", ".join(f"{count:,} {band.name.lower()}" for band, count in sorted(cut.items()) if count)
    return f"{total:,} {'record was' if total == 1 else 'records were'} cut: {listed}"

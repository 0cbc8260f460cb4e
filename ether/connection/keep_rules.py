"""Which of the messages that wait for a subscriber are handled, and which are skipped. Decisions only.

A subscriber that does not keep all has a row for each topic and source (with `max_age` alone one row for all), and asks
its worker for a turn whenever it needs one more. A turn takes the oldest message of its row that is to be handled.

Promise: a row holds no more than the newest `count` messages, and none that was too old when the latest one came. It
never has asked for more turns than it once held messages, so a queue of turns does not grow while messages are skipped.

The trap: a turn may find nothing, where what it was asked for was skipped meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from ether.config.keep import Keep

T = TypeVar("T")

TELL_EVERY_S = 60.0
"""How often the log says how many messages were skipped, after the first time."""


class Skipped(NamedTuple):
    """How many messages were skipped: because newer ones waited, and because they were too old."""

    by_keep: int = 0
    by_age: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.by_keep + self.by_age


class Put(NamedTuple, Generic[T]):
    """What follows from a new message: what is skipped, and whether one more turn is to be asked for."""

    skipped: list[T]
    ask: bool


class NextMessage(NamedTuple, Generic[T]):
    """What a turn takes: the message to handle, None where none is left, and what is skipped."""

    item: T | None
    skipped: list[T]


@dataclass(slots=True)
class _Row(Generic[T]):
    waiting: deque[tuple[T, float]] = field(default_factory=deque)
    """Messages, the oldest first, each with the time at which it was sent."""
    turns: int = 0
    """Turns that were asked for and have not been taken. Never fewer than there are messages."""


class WaitingMessages(Generic[T]):
    """The messages of one subscription that wait. Not locked; `now` and the times in seconds of one steady clock."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.skipped = Skipped()
        self._rows: dict[Hashable, _Row[T]] = {}

    @property
    def idle_turns(self) -> int:
        """Turns that were asked for and will find nothing."""
        return sum(row.turns - len(row.waiting) for row in list(self._rows.values()))

    def put(self, key: Hashable, item: T, sent: float, now: float) -> Put[T]:
        """A message of this row arrives, which was sent at `sent`."""
        if self._is_old(sent, now):
            self._count([], [item])
            return Put([item], False)
        row = self._rows.setdefault(key, _Row())
        old = self._take_old(row, now)
        row.waiting.append((item, sent))
        count = self.keep.newest
        displaced = [row.waiting.popleft()[0]] if count is not None and len(row.waiting) > count else []
        self._count(displaced, old)
        ask = row.turns < len(row.waiting)
        row.turns += ask
        return Put([*old, *displaced], ask)

    def take(self, key: Hashable, now: float) -> NextMessage[T]:
        """One of this row's turns has come."""
        row = self._rows[key]
        row.turns -= 1
        old = self._take_old(row, now)
        item = row.waiting.popleft()[0] if row.waiting else None
        if not row.turns:
            del self._rows[key]
        self._count([], old)
        return NextMessage(item, old)

    def clear(self) -> list[T]:
        """Everything that waits; nothing waits any more."""
        items = [item for row in self._rows.values() for item, _ in row.waiting]
        for row in self._rows.values():
            row.waiting.clear()
        return items

    def _is_old(self, sent: float, now: float) -> bool:
        return self.keep.max_age_s is not None and now - sent > self.keep.max_age_s

    def _take_old(self, row: _Row[T], now: float) -> list[T]:
        old = []
        while row.waiting and self._is_old(row.waiting[0][1], now):
            old.append(row.waiting.popleft()[0])
        return old

    def _count(self, displaced: list[T], old: list[T]) -> None:
        if displaced or old:
            self.skipped = Skipped(self.skipped.by_keep + len(displaced), self.skipped.by_age + len(old))


class SkippedLog:
    """What the log says of skipped messages: a line at the first, then a sum each `TELL_EVERY_S`. Not locked."""

    def __init__(self, wishes: str) -> None:
        """`wishes`: the subscriber's `keep` and `max_age`, as text."""
        self._wishes = wishes
        self._told = Skipped()
        self._told_at: float | None = None

    def line(self, skipped: Skipped, now: float, *, last: bool = False) -> str | None:
        """What there is to say now of so many skipped messages, as the end of a sentence; None where there is nothing,
        or it has to wait for the next sum. `last`: there will be none."""
        more = skipped.total - self._told.total
        if not more or (self._told_at is not None and now - self._told_at < TELL_EVERY_S and not last):
            return None
        told, self._told, first = self._told, skipped, self._told_at is None
        self._told_at = now
        by_keep, by_age = skipped.by_keep - told.by_keep, skipped.by_age - told.by_age
        reasons = [f"{by_keep:,} replaced by newer ones"] if by_keep else []
        reasons += [f"{by_age:,} too old"] if by_age else []
        total = "" if first else f"; {skipped.total:,} in all"
        return f"skipped {more:,} message{'s' * (more > 1)} ({self._wishes}): {', '.join(reasons)}{total}"

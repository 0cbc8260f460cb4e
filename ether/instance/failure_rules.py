"""Which failures of an instance are told in full, and which are counted. Pure.

Promise: the first failure of each kind is told in full, with its traceback; what follows is told as a sum, at most
every `SUM_EVERY_S`, and none is left out of the sums. A kind that has not come for `QUIET_S` is told in full again. Two
failures are of one kind where the same work raised the same class on the same line of the user's code.

The trap: values in the texts differ from message to message, so the text is no part of the kind.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

SUM_EVERY_S = 5.0
QUIET_S = 60.0
_MOST_KINDS = 200
"""So many kinds are told apart; above it, the one that came longest ago is told anew."""
_TEXT_MAX = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure: what was done (`Cam.take failed`), the class and text of the exception, facts about the message, and
    the level at which it is logged."""

    what: str
    kind: str
    text: str
    details: Mapping[str, object]
    level: int


@dataclass(slots=True)
class _Row:
    since: float
    told: float
    last: float
    failure: Failure
    count: int = 1
    untold: int = 0
    same: bool = True


@dataclass(frozen=True, slots=True)
class Sum:
    """Failures of one kind that are told together: `count` of them within `seconds`, `total` since `since` (unix
    seconds); `failure` is the last, `same` says whether all have its text."""

    failure: Failure
    count: int
    seconds: float
    total: int
    since: float
    same: bool

    @property
    def text(self) -> str:
        """The middle of a sentence: `the same error 25 times more in 5 s (26 in all)`."""
        kind = "the same error" if self.same else "an error of this kind"
        times = f"{self.count:,} times" if self.count > 1 else "once"
        return f"{kind} {times} more in {max(1.0, self.seconds):.0f} s ({self.total:,} in all)"


class Failures:
    """The failures of one instance. Not locked. `now` by any steady clock, `wall` in unix seconds."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, _Row] = {}
        self.total = 0
        self._last: tuple[_Row, float] | None = None

    def note(self, key: Hashable, failure: Failure, now: float, wall: float) -> bool:
        """Take a failure; returns whether it is to be told in full."""
        self.total += 1
        row = self._rows.pop(key, None)
        if row is not None and now - row.last < QUIET_S:
            row.same = row.same and row.failure.text == failure.text
            row.last, row.failure = now, failure
            row.count, row.untold = row.count + 1, row.untold + 1
            first = False
        else:
            row, first = _Row(wall, now, now, failure), True
        self._rows[key] = row  # the latest at the end
        if len(self._rows) > _MOST_KINDS:
            del self._rows[next(iter(self._rows))]
        self._last = row, wall
        return first

    def due(self, now: float, *, last: bool = False) -> list[Sum]:
        """The sums that are to be told now; with `last` all that is left."""
        found = []
        for row in self._rows.values():
            if row.untold and (last or now - row.told >= SUM_EVERY_S):
                found.append(Sum(row.failure, row.untold, now - row.told, row.count, row.since, row.same))
                row.told, row.untold, row.same = now, 0, True
        return found

    def about(self) -> dict[str, Any]:
        """What heartbeats say of them: their number; of the last one what it was, when, since when its kind comes, and
        how often it came. Empty without any."""
        if self._last is None:
            return {}
        row, at = self._last
        text = f"{row.failure.what}: {row.failure.kind}: {row.failure.text}"
        return {
            "count": self.total,
            "last": text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…",
            "at": round(at, 3),
            "since": round(row.since, 3),
            "times": row.count,
        }

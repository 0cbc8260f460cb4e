"""Receipts: which entries of an outbox are on disk at a recorder, which were given up, and what keeps recorders from
writing.

A receipt covers every number up to its own, including entries that its recorder did not ask for and got as a gap. So
the highest receipt is stored for each set of filters that recorders ask for (`Filters`), and an entry counts as saved
where a set that takes its topic has a receipt of its number or a higher one. Pure, and not locked.

The trap: numbers that were given up lie below receipts, too. They are never saved, whatever the receipts say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALL = "all"

RECORDER = "recorder"
"""The instance that a session starts by itself when something is to be saved."""

Matches = Callable[[str, str], bool]
"""Whether a topic filter covers a topic."""


@dataclass(frozen=True, slots=True)
class RecorderAbout:
    """A recorder as it describes itself. `topics` are filters of users' topics, None for all. It takes values that the
    user asked to be saved (`save=True`, `ether.record`) in any case."""

    name: str
    incarnation: str
    topics: tuple[str, ...] | None

    def to_value(self) -> dict[str, Any]:
        """As it is retained."""
        return {"birth": self.incarnation, "topics": ALL if self.topics is None else list(self.topics)}

    @classmethod
    def from_value(cls, name: str, value: object) -> RecorderAbout | None:
        """The inverse of `to_value`; None for any other value."""
        match value:
            case {"birth": str(incarnation), "topics": str(topics)} if topics == ALL:
                return cls(name, incarnation, None)
            case {"birth": str(incarnation), "topics": list(topics)} if all(isinstance(topic, str) for topic in topics):
                return cls(name, incarnation, tuple(topics))
        return None

    def wants(self, topic: str, matches: Matches) -> bool:
        """Whether it records a topic because of its filters."""
        return wanted(self.topics, topic, matches)


def wanted(filters: Sequence[str] | None, topic: str, matches: Matches) -> bool:
    """Whether filters of users' topics (None: all of a session's own) cover a topic."""
    if filters is None:
        return not topic.startswith("mqtt:")
    return any(matches(each, topic) for each in filters)


Filters = tuple[str, ...] | None
"""The filters that a recorder asks for, as in `RecorderAbout.topics`."""

Span = tuple[int, int, str]
"""The first and the last number of entries that were given up, and why."""

_REMEMBERED_SPANS = 1000


def takes(filters: Filters, topic: str | None, matches: Matches) -> bool:
    """Whether a recorder that asks for `filters` keeps an entry; `topic` is None for what every recorder keeps."""
    return filters is None or topic is None or wanted(filters, topic, matches)


class ReceiptTable:
    """The receipts, the given-up spans and the recorders' problems of one outbox."""

    def __init__(self, matches: Matches) -> None:
        self._matches = matches
        self._saved: dict[Filters, int] = {}
        """For each set of filters the highest acknowledged number; never lowered, also where a recorder leaves."""
        self._problems: Mapping[str, str] = {}
        self._lost: list[Span] = []

    # -- notes

    def saved(self, levels: Mapping[Filters, int]) -> bool:
        """Note the highest acknowledged numbers, by filters; True where one has risen."""
        news = False
        for filters, upto in levels.items():
            if upto > self._saved.get(filters, -1):
                self._saved[filters] = upto
                news = True
        return news

    def troubled(self, problems: Mapping[str, str]) -> bool:
        """Note why recorders cannot write at present, by name; True where that has changed."""
        news = problems != self._problems
        self._problems = dict(problems)
        return news

    def lost(self, first: int, last: int, why: str) -> None:
        """Note that entries were given up. Spans come in order, but a later one may cover earlier ones."""
        # The list stays sorted and free of overlaps, for the bisection in `why_lost`. Neighbours with one reason become
        # one span. Above _REMEMBERED_SPANS the two oldest become one, which then covers the saved numbers between them,
        # too: nobody holds a `Saved` that old.
        spans = self._lost
        while spans and spans[-1][0] >= first:
            spans.pop()
        if spans and spans[-1][2] == why and spans[-1][1] >= first - 1:
            first = spans.pop()[0]
        spans.append((first, last, why))
        if len(spans) > _REMEMBERED_SPANS:
            spans[:2] = [(spans[0][0], spans[1][1], spans[0][2])]

    # -- questions

    def is_saved(self, number: int, topic: str | None) -> bool:
        """Whether an entry is on disk at a recorder that keeps it."""
        there = any(number <= upto and takes(asked, topic, self._matches) for asked, upto in self._saved.items())
        return there and not self.why_lost(number)

    def why_lost(self, number: int) -> str:
        """Why an entry was given up; "" where it was not."""
        at = bisect_right(self._lost, number, key=lambda span: span[0]) - 1
        return self._lost[at][2] if at >= 0 and number <= self._lost[at][1] else ""

    def settled_to(self, recorders: Sequence[RecorderAbout]) -> int:
        """The number up to which every entry is on disk at a recorder that keeps it, or given up."""
        asked = {about.topics for about in recorders} or set(self._saved)  # without a recorder: as the last ones said
        if None in asked:  # a recorder of everything settles each entry alone
            return self._saved.get(None, 0)
        # Otherwise an entry may be kept by any of them: it is settled when all have acknowledged it.
        return min((self._saved.get(filters, 0) for filters in asked), default=0)

    def problem(self, topic: str | None, recorders: Sequence[RecorderAbout]) -> str:
        """Why none of the recorders that would keep an entry can write at present; "" where one can, or none is
        there."""
        reasons = [self._problems.get(it.name, "") for it in recorders if takes(it.topics, topic, self._matches)]
        return reasons[0] if reasons and all(reasons) else ""

"""How far what was given out has come: what is on disk at a recorder, what was given up, what stands in the way.

A receipt covers all numbers before it, also those that its recorder did not ask for. So receipts are kept by what their
recorders ask for, and an entry counts as saved where one that asked for it has it. Pure, and not locked.

The trap: numbers that were given up lie below receipts, too. They are never saved.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALL = "all"

Matches = Callable[[str, str], bool]
"""Whether a topic filter covers a topic."""


@dataclass(frozen=True, slots=True)
class RecorderAbout:
    """A recorder as it describes itself. `topics` are filters of users' topics, None for all; what somebody asked to be
    saved (`save=True`, `ether.record`) it takes in any case."""

    name: str
    incarnation: str
    topics: tuple[str, ...] | None

    def to_value(self) -> dict[str, Any]:
        """As it is retained."""
        return {"birth": self.incarnation, "topics": ALL if self.topics is None else list(self.topics)}

    @classmethod
    def from_value(cls, name: str, value: object) -> RecorderAbout | None:
        """As it was received; None for what is not one."""
        match value:
            case {"birth": str(incarnation), "topics": str(topics)} if topics == ALL:
                return cls(name, incarnation, None)
            case {"birth": str(incarnation), "topics": list(topics)} if all(isinstance(topic, str) for topic in topics):
                return cls(name, incarnation, tuple(topics))
        return None

    def wants(self, topic: str, matches: Matches) -> bool:
        """Whether it records a topic of its own accord."""
        return wanted(self.topics, topic, matches)


def wanted(filters: Sequence[str] | None, topic: str, matches: Matches) -> bool:
    """Whether filters of users' topics (None: all of a session's own) cover a topic."""
    if filters is None:
        return not topic.startswith("mqtt:")
    return any(matches(each, topic) for each in filters)


Filters = tuple[str, ...] | None
"""What recorders ask for, as in `RecorderAbout.topics`."""

Span = tuple[int, int, str]
"""The first and the last number of what was given up, and why."""

_REMEMBERED_SPANS = 1000


def takes(filters: Filters, topic: str | None, matches: Matches) -> bool:
    """Whether a recorder that asks for `filters` keeps an entry; `topic` is None for what every recorder keeps."""
    return filters is None or topic is None or wanted(filters, topic, matches)


class ReceiptTable:
    """What became of the entries of one outbox."""

    def __init__(self, matches: Matches) -> None:
        self._matches = matches
        self._saved: dict[Filters, int] = {}
        self._problems: Mapping[str, str] = {}
        self._lost: list[Span] = []

    # -- what comes in

    def saved(self, levels: Mapping[Filters, int]) -> bool:
        """The highest number that recorders have, by what they ask for; True where that is news."""
        news = False
        for filters, upto in levels.items():
            if upto > self._saved.get(filters, -1):
                self._saved[filters] = upto
                news = True
        return news

    def troubled(self, problems: Mapping[str, str]) -> bool:
        """Why recorders cannot write at present, by name; True where that is news."""
        news = problems != self._problems
        self._problems = dict(problems)
        return news

    def lost(self, first: int, last: int, why: str) -> None:
        """Given up, never to be saved. Spans come in order, and later ones may cover earlier ones; neighbours become
        one, and of very many the oldest are forgotten as if they had been one."""
        spans = self._lost
        while spans and spans[-1][0] >= first:
            spans.pop()
        if spans and spans[-1][2] == why and spans[-1][1] >= first - 1:
            first = spans.pop()[0]
        spans.append((first, last, why))
        if len(spans) > _REMEMBERED_SPANS:
            spans[:2] = [(spans[0][0], spans[1][1], spans[0][2])]

    # -- what is asked

    def is_saved(self, number: int, topic: str | None) -> bool:
        """Whether an entry is on disk at a recorder that keeps it."""
        there = any(number <= upto and takes(kept, topic, self._matches) for kept, upto in self._saved.items())
        return there and not self.why_lost(number)

    def why_lost(self, number: int) -> str:
        """Why an entry was given up; "" where it was not."""
        at = bisect_right(self._lost, number, key=lambda span: span[0]) - 1
        return self._lost[at][2] if at >= 0 and number <= self._lost[at][1] else ""

    def settled_to(self, recorders: Sequence[RecorderAbout]) -> int:
        """Up to where everything is on disk at a recorder that keeps it, or given up."""
        kept = {about.topics for about in recorders} or set(self._saved)
        if None in kept:
            return self._saved.get(None, 0)
        return min((self._saved.get(filters, 0) for filters in kept), default=0)

    def problem(self, topic: str | None, recorders: Sequence[RecorderAbout]) -> str:
        """Why none of the recorders that would keep it can write at present; "" where one can, or none is there."""
        told = [self._problems.get(it.name, "") for it in recorders if takes(it.topics, topic, self._matches)]
        return told[0] if told and all(told) else ""

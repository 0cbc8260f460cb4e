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
    user asked to be saved (`save=True`, `ether.record`) in any case. `host` and `folder` say where its ledger is, ""
    where that is not known. `life` is what it was told of the ledger's life (`ether.config.volumes.said_of_life`)."""

    name: str
    incarnation: str
    topics: tuple[str, ...] | None
    host: str = ""
    folder: str = ""
    life: str = ""
    wire: int = 1
    """The version of the wire that it speaks (`ether.wire.topics.WIRE`)."""
    devices: tuple[tuple[str, str], ...] = ()
    """The labs whose signatures it verifies, each with its own name there, by which it signs its receipts."""
    sync_every_s: float | None = None
    """How seldom it writes; None where it does not say so, as those of before."""

    def to_value(self) -> dict[str, Any]:
        """As it is retained."""
        topics = ALL if self.topics is None else list(self.topics)
        place = {"host": self.host, "folder": self.folder, "life": self.life, "wire": self.wire}
        signs = {"devices": dict(self.devices)} if self.devices else {}
        every = {} if self.sync_every_s is None else {"sync_every_s": self.sync_every_s}
        return {"birth": self.incarnation, "topics": topics, **place, **signs, **every}

    @classmethod
    def from_value(cls, name: str, value: object) -> RecorderAbout | None:
        """The inverse of `to_value`; None for any other value."""
        match value:
            case {"birth": str(incarnation), "topics": str() | list() as topics, **place}:
                host, folder, life = (str(place.get(key) or "") for key in ("host", "folder", "life"))
                said = place.get("wire")
                wire = said if isinstance(said, int) else 1
                devices = _devices(place.get("devices"))
                every = place.get("sync_every_s")
                every_s = float(every) if isinstance(every, (int, float)) else None
                if topics == ALL:
                    return cls(name, incarnation, None, host, folder, life, wire, devices, every_s)
                if isinstance(topics, list) and all(isinstance(topic, str) for topic in topics):
                    return cls(name, incarnation, tuple(topics), host, folder, life, wire, devices, every_s)
        return None

    def covers(self, topics: Sequence[str] | None) -> bool:
        """Whether it records all that these filters (None: all of a session's own) ask for."""
        if topics is None or self.topics is None:
            return self.topics is None and not any(topic.startswith("mqtt:") for topic in topics or ())
        return set(topics) <= set(self.topics)

    def wants(self, topic: str, matches: Matches) -> bool:
        """Whether it records a topic because of its filters."""
        return wanted(self.topics, topic, matches)


def _devices(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        return ()
    return tuple((lab, name) for lab, name in value.items() if isinstance(lab, str) and isinstance(name, str))


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

    def __init__(self, matches: Matches, ledger: tuple[str, str] | None = None, recorded: Filters = ()) -> None:
        """`ledger`: host and folder of the ledger that must have what is recorded (`recorded`) before it counts as
        saved; None where any will do."""
        self._matches = matches
        self._ledger, self._recorded = ledger, recorded
        self._in_named = 0
        """The highest number that is in that ledger."""
        self._saved: dict[Filters, int] = {}
        """For each set of filters the highest acknowledged number; never lowered, also where a recorder leaves."""
        self._problems: Mapping[str, str] = {}
        self._lost: list[Span] = []

    # -- notes

    def saved(self, levels: Mapping[Filters, int], in_named: int = 0) -> bool:
        """Note the highest acknowledged numbers, by filters, and the one of the named ledger; True where one has
        risen."""
        news = in_named > self._in_named
        self._in_named = max(in_named, self._in_named)
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
        if self._belongs_to_named(topic):
            return number <= self._in_named and not self.why_lost(number)
        there = any(number <= upto and takes(asked, topic, self._matches) for asked, upto in self._saved.items())
        return there and not self.why_lost(number)

    def _belongs_to_named(self, topic: str | None) -> bool:
        """Whether the configuration says in which ledger an entry has to be."""
        return self._ledger is not None and takes(self._recorded, topic, self._matches)

    def why_lost(self, number: int) -> str:
        """Why an entry was given up; "" where it was not."""
        at = bisect_right(self._lost, number, key=lambda span: span[0]) - 1
        return self._lost[at][2] if at >= 0 and number <= self._lost[at][1] else ""

    def settled_to(self, recorders: Sequence[RecorderAbout]) -> int:
        """The number up to which every entry is on disk at a recorder that keeps it, or given up."""
        upto = self._settled_anywhere(recorders)
        return upto if self._ledger is None else min(upto, self._in_named)

    def _settled_anywhere(self, recorders: Sequence[RecorderAbout]) -> int:
        asked = {about.topics for about in recorders} or set(self._saved)  # without a recorder: as the last ones said
        if None in asked:  # a recorder of everything settles each entry alone
            return self._saved.get(None, 0)
        # Otherwise an entry may be kept by any of them: it is settled when all have acknowledged it.
        return min((self._saved.get(filters, 0) for filters in asked), default=0)

    def problem(self, topic: str | None, recorders: Sequence[RecorderAbout]) -> str:
        """Why none of the recorders that would keep an entry can write at present; "" where one can, or none is
        there."""
        if self._belongs_to_named(topic):
            recorders = [it for it in recorders if (it.host, it.folder) == self._ledger]
        reasons = [self._problems.get(it.name, "") for it in recorders if takes(it.topics, topic, self._matches)]
        return reasons[0] if reasons and all(reasons) else ""

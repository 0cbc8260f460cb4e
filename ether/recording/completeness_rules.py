"""Whether every entry that outboxes gave out is on the disk of a recorder, and exactly which ones are missing.

Promises: pure. `str(proof)` is "12,034 of 12,034 durable, 0 gaps, 0 duplicates", followed by a line for each gap.
Entries that the recorder was not asked to keep are neither counted nor missing.

The trap: a proof is as new as the recorder's knowledge of its sources. An outbox of which no batch has arrived is not
in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from ether.wire.entries import NOT_HERE, GapFact, OutboxFacts

ON_ITS_WAY = "given out by its source, not arrived here"


@dataclass(frozen=True, slots=True)
class Missing:
    """A span of entries that were given out and are not on the disk."""

    source: str
    topic: str
    """"" where it is not known; the numbers are then those of the source's outbox."""
    first: int
    """With a topic: the first message's number on it (`seq`)."""
    last: int
    count: int
    since: float
    """Unix seconds; 0 where that is not known."""
    why: str

    def __str__(self) -> str:
        what = f"{self.topic!r} from {self.source!r}" if self.topic else f"entries of {self.source!r}"
        when = f", since {datetime.fromtimestamp(self.since):%Y-%m-%d %H:%M:%S}" if self.since else ""
        return f"{what}: {self.first:,} to {self.last:,} ({self.count:,}){when}: {self.why}"


@dataclass(frozen=True, slots=True)
class Proof:
    """How many of the entries that outboxes numbered are on the disk, and which are missing."""

    durable: int
    total: int
    gaps: tuple[Missing, ...]
    duplicates: int
    """How many messages and recorded values are in the ledger more than once."""
    skipped: int = 0
    """Entries that were not for this recorder."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and nothing is there twice."""
        return not self.gaps and not self.duplicates and self.durable == self.total

    def __str__(self) -> str:
        summary = f"{self.durable:,} of {self.total:,} durable, {len(self.gaps)} gaps, {self.duplicates:,} duplicates"
        return "\n".join([summary, *(f"  missing {gap}" for gap in self.gaps)])


def prove(outboxes: Iterable[OutboxFacts], duplicates: int) -> Proof:
    """The proof from the facts of each outbox, and the number of duplicates that were counted."""
    # Of each outbox, the ledger knows a number `highest` up to which it has everything, except for the gaps below it,
    # and a number `head` up to which the source had given out entries when it last sent something.
    durable = total = skipped = 0
    gaps: list[Missing] = []
    for facts in outboxes:
        not_here = sum(_size(gap) for gap in facts.gaps if gap.why == NOT_HERE)
        lost = [gap for gap in facts.gaps if gap.why != NOT_HERE]
        head = max(facts.head, facts.highest)
        skipped += not_here
        total += head - not_here
        durable += facts.highest - not_here - sum(map(_size, lost))
        for gap in lost:
            gaps += _missing_of(facts.source, gap)
        if head > facts.highest:
            first, count = facts.highest + 1, head - facts.highest
            gaps.append(Missing(facts.source, "", first, head, count, facts.last_time, ON_ITS_WAY))
    return Proof(durable, total, tuple(gaps), duplicates, skipped)


def _size(gap: GapFact) -> int:
    return gap.last - gap.first + 1


def _missing_of(source: str, gap: GapFact) -> Iterator[Missing]:
    """A gap as one span for each of its topics, and one without a topic for the entries that no topic accounts for."""
    accounted = 0
    for topic, span in gap.topics.items():
        match span:
            case [int(first), int(last), int(count)]:
                accounted += count
                yield Missing(source, topic, first, last, count, gap.since, gap.why)
    if accounted < _size(gap):
        yield Missing(source, "", gap.first, gap.last, _size(gap) - accounted, gap.since, gap.why)

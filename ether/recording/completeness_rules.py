"""Whether every entry that outboxes gave out is on the disk of a recorder, and exactly which ones are missing.

Totals come from the sources where these can be asked (`SourceFacts`), and from what the ledger has heard of the others.
So an entry is in one of three places: on the disk; waiting at its source, with the reason; or missing, a gap.

Promises: pure. `str(proof)` is "12,034 of 12,034 durable, 0 gaps, 0 duplicates, all signed", followed by a line for
each gap, and by one for each source at which something waits. Entries that the recorder was not asked to keep are
neither counted nor missing.

The trap: a source on another machine is known by what has arrived from it. What it has given out since, while it is cut
off, is in no proof but its own machine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from ether.wire.entries import NOT_HERE, NOT_HERE_ANY_MORE, GapFact, OutboxFacts

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


class Conflict(NamedTuple):
    """Entries of a source whose numbers the ledger had with another content; both are kept."""

    source: str
    topic: str
    entries: int

    def __str__(self) -> str:
        what = f"{self.topic!r} from {self.source!r}"
        return f"{what}: {self.entries:,} entries under numbers that were taken (ether data --kind conflict shows them)"


class SourceFacts(NamedTuple):
    """What a source says itself, or what its outbox on this machine says of it."""

    outbox: str
    source: str
    given: int
    """The highest number that it has given out."""
    base: int = 0
    """Up to this number it has let go of everything: every recorder that it knew had it."""
    acknowledged: int | None = None
    """The highest number that the recorder of this ledger has acknowledged to it; None where it does not know."""
    why: str = ""
    """Why what waits is not on the disk; "" where it is on its way."""
    since: float = 0.0
    """Unix seconds since when nothing has come forward; 0 where that is not known."""
    where: str = ""
    """The file in which it waits, "" where that is not known."""
    alive: bool = True
    """Whether its process runs; otherwise it gives out nothing more."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A span of entries that are at their source, and not on this ledger's disk."""

    source: str
    first: int
    last: int
    count: int
    since: float
    """Unix seconds since when nothing has come forward; 0 where that is not known."""
    why: str
    """"" where they are on their way."""
    path: str = ""
    """The outbox's file, "" where that is not known."""

    def __str__(self) -> str:
        when = f", since {datetime.fromtimestamp(self.since):%Y-%m-%d %H:%M:%S}" if self.since and self.why else ""
        where = f", in {self.path}" if self.path else ""
        numbers = f"{self.count:,} entries of {self.source!r} ({self.first:,} to {self.last:,})"
        return f"{numbers}{when}: {self.why or 'on their way'}{where}"


Conflicts = Iterable[tuple[str, str, int]]
"""Source, topic and how many entries."""


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
    waiting: tuple[Waiting, ...] = field(default=())
    """What is at its source and not on this disk."""

    conflicts: tuple[Conflict, ...] = ()
    """What came under a number that the ledger has with another content."""
    signed: str = ""
    """`all signed`, `unsigned`, or how many are signed by the device of their source; "" where that was not looked
    at."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, nothing waits, nothing is there twice, and nothing in two contents."""
        return not self.gaps and not self.duplicates and not self.conflicts and self.durable == self.total

    @property
    def in_order(self) -> bool:
        """Whether nothing is missing, nothing is there twice, and what waits is on its way."""
        return (
            not self.gaps and not self.duplicates and not self.conflicts and not any(span.why for span in self.waiting)
        )

    def __str__(self) -> str:
        count = sum(span.count for span in self.waiting)
        waiting = f"{count:,} waiting, " if count else ""
        summary = f"{self.durable:,} of {self.total:,} durable, {waiting}{len(self.gaps)} gaps, "
        lines = [f"  missing {gap}" for gap in self.gaps] + [f"  waiting {span}" for span in self.waiting]
        lines += [f"  conflict {conflict}" for conflict in self.conflicts]
        conflicts = f", {sum(each.entries for each in self.conflicts):,} conflicts" if self.conflicts else ""
        signed = f", {self.signed}" if self.signed else ""
        return "\n".join([f"{summary}{self.duplicates:,} duplicates{conflicts}{signed}", *lines])


def prove(
    outboxes: Iterable[OutboxFacts], duplicates: int, sources: Iterable[SourceFacts] = (), conflicts: Conflicts = (),
    signed: tuple[int, int] | None = None,
) -> Proof:  # fmt: skip
    """The proof from the facts of each outbox in the ledger, the number of duplicates that were counted, what the
    sources say, where they can be asked, the conflicts by source and topic, and how many entries are signed, of how
    many; None where nobody has looked."""
    # Of each outbox, the ledger knows a number `highest` up to which it has everything, except for the gaps below it,
    # and a number `head` up to which the source had given out entries when it last sent something.
    durable = total = skipped = 0
    gaps: list[Missing] = []
    waiting: list[Waiting] = []
    asked = {said.outbox: said for said in sources}
    known = list(outboxes)
    known += [OutboxFacts(said.outbox, said.source, 0, 0) for said in asked.values() if said.outbox not in
              {facts.outbox for facts in known}]  # fmt: skip
    for facts in known:
        not_here = sum(_size(gap) for gap in facts.gaps if gap.why == NOT_HERE)
        lost = [gap for gap in facts.gaps if gap.why != NOT_HERE]
        for gap in lost:
            gaps += _missing_of(facts.source, gap)
        behind = _behind(facts, asked.get(facts.outbox))
        gaps += behind.gaps
        waiting += behind.waiting
        skipped += not_here + behind.skipped
        total += behind.head - not_here - behind.skipped
        durable += facts.highest - not_here - sum(map(_size, lost))
    found = tuple(Conflict(*each) for each in conflicts)
    said = "" if signed is None else signed_text(*signed)
    return Proof(durable, total, tuple(gaps), duplicates, skipped, tuple(waiting), found, said)


def signed_text(signed: int, count: int) -> str:
    """How many of a ledger's entries are signed, in words; "" where there are none."""
    if not count:
        return ""
    return "unsigned" if not signed else "all signed" if signed >= count else f"{signed:,} of {count:,} signed"


class _Behind(NamedTuple):
    """What becomes of the numbers of an outbox that are higher than the ledger's highest one, up to `head`."""

    head: int
    skipped: int
    gaps: list[Missing]
    waiting: list[Waiting]


def _behind(facts: OutboxFacts, said: SourceFacts | None) -> _Behind:
    highest, gaps, waiting, skipped = facts.highest, list[Missing](), list[Waiting](), 0
    head = max(facts.head, highest, said.given if said else 0)
    upto = highest
    if said is not None:
        # What it has let go of, every recorder of that time had. One that had acknowledged nothing came later.
        given = max(said.given, facts.head) if said.alive else said.given  # the ledger may have heard of it later
        lost_to = said.acknowledged if said.acknowledged is not None else said.base if highest else 0
        if lost_to > upto:
            gaps.append(
                Missing(facts.source, "", upto + 1, lost_to, lost_to - upto, facts.last_time, NOT_HERE_ANY_MORE)
            )
            upto = lost_to
        if said.base > upto:
            skipped, upto = said.base - upto, said.base
        if given > upto:
            waiting.append(Waiting(said.source, upto + 1, given, given - upto, said.since, said.why, said.where))
            upto = given
    if head > upto:
        gaps.append(Missing(facts.source, "", upto + 1, head, head - upto, facts.last_time, ON_ITS_WAY))
    return _Behind(head, skipped, gaps, waiting)


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

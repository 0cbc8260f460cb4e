"""What the processes of a ledger have noted about themselves (`ether.protocol.record_notes`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from ether.errors import DecodeError
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.protocol.clock_steps import STEP_S, set_words
from ether.protocol.record_notes import CLOCK, MISSED, ClockNote, MissedNote

_SLACK_S = 0.1


def missed_in(reader: LedgerReader) -> list[MissedNote]:
    """The messages that receivers have missed, in the order in which that was noted."""
    notes = [MissedNote.from_value(value) for _, value in _notes(reader, MISSED)]
    return [note for note in notes if note is not None]


@dataclass(frozen=True, slots=True)
class NotedClock:
    """A clock note of one outbox, and its number there."""

    outbox: str
    number: int
    source: str
    note: ClockNote


class ClockCorrections:
    """By how much times are off that were recorded before a machine's clock was set.

    What is known of a machine between two of its boots: by how much its wall clock was ahead of its uptime, at each
    note. The last note counts as right: clocks are set in order to be right. A process's records lie between its notes,
    so each has the uptime at which it was made, and with it the time that the right clock would have shown."""

    def __init__(self, noted: list[NotedClock]) -> None:
        """`noted` in the order in which the notes came."""
        latest: dict[str, ClockNote] = {}
        for each in noted:
            known = latest.get(each.note.boot)
            if known is None or known.uptime <= each.note.uptime:
                latest[each.note.boot] = each.note
        off = [each for each in noted if abs(latest[each.note.boot].ahead_s - each.note.ahead_s) > STEP_S]
        boots = {each.note.boot for each in off if each.note.boot}
        self._right = {boot: latest[boot].ahead_s for boot in boots}
        mine = sorted((each for each in noted if each.note.boot in boots), key=attrgetter("outbox", "number"))
        self._notes: Mapping[str, list[NotedClock]] = {
            outbox: list(group) for outbox, group in groupby(mine, key=attrgetter("outbox"))
        }
        offs = [self._right[each.note.boot] - each.note.ahead_s for each in off if each.note.boot in boots]
        self.most_s, self.least_s = max(offs, default=0.0), min(offs, default=0.0)
        """The most by which a time is behind, and, where it is below 0, ahead."""

    def __bool__(self) -> bool:
        return bool(self._right)

    def of(self, stored: StoredRecord) -> float:
        """The seconds to be added to a record's time; 0.0 where it is right, or nothing is known of its clock."""
        notes = self._notes.get(stored.outbox)
        if not notes:
            return 0.0
        holds = notes[0].note
        for each in notes:
            if each.number < stored.number or self._is_since(each.note, stored):
                holds = each.note
        off_s = self._right[holds.boot] - holds.ahead_s
        return off_s if abs(off_s) > STEP_S else 0.0

    def _is_since(self, note: ClockNote, stored: StoredRecord) -> bool:
        """Whether a record with a smaller number than the note was made after the clock was set all the same: between
        two looks at it."""
        by_new = stored.time - note.ahead_s
        return stored.number > note.upto and note.after_uptime - _SLACK_S <= by_new <= note.uptime + _SLACK_S


def clock_corrections(reader: LedgerReader) -> ClockCorrections:
    """What the processes of a ledger have noted of their machines' clocks."""
    return ClockCorrections(_noted_clocks(reader))


def clock_lines(reader: LedgerReader) -> list[str]:
    """Each time that a machine's clock was set, once, for people."""
    steps = [each for each in _noted_clocks(reader) if each.note.set_by_s]
    found: list[ClockNote] = []
    for each in sorted(steps, key=lambda each: each.note.uptime):
        note = each.note
        if not any(note.boot == known.boot and note.after_uptime <= known.uptime for known in found):
            found.append(note)
    return [set_words(note.host, note.set_by_s) for note in found]


def _noted_clocks(reader: LedgerReader) -> list[NotedClock]:
    return [
        NotedClock(record.outbox, record.number, record.source, note)
        for record, value in _notes(reader, CLOCK)
        if (note := ClockNote.from_value(value)) is not None
    ]


def _notes(reader: LedgerReader, topic: str) -> Iterator[tuple[StoredRecord, object]]:
    for record in reader.records(RecordFilter(kinds=("state",), topic=topic)):
        try:
            yield record, record.value
        except DecodeError:
            continue

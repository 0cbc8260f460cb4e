"""One outbox on its way to the recorders: what is on disk, what the disk did not take, what each recorder has.

A row is a block of entries under the number of its last one. Used by one thread, the saver's.

The traps: the disk may be full. Then rows wait in memory, are sent all the same, and go to the disk as soon as it takes
them. And a number may lie inside of a row: the row is sent whole, since a recorder passes over what it has.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ether.errors import OutboxFailed
from ether.log import get_ether_logger
from ether.recording.receipt_rules import Filters, RecorderAbout, wanted
from ether.recording.send_window_rules import SendWindow
from ether.wire.entries import NOT_HERE, Entry, first_of, pack_entries, pack_entry, unpack_entries
from ether.wire.topics import matches

if TYPE_CHECKING:
    from ether.recording.outbox_file import OutboxFile, Row

BATCH_COUNT = 500
BATCH_BYTES = 1 << 20
_BLOCK_COUNT = 500
_BLOCK_BYTES = 1 << 16
"""Entries that come together are one row, up to so many, or so many bytes of payload: a row costs what dozens of
entries cost."""
_FORGET_COUNT = 2000
_FORGET_BYTES = 1 << 20
"""What recorders have is dropped from the file in bunches: that costs as much as writing it did."""

FULL = "the outbox was full"
"""Why entries are given up at the limit."""

logger = get_ether_logger("Ether")


class OutboxQueue:
    """One outbox, and a window for each recorder."""

    def __init__(self, file: OutboxFile) -> None:
        self.file = file
        self.outbox, self.source = file.outbox, file.source
        self.head = file.last
        """The highest number that was given out."""
        self.base = file.base
        """Up to here a recorder has everything, and it is forgotten."""
        self.windows: dict[str, SendWindow] = {}
        self.batch_bytes = BATCH_BYTES
        """The most that goes into one message, but for a single entry that is larger."""
        self._recorders: dict[str, RecorderAbout] = {}
        self._latest: list[Row] = []
        self._latest_from = 0
        self._unwritten: list[Row] = []

    @property
    def stored_bytes(self) -> int:
        """What waits, on disk and in memory."""
        return self.file.size + sum(len(packed) for _, packed in self._unwritten)

    @property
    def unwritten(self) -> int:
        """How many entries the disk has not taken so far."""
        return sum(len(unpack_entries(packed)) for _, packed in self._unwritten)

    @property
    def waiting(self) -> int:
        """How many numbers no recorder has acknowledged."""
        return self.head - max(self.acknowledged, self.base)

    @property
    def acknowledged(self) -> int:
        """The highest number that is on disk at some recorder."""
        return max([self.base, *(window.acknowledged for window in self.windows.values())])

    @property
    def levels(self) -> dict[Filters, int]:
        """The highest number that recorders have, by what they ask for."""
        levels: dict[Filters, int] = {}
        for name, window in self.windows.items():
            filters = self._recorders[name].topics
            levels[filters] = max(levels.get(filters, 0), window.acknowledged)
        return levels

    def meet(self, recorders: dict[str, RecorderAbout], connections: Sequence[bool], now: float) -> None:
        """The recorders that there are, and what became of the connection meanwhile, its state at the end."""
        self._recorders = recorders
        for name in self.windows.keys() - recorders.keys():
            del self.windows[name]
        for name, about in recorders.items():
            window = self.windows.get(name)
            if window is None:
                window = self.windows[name] = SendWindow(self.base)
            for up in connections:
                window.connection(up, now)
            window.recorder(about.incarnation, now)

    def receive(self, recorder: str, incarnation: str, upto: int, now: float) -> bool:
        """A receipt; False where it is none of ours."""
        window = self.windows.get(recorder)
        if window is None or not 0 <= upto <= self.head:
            return False
        window.receive(incarnation, upto, now)
        return incarnation == self._recorders[recorder].incarnation

    # -- coming in

    def add(self, entries: Sequence[Entry]) -> None:
        """New entries, in order. Where the disk does not take them they stay in memory."""
        had_to_wait = bool(self._unwritten)
        rows = list(_in_rows(entries, min(_BLOCK_BYTES, self.batch_bytes)))
        self._unwritten += rows
        self._latest, self._latest_from = rows, entries[0].number
        self.head = rows[-1][0]
        self.write(complain=not had_to_wait)

    def write(self, *, complain: bool = False) -> bool:
        """Write what the disk has not taken so far; False where it still does not."""
        if not self._unwritten:
            return True
        try:
            self.file.append(self._unwritten)
        except OutboxFailed as error:
            if complain:
                logger.error("%s; it waits in memory", error)
            return False
        self._unwritten = []
        return True

    # -- going out

    def rows(self, first: int, recorder: RecorderAbout) -> list[Row]:
        """What a recorder is to be sent from a number on: entries that it wants, and gaps for the others."""
        rows = self._read(first)
        return rows if recorder.topics is None else _only_wanted(rows, recorder)

    def _read(self, first: int) -> list[Row]:
        if self._latest and first >= self._latest_from:
            return _portion(self._latest, first, self.batch_bytes)
        if first <= self.file.last and self.file.first is not None:
            return self.file.read(first, self.head, BATCH_COUNT, self.batch_bytes)
        return _portion(self._unwritten, first, self.batch_bytes)

    def forget(self, recorded: Filters, *, at_once: bool) -> None:
        """Drop what every recorder has, `at_once` or when that has become much. What the session records (`recorded`)
        and none of them asks for waits for one that does. Raises `OutboxFailed`."""
        if not self.windows:
            return
        upto = min(window.acknowledged for window in self.windows.values())
        much = upto - self.base >= _FORGET_COUNT or self.stored_bytes >= _FORGET_BYTES
        if upto <= self.base or not (at_once or much or upto == self.head):
            return
        if not self._covers(recorded):
            upto = self._first_held(upto, recorded) - 1
        self._unwritten = [row for row in self._unwritten if row[0] > upto]
        self.file.drop(upto)
        self.base = upto

    def _covers(self, recorded: Filters) -> bool:
        """Whether one of the recorders asks for all that the session records."""
        kept = [about.topics for about in self._recorders.values()]
        return any(topics is None or (recorded is not None and set(recorded) <= set(topics)) for topics in kept)

    def _first_held(self, upto: int, recorded: Filters) -> int:
        for entry, _ in self._oldest_first():
            if entry.number > upto:
                break
            nobody = not any(_is_asked_for(entry, about) for about in self._recorders.values())
            if nobody and wanted(recorded, entry.topic, matches):
                return entry.number
        return upto + 1

    def _oldest_first(self) -> Iterator[tuple[Entry, int]]:
        """All that waits, with the bytes that each takes; from memory alone where the disk takes nothing at present."""
        for _, packed in self._rows_oldest_first():
            entries = unpack_entries(packed)
            size = len(packed) // len(entries)
            yield from ((entry, size) for entry in entries if entry.number > self.base)

    def _rows_oldest_first(self) -> Iterator[Row]:
        if self._unwritten:
            yield from list(self._unwritten)
            return
        first = self.base + 1
        while rows := self.file.read(first, self.file.last, BATCH_COUNT, BATCH_BYTES):
            yield from rows
            first = rows[-1][0] + 1

    # -- giving up

    def give_up(self, goes: Callable[[Entry, int], bool], why: str) -> Entry | None:
        """Give up the oldest entries, as long as `goes(entry, bytes given up so far)` says so; the gap that stands in
        their place. Raises `OutboxFailed`."""
        gap: Entry | None = None
        going: list[Entry] = []
        given_up = 0
        for entry, size in self._oldest_first():
            if entry.kind != "gap" and not goes(entry, given_up):
                break
            going.append(entry)
            given_up += size
            if len(going) >= BATCH_COUNT:
                gap, going = gap_of([*([gap] if gap else []), *going], why), []
        while going and going[-1].kind == "gap":
            going.pop()  # it names what it stands for already
        if going:
            gap = gap_of([*([gap] if gap else []), *going], why)
        if gap is not None:
            self._put_in_place(gap)
        return gap

    def _put_in_place(self, gap: Entry) -> None:
        row = (gap.number, pack_entry(gap))
        self._latest = []
        if self._unwritten:
            left = [kept for kept in self._unwritten if kept[0] > gap.number]
            self._unwritten = [row, *(_without(kept, gap.number) for kept in left[:1]), *left[1:]]
            return
        self.file.replace(gap.number, row)
        for cut in self.file.read(gap.number + 1, self.file.last, 1, 1):
            self.file.exchange(cut[0], [_without(cut, gap.number)])

    def splits(self, number: int) -> bool:
        """Make the row that a number lies in as many rows as it has entries; False where it has one. Raises
        `OutboxFailed`."""
        last, packed = self._read(number)[0]
        entries = unpack_entries(packed)
        if len(entries) > 1:
            self._exchange(last, [(entry.number, pack_entry(entry)) for entry in entries])
        return len(entries) > 1

    def give_up_one(self, number: int, why: str) -> Entry:
        """Give up a single entry that no message can carry, and that has a row of its own. Raises `OutboxFailed`."""
        last, packed = self._read(number)[0]
        gap = gap_of(unpack_entries(packed), why)
        self._exchange(last, [(last, pack_entry(gap))])
        return gap

    def _exchange(self, number: int, rows: Sequence[Row]) -> None:
        self._unwritten = [row for kept in self._unwritten for row in (rows if kept[0] == number else [kept])]
        self.file.exchange(number, rows)
        self._latest = []

    def oldest(self) -> Entry | None:
        """The oldest entry on disk that stands for itself."""
        first = self.base + 1
        while rows := self.file.read(first, self.file.last, 1, 1):
            last, packed = rows[0]
            for entry in unpack_entries(packed):
                if entry.kind != "gap" and entry.number > self.base:
                    return entry
            first = last + 1
        return None


def gap_of(entries: Sequence[Entry], why: str) -> Entry:
    """The gap that takes the place of entries, gaps among them included."""
    topics: dict[str, list[int]] = {}
    for entry in entries:
        if entry.kind == "gap":
            told = entry.more.get("topics")
            for topic, span in (told if isinstance(told, dict) else {}).items():
                _widen(topics, topic, *span)
        elif entry.kind not in ("context", "artifact"):
            _widen(topics, entry.topic, entry.seq, entry.seq, 1)
    last = entries[-1]
    more = {"first": first_of(entries[0]), "last": last.number, "why": why, "topics": topics}
    return Entry(last.number, "gap", "", "", 0, entries[0].time, (), "", None, b"", more)


def _widen(topics: dict[str, list[int]], topic: str, first: int, last: int, count: int) -> None:
    span = topics.setdefault(topic, [first, last, 0])
    span[0], span[1], span[2] = min(span[0], first), max(span[1], last), span[2] + count


def _portion(rows: list[Row], first: int, max_bytes: int) -> list[Row]:
    start = bisect_left(rows, first, key=lambda row: row[0])
    size, end = 0, start
    for _, packed in rows[start : start + BATCH_COUNT]:
        size += len(packed)
        if size > max_bytes and end > start:
            break
        end += 1
    return rows[start:end]


def _in_rows(entries: Sequence[Entry], max_bytes: int) -> Iterator[Row]:
    """Entries as rows of about that size, each with at least one."""
    begin = size = 0
    for index, entry in enumerate(entries):
        if index > begin and (size + len(entry.payload) > max_bytes or index - begin >= _BLOCK_COUNT):
            yield entries[index - 1].number, pack_entries(entries[begin:index])
            begin, size = index, 0
        size += len(entry.payload)
    yield entries[-1].number, pack_entries(entries[begin:])


def _without(row: Row, upto: int) -> Row:
    """A row without its entries up to a number; some are left."""
    number, packed = row
    entries = unpack_entries(packed)
    left = [entry for entry in entries if entry.number > upto]
    return row if len(left) == len(entries) else (number, pack_entries(left))


def _only_wanted(rows: list[Row], recorder: RecorderAbout) -> list[Row]:
    return [(number, pack_entries(_wanted_of(unpack_entries(packed), recorder))) for number, packed in rows]


def _wanted_of(entries: list[Entry], recorder: RecorderAbout) -> list[Entry]:
    """Entries that a recorder asks for, and gaps for the others."""
    kept: list[Entry] = []
    for is_wanted, neighbours in groupby(entries, lambda entry: _is_asked_for(entry, recorder)):
        together = list(neighbours)
        kept += together if is_wanted else [gap_of(together, NOT_HERE)]
    return kept


def _is_asked_for(entry: Entry, recorder: RecorderAbout) -> bool:
    return entry.kind != "data" or bool(entry.more.get("asked")) or recorder.wants(entry.topic, matches)

"""One outbox on its way to the recorders: what is on disk, what the disk did not take, what each recorder has.

Used by one thread, the saver's. The trap: the disk may be full. Then entries wait in memory, are sent all the same, and
go to the disk as soon as it takes them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ether.errors import OutboxFailed
from ether.logs import get_ether_logger
from ether.protocol.recorders import RecorderAbout, wanted
from ether.protocol.send_window import SendWindow
from ether.protocol.standing import Filters
from ether.wire.entries import Entry, pack_entry, unpack_entry
from ether.wire.facts import NOT_HERE
from ether.wire.topics import matches

if TYPE_CHECKING:
    from ether.store.outbox import OutboxFile, Row

BATCH_COUNT = 500
BATCH_BYTES = 1 << 20
_FORGET_COUNT = 2000
_FORGET_BYTES = 1 << 20
"""What recorders have is dropped from the file in bunches: that costs as much as writing it did."""

FULL = "the outbox was full"
"""Why entries are given up at the limit."""

logger = get_ether_logger("Ether")


class Lane:
    """One outbox, and a window for each recorder."""

    def __init__(self, file: OutboxFile) -> None:
        self.file = file
        self.outbox, self.source = file.outbox, file.source
        self.head = file.last
        """The highest number that was given out."""
        self.base = self._first_number() - 1
        """Up to here a recorder has everything, and it is forgotten."""
        self.windows: dict[str, SendWindow] = {}
        self.batch_bytes = BATCH_BYTES
        """The most that goes into one message, but for a single entry that is larger."""
        self._recorders: dict[str, RecorderAbout] = {}
        self._latest: list[Row] = []
        self._unwritten: list[Row] = []

    def _first_number(self) -> int:
        if self.file.first is None:
            return self.head + 1
        [(_, packed)] = self.file.read(self.file.first, self.file.first, 1, 1)
        return first_of(unpack_entry(packed))

    @property
    def stored_bytes(self) -> int:
        """What waits, on disk and in memory."""
        return self.file.size + sum(len(packed) for _, packed in self._unwritten)

    @property
    def unwritten(self) -> int:
        """How many entries the disk has not taken so far."""
        return len(self._unwritten)

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
            window.recorder(about.birth, now)

    def receive(self, recorder: str, birth: str, upto: int, now: float) -> bool:
        """A receipt; False where it is none of ours."""
        window = self.windows.get(recorder)
        if window is None or not 0 <= upto <= self.head:
            return False
        window.receive(birth, upto, now)
        return birth == self._recorders[recorder].birth

    # -- coming in

    def add(self, rows: list[Row]) -> None:
        """New entries, in order. Where the disk does not take them they stay in memory."""
        had_to_wait = bool(self._unwritten)
        self._unwritten += rows
        self._latest = rows
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
        if self._latest and first >= self._latest[0][0]:
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
        for number, packed in self._oldest_first():
            if number > upto:
                break
            entry = unpack_entry(packed)
            asked = entry.kind != "data" or entry.more.get("asked")
            nobody = not any(about.wants(entry.topic, matches) for about in self._recorders.values())
            if not asked and nobody and wanted(recorded, entry.topic, matches):
                return number
        return upto + 1

    def _oldest_first(self) -> Iterator[Row]:
        """All that waits; from memory alone where the disk takes nothing at present."""
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
        size = 0
        for _, packed in self._oldest_first():
            entry = unpack_entry(packed)
            if entry.kind != "gap" and not goes(entry, size):
                break
            going.append(entry)
            size += len(packed)
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
        if self._unwritten:
            self._unwritten = [row, *(kept for kept in self._unwritten if kept[0] > gap.number)]
        else:
            self.file.replace(gap.number, row)
        self._latest = []

    def give_up_one(self, number: int, packed: bytes, why: str) -> Entry:
        """Give up a single entry that no message can carry. Raises `OutboxFailed`."""
        gap = gap_of([unpack_entry(packed)], why)
        row = (number, pack_entry(gap))
        self._unwritten = [row if kept[0] == number else kept for kept in self._unwritten]
        self.file.exchange(row)
        self._latest = []
        return gap

    def oldest(self) -> Entry | None:
        """The oldest entry on disk that stands for itself."""
        first = self.base + 1
        while rows := self.file.read(first, self.file.last, 1, 1):
            entry = unpack_entry(rows[0][1])
            if entry.kind != "gap":
                return entry
            first = entry.number + 1
        return None


def first_of(entry: Entry) -> int:
    """The first number that an entry stands for."""
    first = entry.more.get("first") if entry.kind == "gap" else None
    return first if isinstance(first, int) else entry.number


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


def _only_wanted(rows: list[Row], recorder: RecorderAbout) -> list[Row]:
    kept: list[Row] = []
    skipped: list[Entry] = []
    for number, packed in rows:
        entry = unpack_entry(packed)
        if entry.kind != "data" or entry.more.get("asked") or recorder.wants(entry.topic, matches):
            _close_gap(kept, skipped)
            kept.append((number, packed))
        else:
            skipped.append(entry)
    _close_gap(kept, skipped)
    return kept


def _close_gap(kept: list[Row], skipped: list[Entry]) -> None:
    if skipped:
        gap = gap_of(skipped, NOT_HERE)
        kept.append((gap.number, pack_entry(gap)))
        skipped.clear()

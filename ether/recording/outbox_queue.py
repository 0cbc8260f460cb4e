"""One outbox on its way to the recorders: the rows on disk, the rows that the disk did not take, and how far each
recorder is.

Entries that come together are packed into one row, a block of bytes under the number of its last entry. The same bytes
are written to the outbox file and sent. Three numbers say how far the outbox is:

    base ≤ acknowledged ≤ head      base: every recorder has everything up to it, and the rows are dropped
                                    acknowledged: some recorder has everything up to it on disk
                                    head: the last number that was given out

A row may be in two places: in the file, and, for the rows of the last round, in `_latest`, from where they are sent
without reading the file. Where the disk takes nothing, rows wait in `_unwritten` instead of the file; they are sent all
the same, and written as soon as the disk takes them. A lazy outbox, which saves the card, lets rows wait there on
purpose: what a recorder acknowledges meanwhile is never written here at all.

For one thread, the sender's. The trap: a receipt, or a limit, may fall inside a row. The row is then sent whole: the
recorder ignores numbers that it has.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
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
"""The most entries, and bytes of payload, of one row. A row costs as much as dozens of entries."""
_FORGET_COUNT = 2000
_FORGET_BYTES = 1 << 20
"""Acknowledged rows are dropped from the file in bunches of so many entries or bytes: dropping costs as much as writing
did."""

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
        """Entries up to this number are dropped: every recorder has them."""
        self.windows: dict[str, SendWindow] = {}
        self._given: dict[str, int] = {}
        """The highest number that each recorder without a window had acknowledged when it left."""
        self._places: dict[str, tuple[str, str]] = {}
        """Host and folder of each recorder that was ever there."""
        self.batch_bytes = BATCH_BYTES
        """The most bytes of one message; a single larger entry has a message of its own."""
        self.ledger: tuple[str, str] | None = None
        """Host and folder of the ledger that has to have everything before it is dropped; None where any will do."""
        self.is_lazy = False
        """Whether acknowledged rows are dropped from the file only where they have become much, or `at_once`."""
        self._recorders: dict[str, RecorderAbout] = {}
        self._latest: list[Row] = []
        """The rows of the last `add`, whether or not the disk took them."""
        self._latest_from = 0
        """The first number in `_latest`."""
        self._unwritten: list[Row] = []
        """Rows that are not in the file; they follow its last row, or, where that is empty, `base`."""
        self._held: deque[tuple[int, float]] = deque()
        """The last number of each `add` whose rows were held back, and when that was."""

    @property
    def stored_bytes(self) -> int:
        """The bytes that wait, on disk and in memory."""
        return self.file.size + sum(len(packed) for _, packed in self._unwritten)

    @property
    def unwritten(self) -> int:
        """How many entries the disk has not taken so far."""
        return sum(len(unpack_entries(packed)) for _, packed in self._unwritten)

    @property
    def waiting(self) -> int:
        """How many numbers are not on disk where they have to be."""
        return self.head - self.settled

    @property
    def acknowledged(self) -> int:
        """The highest number that is on disk at some recorder."""
        return max([self.base, *(window.acknowledged for window in self.windows.values())])

    @property
    def levels(self) -> dict[Filters, int]:
        """The highest number that is on disk at a recorder, for each set of filters that recorders ask for."""
        levels: dict[Filters, int] = {}
        for name, window in self.windows.items():
            filters = self._recorders[name].topics
            levels[filters] = max(levels.get(filters, 0), window.acknowledged)
        return levels

    @property
    def receipts(self) -> list[tuple[str, str, str, int]]:
        """Of each recorder, those that have left included: name, host, folder, and the highest number that it has
        acknowledged. Those that are there come first, then the others, the latest first."""
        latest_first = list(reversed(self._places))
        names = sorted(latest_first, key=lambda name: name not in self.windows)
        return [(name, *self._places[name], self._given_by(name)) for name in names]

    @property
    def settled(self) -> int:
        """The highest number that is on disk where it has to be: in the named ledger, else at some recorder."""
        if self.ledger is None:
            return self.acknowledged
        # Each round of the sender asks for it, so no list of all receipts is made.
        return max([self.base, *(self._given_by(name) for name, place in self._places.items() if place == self.ledger)])

    def _given_by(self, recorder: str) -> int:
        """The highest number that a recorder has acknowledged, which may have left; 0 where it has none."""
        window = self.windows.get(recorder)
        return self._given.get(recorder, 0) if window is None else window.given

    def update_windows(self, recorders: dict[str, RecorderAbout], connections: Sequence[bool], now: float) -> None:
        """Take over the present recorders, and the changes of the connection since the last call; the last item of
        `connections` is its state now. A recorder without a window gets one that begins at `base`."""
        self._recorders = recorders
        for name in self.windows.keys() - recorders.keys():
            self._given[name] = self.windows.pop(name).given
        for name, about in recorders.items():
            self._places[name] = about.host, about.folder
            window = self.windows.get(name)
            if window is None:
                window = self.windows[name] = SendWindow(self.base, self._given.get(name, 0))
            for up in connections:
                window.connection(up, now)
            window.recorder(about.incarnation, now)

    def receive(self, recorder: str, incarnation: str, upto: int, now: float) -> bool:
        """Note a receipt: everything up to `upto` is on disk at that recorder. False where the recorder is unknown, has
        been restarted since, or names numbers that this outbox never gave out."""
        window = self.windows.get(recorder)
        if window is None or not 0 <= upto <= self.head:
            return False
        window.receive(incarnation, upto, now)
        return incarnation == self._recorders[recorder].incarnation

    # -- coming in

    def add(self, entries: Sequence[Entry], hold_at: float | None = None) -> None:
        """Pack new entries, in order, and write them. Where the disk does not take them they stay in memory; and with
        `hold_at`, the present time, where they wait for a receipt until `held_s` tells that they have waited enough."""
        had_to_wait = bool(self._unwritten)
        rows = list(_in_rows(entries, min(_BLOCK_BYTES, self.batch_bytes)))
        self._unwritten += rows
        self._latest, self._latest_from = rows, entries[0].number
        self.head = rows[-1][0]
        if hold_at is None:
            self.write(complain=not had_to_wait)
        else:
            self._held.append((self.head, hold_at))

    def held_s(self, now: float) -> float:
        """For how long the oldest entry that waits in memory alone has been held back there."""
        while self._held and self._held[0][0] <= self.base:
            self._held.popleft()
        return now - self._held[0][1] if self._held and self._unwritten else 0.0

    @property
    def held_bytes(self) -> int:
        """The bytes that are in memory alone."""
        return self.stored_bytes - self.file.size

    def write(self, *, complain: bool = False) -> bool:
        """Write the rows that the disk has not taken so far; False where it still does not."""
        if not self._unwritten:
            return True
        try:
            self.file.append(self._unwritten)
        except OutboxFailed as error:
            if complain:
                logger.error("%s; it waits in memory", error)
            return False
        self._unwritten = []
        self._held.clear()
        return True

    # -- going out

    def rows(self, first: int, recorder: RecorderAbout) -> list[Row]:
        """The next batch for a recorder, from a number on: the entries that it asks for, and gap entries for the
        others, so that its numbers have no hole."""
        rows = self._read(first)
        return rows if recorder.topics is None else _only_wanted(rows, recorder)

    def _read(self, first: int) -> list[Row]:
        """About `batch_bytes` of rows, the first of which holds the number `first`."""
        if self._latest and first >= self._latest_from:  # the usual case: a recorder that keeps up
            return _portion(self._latest, first, self.batch_bytes)
        if first <= self.file.last and self.file.first is not None:
            return self.file.read(first, self.head, BATCH_COUNT, self.batch_bytes)
        return _portion(self._unwritten, first, self.batch_bytes)

    def forget(self, recorded: Filters, *, at_once: bool) -> None:
        """Drop what every recorder has: `at_once`, or when it has become much, or when it is everything. Entries that
        the session records (`recorded`) and no present recorder asks for stay, for a recorder that will ask for them.
        Raises `OutboxFailed`."""
        if not self.windows:
            return
        upto = min(self.settled, *(window.acknowledged for window in self.windows.values()))
        much = upto - self.base >= _FORGET_COUNT or self.file.size >= _FORGET_BYTES
        costs_nothing = self.file.count == 0
        if upto <= self.base or not (at_once or much or costs_nothing or (upto == self.head and not self.is_lazy)):
            return
        if not self._is_covered(recorded):
            # A receipt covers also numbers that its recorder got as a gap; so look at each entry.
            upto = self._first_held(upto, recorded) - 1
        # Those in memory and those in the file go together: otherwise the file could get a hole between its rows.
        self.file.drop(upto)
        self._unwritten = [row for row in self._unwritten if row[0] > upto]
        self.base = upto

    def _is_covered(self, recorded: Filters) -> bool:
        """Whether one recorder asks for all that the session records: then no entry needs to be looked at."""
        asked_for = [about.topics for about in self._recorders.values()]
        return any(topics is None or (recorded is not None and set(recorded) <= set(topics)) for topics in asked_for)

    def _first_held(self, upto: int, recorded: Filters) -> int:
        """The first number, up to `upto`, of an entry that is to be recorded and that no recorder asks for; `upto` + 1
        where there is none."""
        for entry, _ in self._entries_of(chain(self._rows_in_file(), self._unwritten)):
            if entry.number > upto:
                break
            is_asked_for = any(_is_asked_for(entry, about) for about in self._recorders.values())
            if not is_asked_for and wanted(recorded, entry.topic, matches):
                return entry.number
        return upto + 1

    def _entries_of(self, rows: Iterable[Row]) -> Iterator[tuple[Entry, int]]:
        """The waiting entries in these rows, each with about the bytes that it takes."""
        for _, packed in rows:
            entries = unpack_entries(packed)
            size = len(packed) // len(entries)
            yield from ((entry, size) for entry in entries if entry.number > self.base)

    def _rows_in_file(self) -> Iterator[Row]:
        first = self.base + 1
        while rows := self.file.read(first, self.file.last, BATCH_COUNT, BATCH_BYTES):
            yield from rows
            first = rows[-1][0] + 1

    # -- giving up

    def give_up(self, goes: Callable[[Entry, int], bool], why: str) -> Entry | None:
        """Give up the oldest entries, as long as `goes(entry, bytes given up so far)` says so. Returns the gap entry
        that takes their place, None where nothing was given up. Raises `OutboxFailed`."""
        # `going` are the entries to give up; earlier gap entries among them are swallowed, whatever `goes` would say,
        # so that one gap stands for the whole span. Every BATCH_COUNT entries `going` is folded into `gap`, which
        # bounds the memory of giving up a whole outbox. Nothing is changed before the end of the walk.
        # Where the disk takes nothing at present, only rows in memory are looked at: the others could not be changed.
        gap: Entry | None = None
        going: list[Entry] = []
        given_up = 0
        self.write()
        for entry, size in self._entries_of(list(self._unwritten) or self._rows_in_file()):
            if entry.kind != "gap" and not goes(entry, given_up):
                break
            going.append(entry)
            given_up += size
            if len(going) >= BATCH_COUNT:
                gap, going = _extended(gap, going, why), []
        # A gap entry at the end frees nothing, and says why its own entries were lost. Where only gap entries were
        # found, nothing is left: an outbox of gaps alone does not report them anew at each look.
        while going and going[-1].kind == "gap":
            going.pop()
        if going:
            gap = _extended(gap, going, why)
        if gap is not None:
            self._put_in_place(gap)
        return gap

    def _put_in_place(self, gap: Entry) -> None:
        """Replace all rows up to the gap's number by the gap. The last entry that was given up may lie in the middle of
        a row; that row stays, without the entries up to it."""
        row = (gap.number, pack_entry(gap))
        self._latest = []  # its rows hold what was given up
        if self._unwritten:  # only these were walked through, see `give_up`
            left = [waiting for waiting in self._unwritten if waiting[0] > gap.number]
            self._unwritten = [row, *(_without(waiting, gap.number) for waiting in left[:1]), *left[1:]]
            return
        # Two transactions. A process that dies between them leaves entries that the gap names, too; the recorder has
        # the gap's number by then, and ignores them.
        self.file.replace(gap.number, row)
        for cut in self.file.read(gap.number + 1, self.file.last, 1, 1):
            self.file.exchange(cut[0], [_without(cut, gap.number)])

    def split(self, number: int) -> bool:
        """Make one row for each entry of the row that holds a number; False where that row has one entry only. Raises
        `OutboxFailed`."""
        last, packed = self._read(number)[0]
        entries = unpack_entries(packed)
        if len(entries) > 1:
            self._exchange(last, [(entry.number, pack_entry(entry)) for entry in entries])
        return len(entries) > 1

    def give_up_one(self, number: int, why: str) -> Entry:
        """Give up an entry that the broker does not take; it has a row of its own (`split`). Returns the gap entry.
        Raises `OutboxFailed`."""
        last, packed = self._read(number)[0]
        gap = gap_of(unpack_entries(packed), why)
        self._exchange(last, [(last, pack_entry(gap))])
        return gap

    def _exchange(self, number: int, rows: Sequence[Row]) -> None:
        """Put other rows in the place of a row, wherever it is."""
        self._unwritten = [row for waiting in self._unwritten for row in (rows if waiting[0] == number else [waiting])]
        self.file.exchange(number, rows)
        self._latest = []

    def oldest(self) -> Entry | None:
        """The oldest entry on disk that is not a gap."""
        first = self.base + 1
        while rows := self.file.read(first, self.file.last, 1, 1):
            last, packed = rows[0]
            for entry in unpack_entries(packed):
                if entry.kind != "gap" and entry.number > self.base:
                    return entry
            first = last + 1
        return None


def _extended(gap: Entry | None, entries: Sequence[Entry], why: str) -> Entry:
    """One gap entry for an earlier gap, if there is one, and the entries after it."""
    return gap_of(entries if gap is None else [gap, *entries], why)


def gap_of(entries: Sequence[Entry], why: str) -> Entry:
    """The gap entry that takes the place of neighbouring entries, gap entries among them included. It has the number of
    the last one, and names for each topic the first and last `seq` and how many messages are lost. Contexts and
    artifacts are on no topic; only the numbers account for them."""
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
    """Rows in memory from the one that holds `first` on, of at most that size, but at least one."""
    start = bisect_left(rows, first, key=lambda row: row[0])
    size, end = 0, start
    for _, packed in rows[start : start + BATCH_COUNT]:
        size += len(packed)
        if size > max_bytes and end > start:
            break
        end += 1
    return rows[start:end]


def _in_rows(entries: Sequence[Entry], max_bytes: int) -> Iterator[Row]:
    """Pack entries into rows of about that size, each with at least one entry."""
    begin = size = 0
    for index, entry in enumerate(entries):
        if index > begin and (size + len(entry.payload) > max_bytes or index - begin >= _BLOCK_COUNT):
            yield entries[index - 1].number, pack_entries(entries[begin:index])
            begin, size = index, 0
        size += len(entry.payload)
    yield entries[-1].number, pack_entries(entries[begin:])


def _without(row: Row, upto: int) -> Row:
    """A row without its entries up to a number, which is lower than that of the row."""
    number, packed = row
    entries = unpack_entries(packed)
    left = [entry for entry in entries if entry.number > upto]
    return row if len(left) == len(entries) else (number, pack_entries(left))


def _only_wanted(rows: list[Row], recorder: RecorderAbout) -> list[Row]:
    """Rows of the same numbers, in which gap entries stand for what a recorder does not ask for."""
    return [(number, pack_entries(_wanted_of(unpack_entries(packed), recorder))) for number, packed in rows]


def _wanted_of(entries: list[Entry], recorder: RecorderAbout) -> list[Entry]:
    """The entries that a recorder asks for, and one gap entry for each run of the others."""
    found: list[Entry] = []
    for is_wanted, neighbours in groupby(entries, lambda entry: _is_asked_for(entry, recorder)):
        together = list(neighbours)
        found += together if is_wanted else [gap_of(together, NOT_HERE)]
    return found


def _is_asked_for(entry: Entry, recorder: RecorderAbout) -> bool:
    """A recorder's filters are about messages; it takes everything else, and messages whose user asked for saving."""
    return entry.kind != "data" or bool(entry.more.get("asked")) or recorder.wants(entry.topic, matches)

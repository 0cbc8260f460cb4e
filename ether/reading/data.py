"""The records that a query chose, as values: an iterable that can be run again, and tables made of it.

Promises: nothing is read before somebody asks for a record. Records come in the order of their sources' clocks; those
of one source come in the order in which it made them, even where its clock was set back. Where a clock was set after a
record was made, the time by the set clock decides, for `since` and `until`, too (`Record.clock_set_s`). Records that
arrive while an iteration runs are not waited for. A body that cannot be decoded is given as the bytes that were stored,
with the reason in `problem`; the log says it once.

The trap: each iteration opens the ledger anew and may find more records than the one before. `held()` fixes the last
row (`upto_row`), so that every iteration finds the same records.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from itertools import islice, takewhile
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.errors import DecodeError
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.log import get_ether_logger
from ether.reading.columns import Columns, flatten, metadata_cells
from ether.reading.filter_rules import Predicate
from ether.reading.notes import ClockCorrections, clock_corrections
from ether.reading.run_metadata import run_metadata
from ether.version import VERSION
from ether.wire.codec import Body, decode

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

logger = get_ether_logger("data")

VALUES = ("data", "record")
"""The kinds of entries that carry values: messages, and values given to `ether.record()`."""

_CHUNK = 10_000
_MOST_COUNTED = 10_000
"""A notebook shows a line, and nobody waits for it."""
_WHERE_KNOWN = ("session", "trial", "clock_set_s")
"""The columns of a table that only some records have."""


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded value."""

    time: float
    """Unix seconds by the source's clock."""
    topic: str
    """The topic, or the name that `ether.record()` was given."""
    source: str
    """The instance or program that it came from; "" for a message without Ether's headers."""
    id: str
    run: str
    """The run that it belongs to, "" for none."""
    value: Any
    parents: tuple[str, ...]
    """Ids of the messages that led to it."""
    kind: str
    """`data` for a message, `record` for a value given to `ether.record()`."""
    row: int
    """Its row in the ledger."""
    body: Body = field(repr=False)
    """The payload as it was stored, with its content type."""
    replay_of: str | None = None
    """The id of the message that this one repeats."""
    problem: str | None = None
    """Why the body cannot be decoded; `value` then is its bytes."""
    trial: int | None = None
    """The number of the trial that it belongs to."""
    attempt: int | None = None
    """The attempt of that trial, from 1."""
    by: str | None = None
    """`time`: it belongs to its trial by the time at which it was made, and nothing of that trial caused it (a source
    that runs by itself). None: by its cause, or no trial; in ledgers of earlier versions also by time."""
    behind_s: float | None = None
    """How old the message was that led to it, in seconds, when its turn came; None where it was not late."""
    waiting: int | None = None
    """How many messages and calls waited then."""
    skipped: int | None = None
    """How many messages its method had skipped (`keep`, `max_age`) since its record before; None for none."""
    safe: str | None = None
    """Why its instance was in its safe state when it was made; None where it was not."""
    clock_set_s: float | None = None
    """By how many seconds its source's clock was set afterwards; None where it was not, or nothing is known of it."""
    session: str | None = None
    """The session that it was recorded in; None where all records are of one ledger."""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What was said of its run when that began; empty without a named run."""

    @property
    def corrected_time(self) -> float:
        """Unix seconds by the source's clock as it was set afterwards."""
        return self.time + (self.clock_set_s or 0.0)

    def cells(self) -> dict[str, Any]:
        """Its cells in a table, by column."""
        fixed = {"time": self.time, "topic": self.topic, "source": self.source, "id": self.id, "run": self.run}
        more = {name: cell for name in _WHERE_KNOWN if (cell := getattr(self, name)) is not None}
        if self.trial is not None and self.by:
            more["by"] = self.by
        if self.metadata:
            more |= metadata_cells(self.metadata)
        return {**fixed, **more, **flatten(self.value, {**fixed, **more})}


@dataclass(frozen=True, slots=True)
class Query:
    """Which records are wanted; None means any. Times are unix seconds; `instance` is a source's name."""

    topic: str | None = None
    run: str | None = None
    instance: str | None = None
    since: float | None = None
    until: float | None = None
    where: Predicate | None = None
    kinds: tuple[str, ...] = VALUES
    upto_row: int | None = None
    """Rows of the ledger after this one are left out."""
    attempts: Mapping[int, int] | None = None
    """By trial number the attempt that is wanted; records of other trials and attempts are left out."""
    said: Mapping[str, str] = field(default_factory=dict)
    """The user's words, for metadata."""

    def filter_of(self, source: str | None, corrections: ClockCorrections) -> RecordFilter:
        """The part of the query that the ledger answers by itself, for one source. Where clocks were set it may give
        more records than are wanted."""
        since = None if self.since is None else self.since - max(0.0, corrections.most_s)
        until = None if self.until is None else self.until - min(0.0, corrections.least_s)
        return RecordFilter(self.kinds, self.topic, source, self.run, since, until)

    def is_in_time(self, time: float) -> bool:
        """Whether a time is between `since` and `until`."""
        return (self.since is None or time >= self.since) and (self.until is None or time <= self.until)


class Data:
    """The records of a ledger that a query chose. It can be iterated any number of times: it reads as it goes, and
    holds one piece of rows for each source. `len()`, `first` and `last` read, too."""

    def __init__(self, folder: Path, query: Query, on_read: Callable[[StoredRecord], object] | None = None) -> None:
        """`on_read` is told of each record that is given out."""
        self.folder = folder
        self.query = query
        self.on_read = on_read

    # -- records

    def __iter__(self) -> Iterator[Record]:
        on_read = self.on_read
        for stored, record in self._read():
            if on_read is not None:
                on_read(stored)
            yield record

    def _read(self) -> Iterator[tuple[StoredRecord, Record]]:
        with LedgerReader.open(self.folder) as reader:
            undecodable, found = _Undecodable(self.folder), False
            try:
                for pair in self._chosen(reader, undecodable):
                    found = True
                    yield pair
            finally:
                undecodable.log()
            if not found and (why := why_nothing(reader, self.query)):
                logger.warning("nothing was found in %s: %s", self.folder, why)

    def __len__(self) -> int:
        if self.query.where is not None:
            return sum(1 for _ in self._read())
        with LedgerReader.open(self.folder) as reader:
            return sum(1 for _ in stored_in_time_order(reader, self.query))

    def __bool__(self) -> bool:
        return next(self._read(), None) is not None

    @property
    def first(self) -> Record | None:
        """The earliest record, None where there is none."""
        return next(iter(self), None)

    @property
    def last(self) -> Record | None:
        """The latest record, None where there is none."""
        with LedgerReader.open(self.folder) as reader:
            sources = reader.sources() if self.query.instance is None else [self.query.instance]
            corrections = clock_corrections(reader)
            latest = [next(self._newest_of(reader, source, corrections), None) for source in sources]
            found = (record for record in latest if record is not None)
            last = max(found, key=lambda record: record.corrected_time, default=None)
            if last is not None and self.on_read is not None and (stored := reader.by_row(last.row)) is not None:
                self.on_read(stored)
            return last

    def topics(self) -> list[str]:
        """The topics of these records."""
        with LedgerReader.open(self.folder) as reader:
            return sorted({stored.topic for stored in stored_in_time_order(reader, self.query)})

    @property
    def session(self) -> str:
        """The session that was recorded."""
        with LedgerReader.open(self.folder) as reader:
            return reader.session

    def held(self) -> Data:
        """The same records, without those that come to the ledger later."""
        if self.query.upto_row is not None:
            return self
        with LedgerReader.open(self.folder) as reader:
            upto = reader.count()
        return Data(self.folder, replace(self.query, upto_row=upto), self.on_read)

    def chunks(self, size: int = _CHUNK) -> Iterator[list[Record]]:
        """The records in lists of at most `size`."""
        records = iter(self)
        while chunk := list(islice(records, size)):
            yield chunk

    # -- tables. The modules of the tables are imported late, because they load pandas, pyarrow and NumPy.

    def columns(self) -> Columns:
        """The columns of a table of these records; reads all of them."""
        columns = Columns()
        for record in self:
            columns.take(record.cells())
        return columns

    def rows(self) -> tuple[Columns, list[dict[str, Any]]]:
        """The columns of a table of these records, and its rows."""
        columns, rows = Columns(), [record.cells() for record in self]
        for row in rows:
            columns.take(row)
        return columns, rows

    def metadata(self) -> dict[str, Any]:
        """The origin of a table: session, ledger, topics, query, version of Ether."""
        with LedgerReader.open(self.folder) as reader:
            session = reader.session
            said = run_metadata(reader, self.query.run)
            found = self._topics_and_runs(reader) if said or self.query.topic is None else (set(), set())
        topics: object = self.query.topic if self.query.topic is not None else sorted(found[0])
        runs = {run: dict(metadata) for run, metadata in said.items() if run in found[1]}
        return {
            "session": session, "ledger": str(self.folder), "topic": topics, "query": dict(self.query.said),
            **({"runs": runs} if runs else {}), "ether": VERSION,
        }  # fmt: skip

    def _topics_and_runs(self, reader: LedgerReader) -> tuple[set[str], set[str]]:
        found = {(stored.topic, stored.run) for stored in stored_in_time_order(reader, self.query)}
        return {topic for topic, _ in found}, {run for _, run in found}

    def to_pandas(self) -> pd.DataFrame:
        """A table with the columns `time` (UTC, datetime64[ns]), `topic`, `source`, `id`, `run`, `trial` where there
        are any, then one for each key of the values; keys inside of keys are joined by dots, and a value that is no
        mapping is in `value`. Arrays stay arrays. `attrs` says where it comes from. Raises `MissingExtra` without
        pandas."""
        from ether.reading.tables import pandas as table

        table.check_library()  # before anything is read
        held = self.held()
        columns, rows = held.rows()
        return table.frame_of(rows, columns.forms(), held.metadata())

    def to_arrow(self) -> pa.Table:
        """The same as an Arrow table; arrays of one shape are fixed-size lists, with their shape in the field's
        metadata. Raises `MissingExtra` without pyarrow."""
        from ether.reading.tables import arrow as table

        table.check_library("to_arrow()")
        held = self.held()
        columns, rows = held.rows()
        return table.arrow_rows(rows, table.schema_of(columns.forms(), held.metadata()))

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The same as a structured array, of shape `(records,)`, with one field for each column: `array["celsius"]`.
        Arrays of one shape are stacked: `array["image"]` has the shape `(records, height, width)`. Raises
        `MissingExtra` without numpy."""
        from ether.reading.tables import numpy as table

        table.check_library()
        columns, rows = self.held().rows()
        return table.structured_array_of(rows, columns.forms())

    def __repr__(self) -> str:
        words = ", ".join(f"{key}={text}" for key, text in self.query.said.items())
        return f"<ether.data of {self.folder}{': ' if words else ''}{words}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: what was asked for, and how many records that is, as far as that is counted at once.
        Nothing counts as read by that."""
        return f"<p>{escape(repr(self))}{self._said_count()}</p>"

    def _said_count(self) -> str:
        if self.query.where is not None:
            return ""  # each value would have to be decoded
        with LedgerReader.open(self.folder) as reader:
            count = sum(1 for _ in islice(stored_in_time_order(reader, self.query), _MOST_COUNTED))
        more = "at least " if count == _MOST_COUNTED else ""
        return f": {more}{count:,} record{'' if count == 1 else 's'}; to_pandas() makes a table of them"

    def _newest_of(self, reader: LedgerReader, source: str, corrections: ClockCorrections) -> Iterator[Record]:
        upto, said = self.query.upto_row, run_metadata(reader, self.query.run)
        for stored in _of_source(reader, self.query, source, corrections, newest_first=True):
            record = record_of(stored, corrections.of(stored), said.get(stored.run))
            if (upto is None or record.row <= upto) and self._wants(record):
                yield record

    def _wants(self, record: Record) -> bool:
        where = self.query.where
        return where is None or (record.problem is None and _holds(where, record))

    def _chosen(self, reader: LedgerReader, undecodable: _Undecodable) -> Iterator[tuple[StoredRecord, Record]]:
        corrections, said = clock_corrections(reader), run_metadata(reader, self.query.run)
        for stored in stored_in_time_order(reader, self.query, corrections):
            record = record_of(stored, corrections.of(stored), said.get(stored.run))
            if record.problem is not None:
                undecodable.take(record)
            if self._wants(record):
                yield stored, record


class _Undecodable:
    """Counts the records whose body cannot be decoded, and logs them once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._first: Record | None = None

    def take(self, record: Record) -> None:
        self._count += 1
        self._first = self._first or record

    def log(self) -> None:
        if self._first is not None:
            where = f"the first is row {self._first.row} on {self._first.topic!r}: {self._first.problem}"
            logger.warning("%d values in %s cannot be understood; %s", self._count, self._folder, where)


def _holds(where: Predicate, record: Record) -> bool:
    try:
        return bool(where(record.value))
    except Exception as error:
        error.add_note(
            f"while `where` looked at the record {record.id} on topic {record.topic!r}: {record.value!r:.200}"
        )
        raise


def why_nothing(reader: LedgerReader, query: Query) -> str | None:
    """A sentence where the query has a topic, run or instance of which the ledger has no record; None otherwise."""
    names = (
        ("topic", query.topic, [summary.topic for summary in reader.topics()]),
        ("run", query.run, [summary.run for summary in reader.runs()]),
        ("instance", query.instance, reader.sources()),
    )
    for what, name, recorded in names:
        is_filter = what == "topic" and name is not None and ("+" in name or "#" in name)
        if name is not None and name not in recorded and not is_filter:
            for deletion in reader.deletions():
                if f"{what} {name}" in str(deletion.said.get("what", "")):
                    return f"it has nothing of the {what} {name!r}: it was {deletion}"
            nearest = difflib.get_close_matches(name, recorded, n=1)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
            return f"it has nothing of the {what} {name!r}{meant}"
    return None


# -- from the ledger's records to a user's


def record_of(stored: StoredRecord, clock_set_s: float = 0.0, metadata: Mapping[str, Any] | None = None) -> Record:
    """A stored record as users see it. `metadata`: of its run."""
    body = Body(stored.payload, stored.content_type)
    problem = None
    try:
        value = decode(*body)
    except DecodeError as error:
        value, problem = stored.payload, str(error)
    replay_of = stored.more.get("replay_of")
    trial, attempt = trial_of(stored)
    return Record(
        time=stored.time,
        topic=stored.topic,
        source=stored.source,
        id=stored.id,
        run=stored.run,
        value=value,
        parents=stored.parents,
        kind=stored.kind,
        row=stored.row,
        body=body,
        replay_of=replay_of if isinstance(replay_of, str) else None,
        problem=problem,
        trial=trial,
        attempt=attempt,
        by=by if trial is not None and isinstance(by := stored.more.get("by"), str) else None,
        behind_s=_number_of(stored, "behind_s"),
        waiting=None if (waiting := _number_of(stored, "waiting")) is None else int(waiting),
        skipped=None if (skipped := _number_of(stored, "skipped")) is None else int(skipped),
        safe=safe if isinstance(safe := stored.more.get("safe"), str) else None,
        clock_set_s=clock_set_s or None,
        metadata=metadata or {},
    )


def _number_of(stored: StoredRecord, fact: str) -> float | None:
    number = stored.more.get(fact)
    return number if isinstance(number, int | float) else None


def trial_of(stored: StoredRecord) -> tuple[int | None, int | None]:
    """The number of the trial that a record belongs to, and the attempt; None for none."""
    trial, attempt = stored.more.get("trial"), stored.more.get("attempt")
    return trial if isinstance(trial, int) else None, attempt if isinstance(attempt, int) else None


def stored_in_time_order(
    reader: LedgerReader, query: Query, corrections: ClockCorrections | None = None
) -> Iterator[StoredRecord]:
    """The stored records of a query, without its `where`: the streams of all sources merged by time. A stream is never
    sorted, so the records of one source keep their order whatever its clock did."""
    corrections = clock_corrections(reader) if corrections is None else corrections
    sources = reader.sources() if query.instance is None else [query.instance]
    streams = [_of_source(reader, query, source, corrections) for source in sources]
    if query.upto_row is not None:
        upto = query.upto_row
        streams = [takewhile(lambda stored: stored.row <= upto, stream) for stream in streams]
    if len(streams) == 1:
        return streams[0]
    if not corrections:
        return heapq.merge(*streams, key=attrgetter("time"))
    return heapq.merge(*streams, key=lambda stored: stored.time + corrections.of(stored))


def _of_source(
    reader: LedgerReader, query: Query, source: str, corrections: ClockCorrections, *, newest_first: bool = False
) -> Iterator[StoredRecord]:
    found = reader.records(query.filter_of(source, corrections), newest_first=newest_first)
    if corrections:
        found = (stored for stored in found if query.is_in_time(stored.time + corrections.of(stored)))
    attempts = query.attempts
    return found if attempts is None else (stored for stored in found if _is_of_attempts(stored, attempts))


def _is_of_attempts(stored: StoredRecord, attempts: Mapping[int, int]) -> bool:
    trial, attempt = trial_of(stored)
    return trial is not None and attempts.get(trial) == attempt

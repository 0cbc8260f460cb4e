"""What was recorded, as values: an iterator that can be run again, and tables of it.

Promises: nothing is read before it is asked for; records come in the order of their sources' clocks, and those of one
source in the order in which it made them, whatever its clock did; what arrives while one reads is not waited for. A
body that cannot be understood is given as the bytes that were kept, with `problem` saying why; the log says it once.

The trap: each iteration opens the ledger anew and may find more in it; `upto_row` holds it to what was there.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.errors import DecodeError
from ether.ledger.reader import LedgerReader
from ether.log import get_ether_logger
from ether.reading.columns import Columns, flatten
from ether.reading.filter_rules import Predicate
from ether.version import VERSION
from ether.wire.codec import Body, decode

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from ether.ledger.reader import StoredRecord

logger = get_ether_logger("data")

VALUES = ("data", "record")
"""The kinds of entries that carry values: messages, and what `ether.record()` was given."""

_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Record:
    """One value that was kept."""

    time: float
    """Unix seconds by the source's clock."""
    topic: str
    """The topic, or the name that `ether.record()` was given."""
    source: str
    """The instance or program that it came from; "" for a stranger."""
    id: str
    run: str
    """The run that it belongs to, "" for none."""
    value: Any
    parents: tuple[str, ...]
    """Ids of the messages that led to it."""
    kind: str
    """`data` for a message, `record` for what `ether.record()` was given."""
    row: int
    """Its row in the ledger."""
    body: Body = field(repr=False)
    """As it was kept."""
    replay_of: str | None = None
    """The id of the message that this one repeats."""
    problem: str | None = None
    """Why the body cannot be understood; `value` then is its bytes."""
    trial: int | None = None
    """The number of the trial that it belongs to."""
    attempt: int | None = None
    """The attempt of that trial, from 1."""

    def cells(self) -> dict[str, Any]:
        """As a row of a table, by column."""
        fixed = {"time": self.time, "topic": self.topic, "source": self.source, "id": self.id, "run": self.run}
        if self.trial is None:
            return {**fixed, **flatten(self.value)}
        known = {**fixed, "trial": self.trial}
        return {**known, **flatten(self.value, known)}


@dataclass(frozen=True, slots=True)
class Query:
    """Which records are wanted; times in unix seconds, `instance` is a source's name. `said` is what the user asked
    for, as text for metadata."""

    topic: str | None = None
    run: str | None = None
    instance: str | None = None
    since: float | None = None
    until: float | None = None
    where: Predicate | None = None
    kinds: tuple[str, ...] = VALUES
    upto_row: int | None = None
    attempts: Mapping[int, int] | None = None
    """Only what belongs to these trials, and of each to that attempt."""
    said: Mapping[str, str] = field(default_factory=dict)


class Data:
    """Records of a ledger that a query chose. Iterate over it as often as you like: it reads while it goes, and holds
    one piece of each source. `len()`, `first` and `last` read, too."""

    def __init__(self, folder: Path, query: Query) -> None:
        self.folder = folder
        self.query = query

    # -- records

    def __iter__(self) -> Iterator[Record]:
        with LedgerReader.open(self.folder) as reader:
            unreadable, found = _Unreadable(self.folder), False
            try:
                for record in self._chosen(reader, unreadable):
                    found = True
                    yield record
            finally:
                unreadable.tell()
            if not found and (why := why_nothing(reader, self.query)):
                logger.warning("nothing was found in %s: %s", self.folder, why)

    def __len__(self) -> int:
        if self.query.where is not None:
            return sum(1 for _ in self)
        with LedgerReader.open(self.folder) as reader:
            return sum(1 for _ in stored_in_time_order(reader, self.query))

    def __bool__(self) -> bool:
        return self.first is not None

    @property
    def first(self) -> Record | None:
        """The earliest, None where there is none."""
        return next(iter(self), None)

    @property
    def last(self) -> Record | None:
        """The latest, None where there is none."""
        with LedgerReader.open(self.folder) as reader:
            sources = reader.sources() if self.query.instance is None else [self.query.instance]
            latest = [next(self._newest_of(reader, source), None) for source in sources]
        return max((record for record in latest if record is not None), key=lambda record: record.time, default=None)

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
        """The same, held to what is in the ledger now: every iteration finds the same records."""
        if self.query.upto_row is not None:
            return self
        with LedgerReader.open(self.folder) as reader:
            upto = reader.count()
        return Data(self.folder, replace(self.query, upto_row=upto))

    def chunks(self, size: int = _CHUNK) -> Iterator[list[Record]]:
        """The records in lists of at most `size`."""
        records = iter(self)
        while chunk := list(islice(records, size)):
            yield chunk

    # -- tables

    def columns(self) -> Columns:
        """What a table of these records looks like; reads all of them."""
        columns = Columns()
        for record in self:
            columns.take(record.cells())
        return columns

    def rows(self) -> tuple[Columns, list[dict[str, Any]]]:
        """The same, and what stands in the table."""
        columns, rows = Columns(), [record.cells() for record in self]
        for row in rows:
            columns.take(row)
        return columns, rows

    def metadata(self) -> dict[str, Any]:
        """What a table says of where it comes from."""
        with LedgerReader.open(self.folder) as reader:
            session = reader.session
        topics: object = self.query.topic if self.query.topic is not None else self.topics()
        return {
            "session": session, "ledger": str(self.folder), "topic": topics, "query": dict(self.query.said),
            "ether": VERSION,
        }  # fmt: skip

    def to_pandas(self) -> pd.DataFrame:
        """A table with the columns `time` (UTC, datetime64[ns]), `topic`, `source`, `id`, `run`, `trial` where there
        are any, then one for each key
        of the values; keys inside of keys are joined by dots, values that are no mappings are in `value`. Arrays stay
        arrays. `attrs` says where it comes from. Raises `MissingExtra` without pandas."""
        from ether.reading.tables.pandas import frame_of

        return frame_of(self)

    def to_arrow(self) -> pa.Table:
        """The same as an Arrow table; arrays of one shape are fixed-size lists, with their shape in the field's
        metadata. Raises `MissingExtra` without pyarrow."""
        from ether.reading.tables.arrow import table_of

        return table_of(self)

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The same as a structured array, of shape `(records,)`, with one field for each column: `array["celsius"]`.
        Arrays of one shape are stacked: `array["image"]` has the shape `(records, height, width)`. Raises
        `MissingExtra` without numpy."""
        from ether.reading.tables.numpy import structured_array_of

        return structured_array_of(self)

    def __repr__(self) -> str:
        asked = ", ".join(f"{key}={text}" for key, text in self.query.said.items())
        return f"<ether.data of {self.folder}{': ' if asked else ''}{asked}>"

    def _newest_of(self, reader: LedgerReader, source: str) -> Iterator[Record]:
        upto = self.query.upto_row
        for stored in _of_source(reader, self.query, source, newest_first=True):
            record = record_of(stored)
            if (upto is None or record.row <= upto) and self._wants(record):
                yield record

    def _wants(self, record: Record) -> bool:
        where = self.query.where
        return where is None or (record.problem is None and _holds(where, record))

    def _chosen(self, reader: LedgerReader, unreadable: _Unreadable) -> Iterator[Record]:
        for stored in stored_in_time_order(reader, self.query):
            record = record_of(stored)
            if record.problem is not None:
                unreadable.take(record)
            if self._wants(record):
                yield record


class _Unreadable:
    """Counts what could not be understood, and says it once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._first: Record | None = None

    def take(self, record: Record) -> None:
        self._count += 1
        self._first = self._first or record

    def tell(self) -> None:
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
    """A sentence where a name in the query is one that nothing was recorded under; None where it is not that."""
    asked = (
        ("topic", query.topic, [summary.topic for summary in reader.topics()]),
        ("run", query.run, [summary.run for summary in reader.runs()]),
        ("instance", query.instance, reader.sources()),
    )
    for what, name, there in asked:
        is_filter = what == "topic" and name is not None and ("+" in name or "#" in name)
        if name is not None and name not in there and not is_filter:
            nearest = difflib.get_close_matches(name, there, n=1)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
            return f"it has nothing of the {what} {name!r}{meant}"
    return None


def record_of(stored: StoredRecord) -> Record:
    """What users see of a stored record."""
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
    )


def trial_of(stored: StoredRecord) -> tuple[int | None, int | None]:
    """The trial that a record belongs to, and which attempt of it."""
    trial, attempt = stored.more.get("trial"), stored.more.get("attempt")
    return trial if isinstance(trial, int) else None, attempt if isinstance(attempt, int) else None


def stored_in_time_order(reader: LedgerReader, query: Query) -> Iterator[StoredRecord]:
    """The stored records of a query, without its `where`: merged by time, each source's in its own order."""
    sources = reader.sources() if query.instance is None else [query.instance]
    streams = [_of_source(reader, query, source) for source in sources]
    if query.upto_row is not None:
        upto = query.upto_row
        streams = [takewhile(lambda stored: stored.row <= upto, stream) for stream in streams]
    return heapq.merge(*streams, key=lambda stored: stored.time) if len(streams) != 1 else streams[0]


def _of_source(
    reader: LedgerReader, query: Query, source: str, *, newest_first: bool = False
) -> Iterator[StoredRecord]:
    found = reader.records(
        kinds=query.kinds,
        topic=query.topic,
        source=source,
        run=query.run,
        since=query.since,
        until=query.until,
        newest_first=newest_first,
    )
    attempts = query.attempts
    return found if attempts is None else (stored for stored in found if _in_these(stored, attempts))


def _in_these(stored: StoredRecord, attempts: Mapping[int, int]) -> bool:
    trial, attempt = trial_of(stored)
    return trial is not None and attempts.get(trial) == attempt

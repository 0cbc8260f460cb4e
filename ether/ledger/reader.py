"""A ledger, read: also while a writer appends to it, also from a folder that cannot be written to.

Promises: every record is checked against its checksum before it is returned; a record that fails raises `LedgerDamaged`
with its place. Nothing in the folder changes. The writer never waits for a reader, because rows are read in short
pieces, and no transaction stays open between two pieces.

The trap: an iteration may see records that are appended while it lasts. Rows never change, so it returns no record
twice.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter, itemgetter
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, cast

from ether.errors import LedgerDamaged, LedgerFailed
from ether.ledger import schema
from ether.ledger.objects import Objects
from ether.ledger.rows import COLUMNS, LARGE_BYTES, checksum_of
from ether.ledger.seal import SEAL
from ether.ledger.sqlite import DATABASE, Connection, ledger_errors, open_ledger
from ether.wire.codec import decode
from ether.wire.entries import GapFact, Kind, OutboxFacts
from ether.wire.json_text import dumps, loads
from ether.wire.topics import OUTSIDE, matches

_PIECE_ROWS = 500
_FEWEST_ROWS = 20
"""Of a piece, where several origins are read side by side."""
_MOST_STREAMS = 50
"""Origins that are read side by side."""

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM entries"
_LAST_ROW = (1 << 63) - 1
_FIELDS = tuple("_body" if name == "payload" else name for name in COLUMNS)
"""The field of `StoredRecord` for each column."""

# -- what is returned


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """An entry as the ledger has it; `ether.wire.entries.Entry` says what the fields of the same name mean."""

    row: int
    """Its place in the ledger, from 1."""
    outbox: str
    """"" for a record that no outbox has numbered."""
    number: int
    kind: Kind
    topic: str
    id: str
    source: str
    """The instance or program that it is from."""
    seq: int
    time: float
    received: float
    """Unix seconds by the recorder's clock, when it came to the ledger."""
    run: str
    parents: tuple[str, ...]
    context: str
    content_type: str | None
    more: Mapping[str, object]
    size: int
    """Bytes of the payload."""
    sha256: str | None
    """Of a payload that is stored by its hash."""
    checksum: str
    link: str
    _body: bytes | None = field(repr=False)
    _fetch: Callable[[str], bytes] = field(repr=False, compare=False)

    @property
    def payload(self) -> bytes:
        """The body. A large one is read from its file; raises `LedgerDamaged` where that is not what was written."""
        return self._fetch(self.sha256) if self._body is None and self.sha256 else self._body or b""

    @property
    def value(self) -> object:
        """The payload decoded; raises `DecodeError` where it is not a body of its content type, and what `payload`
        raises."""
        return decode(self.payload, self.content_type)


def record_of(row: tuple[object, ...], content: Callable[[str], bytes], fetch: Callable[[str], bytes]) -> StoredRecord:
    """The record of a row of the view `entries`; raises `ValueError` where the row is not what was written.

    `content` gives a small payload that is stored by its hash; it is called at once. `fetch` gives a large one; it is
    called when the payload is read."""
    _, *columns, body, checksum, link = row
    try:
        right = checksum_of(columns, cast("bytes | None", body)) == checksum
    except (TypeError, ValueError):  # a damaged column may hold a value of another type
        right = False
    if not right:
        raise ValueError("its checksum is wrong")
    values = dict(zip(_FIELDS, row, strict=True))
    values["parents"] = _parents(str(values["parents"]))
    values["more"] = MappingProxyType(cast("dict[str, object]", loads(str(values["more"]), strict=True)))
    values["checksum"], values["link"] = cast(bytes, checksum).hex(), cast(bytes, link).hex()
    if values["sha256"] is not None and cast(int, values["size"]) <= LARGE_BYTES:
        values["_body"] = content(str(values["sha256"]))
    return StoredRecord(**values, _fetch=fetch)  # type: ignore[arg-type]


def _parents(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(cast("list[str]", loads(text, strict=True)))


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """The records of a topic. `first` and `last` are the times of the first and the last record in the ledger, in unix
    seconds by the sources' clocks."""

    topic: str
    kind: str
    count: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The records of a run; see `TopicSummary`."""

    run: str
    count: int
    first: float
    last: float


# -- which records are wanted


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records are wanted: those that fit every field. None means any."""

    kinds: Sequence[str] = ("data", "record")
    """`()` means all kinds."""
    topic: str | None = None
    """A user's topic or filter (`camera/+`)."""
    source: str | None = None
    run: str | None = None
    since: float | None = None
    """Unix seconds by the source's clock, as `until`; both ends are included."""
    until: float | None = None


class LedgerReader:
    """Reads one ledger. A context manager. Not locked: one thread at a time. Made by `LedgerReader.open`."""

    def __init__(self, folder: Path, connection: Connection, *, sealed: bool) -> None:
        self._sealed = sealed
        self.folder = folder
        self._connection = connection
        self._objects = Objects(folder)
        self.schema_version = schema.check_version(connection, folder)
        meta = schema.meta_of(connection)
        self.session, self.created = meta.get("session", ""), float(meta.get("created", "0"))

    @classmethod
    def open(cls, folder: Path) -> LedgerReader:
        """Open the folder's ledger; raises `LedgerFailed` where there is none, `SchemaTooNew`, `LedgerDamaged`."""
        folder = Path(folder).absolute()
        if not (folder / DATABASE).is_file():
            raise LedgerFailed(folder, f"there is no {DATABASE} in it: this is no ledger")
        schema.refuse_log_on_read_only(folder)
        with ledger_errors(folder):
            sealed = (folder / SEAL).exists()
            connection = open_ledger(folder, write=False, sealed=sealed)
            try:
                return cls(folder, connection, sealed=sealed)
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # -- records

    def records(
        self,
        wanted: RecordFilter = RecordFilter(),
        *,
        after_row: int = 0,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[StoredRecord]:
        """The records that fit, in the order in which they came to the ledger, at most `limit` of them. `after_row`
        leaves out that row and all before it, also with `newest_first`."""
        conditions, values = "", []
        for condition, value in (("time >= ?", wanted.since), ("time <= ?", wanted.until)):
            if value is not None:
                conditions += f" AND {condition}"
                values.append(value)
        origins = self._origins(wanted)
        if origins is None:
            found = self._pieces(conditions, values, after_row, newest_first)
        elif len(origins) <= _MOST_STREAMS:
            # The index gives the rows of one origin in order; the streams are then merged by row. So a rare topic
            # costs as much as it has records, and not a scan of all others.
            rows = max(_PIECE_ROWS // max(len(origins), 1), _FEWEST_ROWS)
            streams = [
                self._pieces(f"{conditions} AND origin = ?", [*values, origin], after_row, newest_first, rows)
                for origin in origins
            ]
            found = heapq.merge(*streams, key=attrgetter("row"), reverse=newest_first)
        else:
            # Too many streams: a scan by row. The + keeps SQLite from using the index of origins, and sorting.
            several = f"{conditions} AND +origin IN (SELECT value FROM json_each(?))"
            found = self._pieces(several, [*values, dumps(origins).decode()], after_row, newest_first)
        return islice(found, limit)

    def record(self, message_id: str) -> StoredRecord | None:
        """The message, recorded value or call of that id."""
        found = self._found("id = ? AND kind NOT IN ('context', 'artifact') ORDER BY row LIMIT 1", message_id)
        return found[0] if found else None

    def by_row(self, row: int) -> StoredRecord | None:
        """The record in that row."""
        found = self._found("row = ?", row)
        return found[0] if found else None

    def children(self, message_id: str) -> list[StoredRecord]:
        """The records that name the message as a parent, log records left out."""
        found = self._found("row IN (SELECT row FROM parents WHERE parent = ?) ORDER BY row", message_id)
        return [record for record in found if record.kind != "log"]

    def logs_of(self, message_id: str) -> list[StoredRecord]:
        """The log records that were made while the message was handled: they name it as a parent."""
        # The database selects by kind, because a message may have 100,000 children that are no log records.
        return self._found(
            "kind = 'log' AND row IN (SELECT row FROM parents WHERE parent = ?) ORDER BY row", message_id
        )

    def context(self, sha256: str) -> dict[str, object] | None:
        """The context of that hash, None where it is not here; raises `LedgerDamaged`."""
        content = self.artifact(sha256)
        return None if content is None else cast("dict[str, object]", loads(content.decode(), strict=True))

    def artifact(self, sha256: str) -> bytes | None:
        """The content of that hash, None where it is not here; raises `LedgerDamaged`."""
        if self._all("SELECT 1 FROM contents WHERE sha256 = ?", sha256):
            return self._content(sha256)
        return self._object(sha256) if self._objects.path(sha256).is_file() else None

    # -- summaries

    def topics(self) -> list[TopicSummary]:
        """The topics that values were recorded on, by name."""
        found = self._summaries("topic, kind", "kind IN ('data', 'record')")
        return [TopicSummary(*row) for row in found]

    def sources(self) -> list[str]:
        """The names of all sources."""
        return [source for (source,) in self._all("SELECT DISTINCT source FROM origins ORDER BY source")]

    def runs(self) -> list[RunSummary]:
        """The runs that records belong to, in the order in which they began."""
        return [RunSummary(*row) for row in sorted(self._summaries("run", "run != ''"), key=itemgetter(2))]

    def count(self) -> int:
        """How many rows there are."""
        return int(self._all("SELECT coalesce(max(row), 0) FROM records")[0][0])

    def duplicates(self) -> int:
        """How many messages and recorded values are in the ledger more than once, counted from the ids."""
        twice = "SELECT count(*) - 1 AS again FROM entries WHERE id != '' AND kind IN ('data', 'record') GROUP BY id"
        return int(self._all(f"SELECT coalesce(sum(again), 0) FROM ({twice} HAVING again > 0)")[0][0])

    def outboxes(self) -> list[OutboxFacts]:
        """The state of each outbox: the highest number that is here, the highest that its source has given out, and the
        gaps in between."""
        gaps: dict[str, list[GapFact]] = {}
        for record in self.records(RecordFilter(kinds=("gap",))):
            gaps.setdefault(record.outbox, []).append(_gap_fact(record))
        query = "SELECT outbox, source, highest, head, last FROM outboxes ORDER BY source, outbox"
        facts = [
            OutboxFacts(outbox, source, highest, head, tuple(gaps.pop(outbox, ())), last)
            for outbox, source, highest, head, last in self._all(query)
        ]
        return facts + [_lost_here(tuple(rest)) for rest in gaps.values()]

    def _summaries(self, by: str, where: str) -> list[tuple[Any, ...]]:
        """Count, first and last time of each group. The counts come from the index of origins alone; of the rows
        themselves only the first and the last of each group are read."""
        each = "SELECT origin, count(*) AS n, min(row) AS a, max(row) AS b FROM records GROUP BY origin"
        summed = (
            f"SELECT {by}, sum(n) AS n, min(a) AS a, max(b) AS b FROM origins JOIN ({each}) USING (origin)"
            f" WHERE {where} GROUP BY {by}"
        )
        ends = "JOIN records AS first ON first.row = a JOIN records AS last ON last.row = b"
        return self._all(f"SELECT {by}, n, first.time, last.time FROM ({summed}) {ends} ORDER BY {by}")

    # -- how rows are read

    def _origins(self, wanted: RecordFilter) -> list[int] | None:
        """The origins whose records fit, by number; None for all."""
        topic, source, run = wanted.topic, wanted.source, wanted.run
        if not wanted.kinds and topic is source is run is None:
            return None
        topics = None if topic is None else set(self._topics_like(topic))
        return [
            origin for origin, its_kind, its_source, its_run, its_topic
            in self._all("SELECT origin, kind, source, run, topic FROM origins")
            if (not wanted.kinds or its_kind in wanted.kinds) and (topics is None or its_topic in topics)
            and source in (None, its_source) and run in (None, its_run)
        ]  # fmt: skip

    def _topics_like(self, topic_filter: str) -> list[str]:
        if "+" not in topic_filter and "#" not in topic_filter:
            return [topic_filter]
        outside = topic_filter.startswith(OUTSIDE)
        pattern = topic_filter.removeprefix(OUTSIDE)
        topics = (topic for (topic,) in self._all("SELECT DISTINCT topic FROM origins"))
        return [
            topic for topic in topics
            if topic.startswith(OUTSIDE) == outside and matches(pattern, topic.removeprefix(OUTSIDE))
        ]  # fmt: skip

    def _pieces(
        self, conditions: str, values: list[Any], after_row: int, newest_first: bool, piece: int = _PIECE_ROWS
    ) -> Iterator[StoredRecord]:
        """The rows that fit, read `piece` rows at a time. The next piece begins beyond the last row of this one (keyset
        pagination), so nothing has to stay open in between that the writer could wait for."""
        low, high = after_row, _LAST_ROW
        order = "row DESC" if newest_first else "row"
        query = f"{_SELECT} WHERE row > ? AND row < ?{conditions} ORDER BY {order} LIMIT ?"
        while rows := self._all(query, low, high, *values, piece):
            for row in rows:
                yield self._checked(row)
            if len(rows) < piece:
                return
            low, high = (low, int(rows[-1][0])) if newest_first else (int(rows[-1][0]), high)

    def _found(self, where: str, value: object) -> list[StoredRecord]:
        return [self._checked(row) for row in self._all(f"{_SELECT} WHERE {where}", value)]

    def _checked(self, row: tuple[object, ...]) -> StoredRecord:
        try:
            return record_of(row, self._content, self._object)
        except (ValueError, TypeError) as error:
            raise LedgerDamaged(self.folder, f"row {row[0]}", str(error)) from error

    def _object(self, sha256: str) -> bytes:
        with ledger_errors(self.folder):
            return self._objects.get(sha256)

    def _content(self, sha256: str) -> bytes:
        rows = self._all("SELECT payload FROM contents WHERE sha256 = ?", sha256)
        if not rows:
            raise LedgerDamaged(self.folder, f"content {sha256}", "it is missing")
        payload = bytes(rows[0][0])
        if hashlib.sha256(payload).hexdigest() != sha256:
            raise LedgerDamaged(self.folder, f"content {sha256}", "it is not what its hash says")
        return payload

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with ledger_errors(self.folder):
            found = self._connection.execute(query, values).fetchall()
            if self._sealed and not (self.folder / SEAL).exists():
                # A sealed database is read without locks, as a file that no process changes. The seal is gone, so a
                # writer has opened the ledger, perhaps in the middle of this query: ask again, with locks.
                self._sealed = False
                self._connection.close()
                self._connection = open_ledger(self.folder, write=False)
                found = self._connection.execute(query, values).fetchall()
            return found


def _gap_fact(record: StoredRecord) -> GapFact:
    more = record.more
    return GapFact(
        int(cast(int, more.get("first", record.number))), int(cast(int, more.get("last", record.number))),
        str(more.get("why", "")), cast("dict[str, object]", more.get("topics") or {}), record.time or record.received,
    )  # fmt: skip


def _lost_here(gaps: tuple[GapFact, ...]) -> OutboxFacts:
    """Rows that the ledger itself has lost (see `LedgerWriter._remember_cut`), shown as an outbox of the ledger's."""
    rows = sum(gap.last - gap.first + 1 for gap in gaps)
    return OutboxFacts("", "the ledger itself", rows, rows, gaps)

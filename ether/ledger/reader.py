"""A ledger, read: also while a writer appends to it, also from a folder that cannot be written to.

A ledger has one volume or several (see `ether.ledger.volumes`). `LedgerReader` reads all of them as one; it has a
`VolumeReader` for each.

Promises: every record is checked against its checksum before it is returned; a record that fails raises `LedgerDamaged`
with its place. Nothing in the folder changes. The writer never waits for a reader, because rows are read in short
pieces, and no transaction stays open between two pieces.

The trap: an iteration may see records that are appended while it lasts. Rows never change, so it returns no record
twice.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from operator import attrgetter, itemgetter
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, TypeVar, cast

from ether.errors import DecodeError, LedgerDamaged, LedgerFailed
from ether.ledger import schema
from ether.ledger.deletions import Deletion, deletions_in
from ether.ledger.objects import Objects
from ether.ledger.packing import UnpackedDatabase, unpacked_database
from ether.ledger.rows import COLUMNS, LARGE_BYTES, checksum_of
from ether.ledger.seal import SEAL
from ether.ledger.sqlite import DATABASE, Connection, SqliteError, ledger_errors, open_ledger
from ether.ledger.volumes import (
    ARCHIVED,
    Beginning,
    Closed,
    VolumeFacts,
    beginning_of,
    closed_volume,
    closed_volumes,
    read_facts,
)
from ether.wire.codec import decode
from ether.wire.entries import GapFact, Kind, OutboxFacts
from ether.wire.json_text import dumps, loads
from ether.wire.topics import OUTSIDE, matches

_T = TypeVar("_T")

_PIECE_ROWS = 500
_FEWEST_ROWS = 20
"""Of a piece, where several origins are read side by side."""
_SPARSE = 20
"""Where a record is fewer than one of so many rows, the index of origins is quicker than that of ids."""
_MOST_STREAMS = 50
"""Origins that are read side by side."""

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM entries"
_LAST_ROW = (1 << 63) - 1
_NO_TRIAL = '(instr(child.more, \'"trial":\') = 0 OR instr(child.more, \'"by":"time"\') > 0)'
_FOLDERS_TRIED = 5
_MOST_OPEN = 100
"""Volumes whose databases are open at the same time."""
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
    if not isinstance(link, bytes):
        raise ValueError("its link is not what was written")
    values = dict(zip(_FIELDS, row, strict=True))
    values["parents"] = _parents(str(values["parents"]))
    values["more"] = MappingProxyType(cast("dict[str, object]", loads(str(values["more"]), strict=True)))
    values["checksum"], values["link"] = cast(bytes, checksum).hex(), link.hex()
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


class VolumeReader:
    """Reads one volume: the current one of `ledger` (`number` is None until it was opened), or a closed one. It follows
    its volume to another folder. Not locked: one thread at a time. Raises `LedgerError`."""

    def __init__(self, ledger: Path, number: int | None = None) -> None:
        self._ledger, self._number = ledger, number
        self.folder = ledger
        self._connection: Connection | None = None
        self._ended = False
        self._unpacked: UnpackedDatabase | None = None
        self._sealed = False
        self._identity: tuple[int, int] = (0, 0)
        self._seal_path = self._database_path = ""
        self._objects = Objects(ledger)
        self._highest_origin: int | None = None
        self._known_origins: dict[tuple[str, str, str], list[int]] = {}
        self.schema_version = 0
        self.session, self.created = "", 0.0
        self.beginning = Beginning(0, 0, b"")

    def connect(self) -> Connection:
        """The database, opened where it is not."""
        if self._ended:
            raise LedgerFailed(self._ledger, "it was closed before it was asked")
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        return self._connection

    def _connect(self) -> None:
        with ledger_errors(self._ledger):
            for _ in range(_FOLDERS_TRIED):
                folder = self._locate()
                try:
                    self._open(folder)
                except FileNotFoundError:  # it was put elsewhere a moment ago
                    continue
                if self._number in (None, self.beginning.volume):
                    self._number = self.beginning.volume
                    return
                self.rest()
        raise LedgerFailed(self._ledger, f"its volume {self._number} is not there")

    def _locate(self) -> Path:
        if self._number is None:
            return self._ledger
        closed = closed_volume(self._ledger, self._number)
        return self._ledger if closed is None else closed.folder

    def _open(self, folder: Path) -> None:
        schema.refuse_log_on_read_only(folder)
        sealed, identity = (folder / SEAL).exists(), (0, 0)
        if not (folder / DATABASE).exists() and (folder / ARCHIVED).exists():
            self._unpacked = unpacked_database(folder)
            connection = open_ledger(self._unpacked.folder, write=False, sealed=True)
        else:
            found = os.stat(folder / DATABASE)
            identity = found.st_dev, found.st_ino
            connection = open_ledger(folder, write=False, sealed=sealed)
        try:
            self.schema_version = schema.check_version(connection, folder)
            meta = schema.meta_of(connection)
            self.session, self.created = meta.get("session", ""), float(meta.get("created", "0"))
            self.beginning = beginning_of(meta)
        except (ValueError, TypeError, KeyError) as error:
            connection.close()
            raise LedgerDamaged(
                folder, f"{DATABASE}, meta", f"what it says of itself cannot be read: {error}"
            ) from error
        except BaseException:
            connection.close()
            raise
        self._connection, self.folder, self._sealed, self._identity = connection, folder, sealed, identity
        self._seal_path, self._database_path = str(folder / SEAL), str(folder / DATABASE)
        self._objects = Objects(folder)
        self._highest_origin = None

    def has_moved(self) -> bool:
        """Whether this volume is not where it was opened, or is written to again: a sealed database is read without
        locks, as a file that no process changes."""
        try:
            if self._sealed:
                os.stat(self._seal_path)
            if self.folder != self._ledger:
                return False
            found = os.stat(self._database_path)
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    def close(self) -> None:
        """Close the database, for ever."""
        self._ended = True
        self.rest()

    def rest(self) -> None:
        """Close the database. The next question opens it again."""
        connection, unpacked_database = self._connection, self._unpacked
        self._connection = self._unpacked = None
        try:
            if connection is not None:
                connection.close()
        finally:
            if unpacked_database is not None:
                unpacked_database.remove()

    @property
    def number(self) -> int:
        """The number of its volume."""
        return self._number or self.beginning.volume

    @property
    def is_open(self) -> bool:
        """Whether the database is open."""
        return self._connection is not None

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

    def between(
        self, kind: str, topic: str, source: str, first_id: str, last_id: str, expected: int
    ) -> list[tuple[int, str]]:
        """Rows and ids of the records of one kind, topic and source from one id to another one, by id. `expected`:
        about how many there are. They are not checked: for a day's values that would take seconds."""
        origins = self._origins_of(kind, topic, source)
        if not origins:
            return []
        ends = dict(self._all("SELECT id, row FROM records WHERE id IN (?, ?)", first_id, last_id))
        begin, end = ends.get(first_id), ends.get(last_id)
        listed = dumps(origins).decode()
        if kind != "call" and begin is not None and end is not None and end - begin > _SPARSE * expected:
            # The index of ids would be read with all other topics of that time. The rows of one outbox rise with its
            # ids; those of calls do not, because their ids are their callers'.
            found = self._all(
                "SELECT row, id FROM records INDEXED BY by_origin WHERE origin IN (SELECT value FROM json_each(?))"
                " AND row BETWEEN ? AND ? AND id BETWEEN ? AND ?", listed, begin, end, first_id, last_id,
            )  # fmt: skip
            return sorted(found, key=itemgetter(1))
        return self._all(
            "SELECT row, id FROM records INDEXED BY by_id WHERE id BETWEEN ? AND ?"
            " AND +origin IN (SELECT value FROM json_each(?)) ORDER BY id", first_id, last_id, listed,
        )  # fmt: skip

    def places_of(self, ids: Sequence[str]) -> dict[str, tuple[int, str, str, str]]:
        """The row, kind, topic and source of each id that is here. They are not checked."""
        found = self._all(
            "SELECT id, row, kind, topic, source FROM records JOIN origins USING (origin)"
            " WHERE id IN (SELECT value FROM json_each(?)) AND kind NOT IN ('context', 'artifact') ORDER BY row DESC",
            dumps(list(ids)).decode(),
        )  # fmt: skip
        return {str(known): (row, kind, topic, source) for known, row, kind, topic, source in found}

    def earlier(self, record: StoredRecord) -> tuple[int, int]:
        """How many records of the same kind and topic the same process had made before, and the row of the last of
        them."""
        origins = [
            origin for origin, outbox, kind, topic in self._all("SELECT origin, outbox, kind, topic FROM origins")
            if (outbox, kind, topic) == (record.outbox, record.kind, record.topic)
        ]  # fmt: skip
        counts = "SELECT count(*), coalesce(max(row), 0) FROM records WHERE row < ? AND origin IN"
        ((count, last),) = self._all(f"{counts} (SELECT value FROM json_each(?))", record.row, dumps(origins).decode())
        return int(count), int(last)

    def _origins_of(self, kind: str, topic: str, source: str) -> list[int]:
        """The origins of one kind, topic and source; remembered until there are more origins."""
        ((highest,),) = self._all("SELECT max(origin) FROM origins")
        if highest != self._highest_origin:
            self._highest_origin, self._known_origins = highest, {}
        key = (kind, topic, source)
        if key not in self._known_origins:
            query = "SELECT origin FROM origins WHERE kind = ? AND topic = ? AND source = ?"
            self._known_origins[key] = [origin for (origin,) in self._all(query, *key)]
        return self._known_origins[key]

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

    def without_their_trial(self) -> dict[str, int]:
        """By run how many values have no trial, or one by time, although a value of a trial caused them."""
        caused = "json_extract(parent.more, '$.trial') IS NOT NULL AND json_extract(parent.more, '$.by') IS NULL"
        found = self._all(
            "SELECT run, count(DISTINCT child.row) FROM origins"
            " JOIN records AS child ON child.origin = origins.origin"
            " JOIN parents ON parents.row = child.row JOIN records AS parent ON parent.id = parents.parent"
            f" WHERE kind IN ('data', 'record') AND instr(run, '/') > 0 AND {_NO_TRIAL} AND {caused} GROUP BY run"
        )
        return dict(found)

    def count(self) -> int:
        """The number of the last row."""
        ((last,),) = self._all("SELECT max(row) FROM records")
        return self.beginning.first - 1 if last is None else int(last)

    def duplicates(self) -> int:
        """How many messages and recorded values are in the ledger more than once, counted from the ids."""
        twice = "SELECT count(*) - 1 AS again FROM entries WHERE id != '' AND kind IN ('data', 'record') GROUP BY id"
        return int(self._all(f"SELECT coalesce(sum(again), 0) FROM ({twice} HAVING again > 0)")[0][0])

    def conflicts(self) -> list[tuple[str, str, int]]:
        """Source, topic and how many entries came under numbers that were taken."""
        return self._all(
            "SELECT source, topic, count(*) FROM origins JOIN records ON records.origin = origins.origin"
            " WHERE kind = 'conflict' GROUP BY source, topic ORDER BY source, topic"
        )

    def signed(self) -> tuple[int, int]:
        """How many entries of outboxes came with a signature of their device, and how many entries these are of all.
        Nothing is verified: `ether verify` does that."""
        of = "FROM records WHERE origin IN (SELECT origin FROM origins WHERE"
        ((signed,),) = self._all(f"SELECT coalesce(sum(seq), 0) {of} kind = 'signature')")
        ((count,),) = self._all(f"SELECT count(*) {of} outbox != '' AND kind != 'gap')")
        return int(signed), int(count)

    def signers(self) -> dict[str, str]:
        """The device by outbox, of those whose batches are signed; as it is said in the ledger, which `ether verify`
        verifies."""
        found = self._all(
            "SELECT topic, payload FROM origins JOIN contents ON sha256 = context"
            " WHERE kind = 'signature' ORDER BY origin"
        )
        return {str(outbox): device for outbox, said in found if (device := _device_of(said))}

    def gaps(self) -> dict[str, list[GapFact]]:
        """By outbox the gaps that are in this volume."""
        gaps: dict[str, list[GapFact]] = {}
        for record in self.records(RecordFilter(kinds=("gap",))):
            gaps.setdefault(record.outbox, []).append(_gap_fact(record))
        return gaps

    def outbox_rows(self) -> list[tuple[str, str, int, int, float]]:
        """Outbox, source, highest number, head and last time of each outbox, as this volume knows them."""
        return self._all("SELECT outbox, source, highest, head, last FROM outboxes ORDER BY source, outbox")

    def ids_between(self, first_id: str, last_id: str) -> list[str]:
        """The ids of messages and recorded values from one id to another one."""
        found = self._all(
            "SELECT id FROM entries WHERE id BETWEEN ? AND ? AND kind IN ('data', 'record')", first_id, last_id
        )
        return [known for (known,) in found]

    def id_range(self) -> tuple[str, str] | None:
        """The first and last id of the messages and recorded values, None where there are none."""
        # Contexts and artifacts have 64 digits. The index of ids is enough for this.
        ((first, last),) = self._all("SELECT min(id), max(id) FROM records WHERE id != '' AND length(id) != 64")
        return None if first is None else (first, last)

    def effects_without_trial(self) -> list[tuple[str, int, str]]:
        """Run and row of each value that has no trial, or one by time, with the ids of its causes that are not in this
        volume."""
        return self._all(
            "SELECT run, child.row, parents.parent FROM origins JOIN records AS child ON child.origin = origins.origin"
            " JOIN parents ON parents.row = child.row LEFT JOIN records AS parent ON parent.id = parents.parent"
            f" WHERE kind IN ('data', 'record') AND instr(run, '/') > 0 AND {_NO_TRIAL} AND parent.row IS NULL"
        )

    def deletions(self) -> list[Deletion]:
        """What was deleted from this volume, and by whom."""
        return deletions_in(self.connect())

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
            try:
                return self._objects.get(sha256)
            except LedgerDamaged:
                if not self.has_moved():
                    raise
            return Objects(self._locate()).get(sha256)

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
            try:
                found = self.connect().execute(query, values).fetchall()
                if not self.has_moved():
                    return found
            except SqliteError:
                if not self.has_moved():
                    raise
            # It was moved, or a writer has opened it, perhaps in the middle of this query: ask again.
            self.rest()
            self._connect()
            return self.connect().execute(query, values).fetchall()


class LedgerReader:
    """Reads one ledger: all its volumes as one. A context manager. Not locked: one thread at a time. Made by
    `LedgerReader.open`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._current = VolumeReader(folder)
        self._closed: list[_ClosedVolume] = []
        try:
            self._current.connect()
            self._list_closed()
        except BaseException:
            self.close()
            raise
        self.schema_version = self._current.schema_version
        self.session = self._current.session

    @classmethod
    def open(cls, folder: Path) -> LedgerReader:
        """Open the folder's ledger; raises `LedgerFailed` where there is none, `SchemaTooNew`, `LedgerDamaged`."""
        folder = Path(folder).absolute()
        if not (folder / DATABASE).is_file() and not (folder / ARCHIVED).is_file():
            raise LedgerFailed(folder, f"there is no {DATABASE} in it: this is no ledger")
        return cls(folder)

    def close(self) -> None:
        """Close the databases."""
        self._current.close()
        for volume in self._closed:
            volume.reader.close()

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # -- volumes

    def _list_closed(self) -> None:
        """Find the closed volumes; readers that are there go on."""
        known = {volume.number: volume for volume in self._closed}
        listed = closed_volumes(self.folder, self._current.beginning.volume)
        self._closed = [known.get(each.number) or _ClosedVolume.of(self.folder, each) for each in listed]

    def _volumes(self, *, newest_first: bool = False) -> list[VolumeReader]:
        """The readers of all volumes, in order of their rows. Where the current volume was closed meanwhile, its reader
        goes on as that of a closed volume."""
        current = self._current
        if current.folder != self.folder or current.has_moved():
            closed = closed_volume(self.folder, current.beginning.volume)
            if closed is not None:
                self._closed.append(_ClosedVolume(closed.number, current, read_facts(closed.folder)))
                self._current = VolumeReader(self.folder)
                self._current.connect()
                self._list_closed()
        found = [*(volume.reader for volume in self._closed), self._current]
        return found[::-1] if newest_first else found

    @property
    def volumes(self) -> list[VolumeReader]:
        """The readers of the volumes, in the order of their rows; the last one is the current volume's."""
        return self._volumes()

    def _first_found(self, ask: Callable[[VolumeReader], _T | None]) -> _T | None:
        each = (ask(self._few_open(volume)) for volume in self._volumes())
        return next((found for found in each if found is not None), None)

    # -- records, as `VolumeReader` says

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
        volumes = self._volumes(newest_first=newest_first)
        before = {volume.reader for volume in self._closed if volume.facts and volume.facts.last <= after_row}
        each = (
            self._few_open(volume).records(wanted, after_row=after_row, newest_first=newest_first)
            for volume in volumes
            if volume not in before
        )
        return islice(chain.from_iterable(each), limit)

    def _few_open(self, wanted: VolumeReader) -> VolumeReader:
        """The same, after volumes that are far from it were closed: those that read side by side stay near it."""
        if wanted.is_open:
            return wanted
        at = wanted.beginning.volume or max((each.number for each in self._closed if each.reader is wanted), default=0)
        open_now = sorted((abs(each.number - at), each.number, each) for each in self._closed if each.reader.is_open)
        for _, _, far in open_now[_MOST_OPEN:]:
            far.reader.rest()
        return wanted

    def record(self, message_id: str) -> StoredRecord | None:
        """The message, recorded value or call of that id."""
        for volume in self._nearest(message_id):
            found = self._few_open(volume).record(message_id)
            if found is not None:
                return found
        return None

    def _nearest(self, message_id: str) -> list[VolumeReader]:
        """The volumes, those first that were written when the message was sent: an id begins with its time. Entries may
        come late, and clocks be wrong, so this is an order and no choice."""
        volumes = self._volumes()
        made = time_of_id(message_id)
        if made is None or len(volumes) == 1:
            return volumes
        spans = [volume.facts.received if volume.facts else (0.0, 0.0) for volume in self._closed]
        spans.append((spans[-1][1], float("inf")))
        order = sorted(range(len(volumes)), key=lambda at: max(spans[at][0] - made, made - spans[at][1], 0.0))
        return [volumes[at] for at in order]

    def by_row(self, row: int) -> StoredRecord | None:
        """The record in that row."""
        for volume in self._closed:
            if volume.facts and volume.facts.first <= row <= volume.facts.last:
                return volume.reader.by_row(row)
        return self._first_found(lambda volume: volume.by_row(row))

    def children(self, message_id: str) -> list[StoredRecord]:
        """The records that name the message as a parent, log records left out."""
        return [record for volume in self._volumes() for record in volume.children(message_id)]

    def logs_of(self, message_id: str) -> list[StoredRecord]:
        """The log records that were made while the message was handled: they name it as a parent."""
        return [record for volume in self._volumes() for record in volume.logs_of(message_id)]

    def between(
        self, kind: str, topic: str, source: str, first_id: str, last_id: str, expected: int
    ) -> list[tuple[int, str]]:
        """Rows and ids of the records of one kind, topic and source from one id to another one, by id. `expected`:
        about how many there are. They are not checked: for a day's values that would take seconds."""
        volumes = self._volumes()
        found = [pair for each in volumes for pair in each.between(kind, topic, source, first_id, last_id, expected)]
        return sorted(found, key=itemgetter(1)) if len(volumes) > 1 else found

    def places_of(self, ids: Sequence[str]) -> dict[str, tuple[int, str, str, str]]:
        """The row, kind, topic and source of each id that is here. They are not checked."""
        found: dict[str, tuple[int, str, str, str]] = {}
        for volume in self._volumes(newest_first=True):
            found |= volume.places_of(ids)
        return found

    def earlier(self, record: StoredRecord) -> tuple[int, int]:
        """How many records of the same kind and topic the same process had made before, and the row of the last of
        them."""
        told = [volume.earlier(record) for volume in self._volumes()]
        return sum(count for count, _ in told), max(last for _, last in told)

    def context(self, sha256: str) -> dict[str, object] | None:
        """The context of that hash, None where it is not here; raises `LedgerDamaged`."""
        return self._first_found(lambda volume: volume.context(sha256))

    def artifact(self, sha256: str) -> bytes | None:
        """The content of that hash, None where it is not here; raises `LedgerDamaged`."""
        return self._first_found(lambda volume: volume.artifact(sha256))

    # -- summaries

    def topics(self) -> list[TopicSummary]:
        """The topics that values were recorded on, by name."""
        found: dict[tuple[str, str], TopicSummary] = {}
        for summary in (summary for volume in self._volumes() for summary in volume.topics()):
            before = found.get((summary.topic, summary.kind))
            if before is not None:
                summary = replace(summary, count=before.count + summary.count, first=before.first)
            found[summary.topic, summary.kind] = summary
        return [found[key] for key in sorted(found)]

    def sources(self) -> list[str]:
        """The names of all sources."""
        return sorted({source for volume in self._volumes() for source in volume.sources()})

    def runs(self) -> list[RunSummary]:
        """The runs that records belong to, in the order in which they began."""
        found: dict[str, RunSummary] = {}
        for summary in (summary for volume in self._volumes() for summary in volume.runs()):
            before = found.get(summary.run)
            if before is not None:
                summary = replace(summary, count=before.count + summary.count, first=before.first)
            found[summary.run] = summary
        return sorted(found.values(), key=attrgetter("first"))

    def without_their_trial(self) -> dict[str, int]:
        """By run how many values have no trial, or one by time, although a value of a trial caused them."""
        volumes = self._volumes()
        found: Counter[str] = Counter()
        for volume in volumes:
            found.update(volume.without_their_trial())
        if len(volumes) > 1:  # a cause may be in another volume than its effect
            apart = {
                (run, row)
                for volume in volumes
                for run, row, parent in volume.effects_without_trial()
                if (cause := self.record(parent)) is not None and "trial" in cause.more and "by" not in cause.more
            }
            found.update(run for run, _ in apart)
        return dict(found)

    def count(self) -> int:
        """The number of the last row."""
        return self._volumes()[-1].count()

    def conflicts(self) -> list[tuple[str, str, int]]:
        """Source, topic and how many entries came under a number that the ledger has with another content."""
        found: Counter[tuple[str, str]] = Counter()
        for volume in self._volumes():
            for source, topic, count in volume.conflicts():
                found[source, topic] += count
        return [(*what, count) for what, count in sorted(found.items())]

    def signed(self) -> tuple[int, int]:
        """How many entries of outboxes came with a signature of their device, and how many entries these are of all.
        Nothing is verified: `ether verify` does that."""
        found = [volume.signed() for volume in self._volumes()]
        return sum(signed for signed, _ in found), sum(count for _, count in found)

    def signers(self) -> dict[str, str]:
        """The device by outbox, of those whose batches are signed; as it is said in the ledger, which `ether verify`
        verifies."""
        found: dict[str, str] = {}
        for volume in self._volumes():
            found |= volume.signers()
        return found

    def duplicates(self) -> int:
        """How many messages and recorded values are in the ledger more than once, counted from the ids."""
        volumes = self._volumes()
        ranges = [volume.id_range() for volume in volumes] if len(volumes) > 1 else []
        found = sum(volume.duplicates() for volume in volumes)
        for later, span in enumerate(ranges):
            again: set[str] = set()
            for earlier, other in enumerate(ranges[:later]):
                if span and other and (low := max(span[0], other[0])) <= (high := min(span[1], other[1])):
                    again |= {*volumes[later].ids_between(low, high)} & {*volumes[earlier].ids_between(low, high)}
            found += len(again)
        return found

    def outboxes(self) -> list[OutboxFacts]:
        """The state of each outbox: the highest number that is here, the highest that its source has given out, and the
        gaps in between."""
        volumes = self._volumes()
        gaps: dict[str, list[GapFact]] = {}
        for outbox, listed in (pair for volume in volumes for pair in volume.gaps().items()):
            gaps.setdefault(outbox, []).extend(listed)
        facts = [
            OutboxFacts(outbox, source, highest, head, tuple(gaps.pop(outbox, ())), last)
            for outbox, source, highest, head, last in volumes[-1].outbox_rows()
        ]
        return facts + [_lost_here(tuple(rest)) for rest in gaps.values()]

    def deletions(self) -> list[Deletion]:
        """What was deleted from this ledger, in the order of its rows."""
        return [deletion for volume in self._volumes() for deletion in volume.deletions()]


class _ClosedVolume(NamedTuple):
    """The reader of a closed volume. `facts` are None where their file cannot be read."""

    number: int
    reader: VolumeReader
    facts: VolumeFacts | None

    @classmethod
    def of(cls, ledger: Path, closed: Closed) -> _ClosedVolume:
        """A reader that has nothing open yet."""
        return cls(closed.number, VolumeReader(ledger, closed.number), read_facts(closed.folder))


def time_of_id(message_id: str) -> float | None:
    """Unix seconds when the message was made: the first 12 digits of a UUID of version 7 are milliseconds. None for
    another id."""
    if message_id[8:9] != "-" or message_id[14:15] != "7":
        return None
    try:
        return int(message_id[:8] + message_id[9:13], 16) / 1000
    except ValueError:
        return None


def _device_of(said: bytes) -> str:
    """The device in what a ledger keeps of who has signed."""
    try:
        value = loads(said.decode(), strict=True)
    except (DecodeError, UnicodeDecodeError):
        return ""
    device = value.get("device") if isinstance(value, dict) else None
    return device if isinstance(device, str) else ""


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

"""Deletion: rows are taken out of closed volumes, and a tombstone says who did so, when, and what.

How: a volume is written anew without the rows, beside the old one; when it is whole, sealed and synced it gets the
volume's name with the next generation, and counts from that moment. Then the old one is removed. So a killed deletion
leaves the volume as it was, or as it is to be.

Promises: the rows that stay keep their numbers, checksums and links, and the chain is verified around those that are
gone (`ether.ledger.deletions`). A volume that is damaged is not written anew. The trap: rows of the current volume
cannot be deleted; it has to be closed before (`close_current`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ether.errors import LedgerDamaged
from ether.ledger import schema
from ether.ledger.deletions import DeletedSpan, add_deletion
from ether.ledger.durable import PART, make_folder, sync_file, write_whole
from ether.ledger.head import NAME as HEAD
from ether.ledger.life.retention_rules import Choice, OriginRow
from ether.ledger.lock import LedgerLock
from ether.ledger.objects import FOLDER as OBJECTS
from ether.ledger.objects import Objects, digest_of
from ether.ledger.packing import pack, unpacked_database
from ether.ledger.reader import LedgerReader
from ether.ledger.rotation import finish_volume, link_or_copy
from ether.ledger.rows import LARGE_BYTES
from ether.ledger.seal import SEAL, read_seal
from ether.ledger.sqlite import DATABASE, Connection, attach, ledger_errors, open_ledger, open_new
from ether.ledger.volumes import (
    ARCHIVED,
    FOLDER,
    Closed,
    closed_volumes,
    name_of,
    read_facts,
    remove_replaced,
    remove_tree,
    size_of,
    write_facts,
)

_SMALL_BYTES = 64 * 1024
"""A database that is no larger has few rows left, mostly empty pages, and is compressed: so what stays of volumes for
ever is little."""
_LISTS = "inputs"
"""The name of artifacts that list the inputs of one value (`ether.made_of`)."""


class Amount(NamedTuple):
    """How much of a volume a choice chooses."""

    volume: int
    records: int
    bytes: int
    """Of payloads."""
    topics: Mapping[str, int]
    """How many records of each topic; other kinds than values by the name of their kind."""


class Deleted(NamedTuple):
    """What was deleted from one volume."""

    amount: Amount
    freed_bytes: int
    """By how much its folder has become smaller."""


def chosen_in(connection: Connection, choice: Choice, volume: int) -> Amount:
    """How much of an open volume a choice chooses. Raises `SqliteError`."""
    topics: Counter[str] = Counter()
    records = size = 0
    for origin, kind, topic, run in connection.execute("SELECT origin, kind, topic, run FROM origins").fetchall():
        if not choice.wants(OriginRow(origin, kind, topic, run)):
            continue
        count, its_size = connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM records WHERE origin = ? AND time < ?", (origin, _end(choice))
        ).fetchone()
        if count:
            topics[topic if kind in ("data", "record") else kind] += count
            records, size = records + count, size + its_size
    return Amount(volume, records, size, dict(topics))


def _end(choice: Choice) -> float:
    return float("inf") if choice.before is None else choice.before


class Maintenance:
    """Holds the lock of a ledger's closed volumes; a context manager. The ledger's writer goes on meanwhile. Raises
    `LedgerLocked` where another one holds it, `LedgerFailed`."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = Path(ledger).absolute()
        self._lock: LedgerLock | None = None

    def __enter__(self) -> Maintenance:
        with ledger_errors(self.ledger):
            make_folder(self.ledger / FOLDER)
            self._lock = LedgerLock(self.ledger / FOLDER)
            try:
                remove_replaced(self.ledger, self.current)
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._lock is not None
        self._lock.release()

    @property
    def current(self) -> int:
        """The number of the current volume."""
        with LedgerReader.open(self.ledger) as reader:
            return reader.volumes[-1].beginning.volume

    def closed(self) -> list[Closed]:
        """The closed volumes."""
        return closed_volumes(self.ledger, self.current)

    def delete(self, choice: Choice, said: Mapping[str, Any]) -> Iterator[Deleted]:
        """Delete what the choice chooses from each closed volume, one after the other. `said`: what the tombstones say,
        without the amounts. Raises `LedgerDamaged`, `LedgerFull`, `LedgerFailed`; the volumes before that one are
        done."""
        for closed in self.closed():
            done = rewritten(closed, choice, said)
            if done is not None:
                yield done


def rewritten(closed: Closed, choice: Choice, said: Mapping[str, Any]) -> Deleted | None:
    """Write one closed volume anew without the rows that the choice chooses; None where it chooses none. For who holds
    the lock of the volumes. Raises `LedgerDamaged`, `LedgerFull`, `LedgerFailed`."""
    with ledger_errors(closed.folder):
        return _rewritten(closed, choice, said)


def _rewritten(closed: Closed, choice: Choice, said: Mapping[str, Any]) -> Deleted | None:
    archived = unpacked_database(closed.folder) if (closed.folder / ARCHIVED).exists() else None
    try:
        database = (archived.folder if archived else closed.folder) / DATABASE
        connection = open_ledger(database.parent, write=False, sealed=True)
        try:
            amount = chosen_in(connection, choice, closed.number)
        finally:
            connection.close()
        if not amount.records:
            return None
        facts = read_facts(closed.folder)
        if facts is None:
            raise LedgerDamaged(closed.folder, "volume", "it cannot be read")
        digest = archived.sha256 if archived else digest_of(database)
        check_seal(closed, digest, facts.database if archived else None)
        before = size_of(closed.folder)
        target = closed.folder.with_name(name_of(closed.number, closed.generation + 1))
        part = target.with_name(f"{target.name}{PART}")
        remove_tree(part)
        part.mkdir(mode=0o700)
        told = {**said, "records": amount.records, "bytes": amount.bytes, "topics": dict(amount.topics)}
        needed, rows = _write_without(part / DATABASE, database, choice, told)
    finally:
        if archived:
            archived.remove()
    _link_objects(closed.folder, part, needed)
    write_whole(part / HEAD, [(closed.folder / HEAD).read_bytes()])
    small = (part / DATABASE).stat().st_size <= _SMALL_BYTES
    write_facts(part, facts._replace(rows=rows, database=_packed(part) if archived or small else ""))
    finish_volume(part, target)
    remove_tree(closed.folder)
    return Deleted(amount, before - size_of(target))


def _packed(part: Path) -> str:
    """Compress the database of an unfinished volume; returns the SHA-256 that it had."""
    digest = digest_of(part / DATABASE)
    pack(part / DATABASE, part / ARCHIVED, digest)
    (part / DATABASE).unlink()
    return digest


def check_seal(closed: Closed, digest: str, archived: str | None) -> None:
    """Raise `LedgerDamaged` where the database is not as it was sealed: a new seal would hide that."""
    seal = read_seal(closed.folder)
    if seal is None or not seal.whole:
        raise LedgerDamaged(closed.folder, SEAL, "it is missing, or not what was written")
    if digest != (archived if archived is not None else seal.files.get(DATABASE)):
        raise LedgerDamaged(closed.folder, DATABASE, "it is not as it was sealed")
    if seal.files.get(HEAD) != digest_of(closed.folder / HEAD):
        raise LedgerDamaged(closed.folder, HEAD, "it is not as it was sealed")


def _write_without(path: Path, old: Path, choice: Choice, said: Mapping[str, Any]) -> tuple[set[str], int]:
    """Write a database with all rows of an old one but those of the choice; returns the hashes of large payloads that
    are still needed, and how many rows there are."""
    with open_new(path) as new:
        attach(new, old, "old")
        meta = dict(new.execute("SELECT key, value FROM old.meta").fetchall())
        schema.create(new, meta, deletions=True)
        new.execute("BEGIN")
        new.execute("CREATE TEMP TABLE gone (row INTEGER PRIMARY KEY)")
        _choose(new, choice)
        new.execute("INSERT INTO records SELECT * FROM old.records WHERE row NOT IN (SELECT row FROM gone)")
        new.execute("INSERT INTO origins SELECT * FROM old.origins WHERE origin IN (SELECT origin FROM main.records)")
        new.execute("INSERT INTO parents SELECT * FROM old.parents WHERE row NOT IN (SELECT row FROM gone)")
        new.execute("INSERT INTO contents SELECT * FROM old.contents WHERE sha256 IN (SELECT sha256 FROM main.records)")
        new.execute("INSERT INTO outboxes SELECT * FROM old.outboxes")
        if new.execute("SELECT 1 FROM old.sqlite_master WHERE name = 'deleted'").fetchone():
            new.execute("INSERT INTO deletions SELECT * FROM old.deletions")
            new.execute("INSERT INTO deleted SELECT * FROM old.deleted")
        gone = new.execute("SELECT row, link FROM old.records WHERE row IN (SELECT row FROM gone) ORDER BY row")
        add_deletion(new, said, spans_of(gone))
        new.execute("COMMIT")
        (rows,) = new.execute("SELECT count(*) FROM main.records").fetchone()
        large_ones = f"SELECT sha256 FROM main.records WHERE size > {LARGE_BYTES} AND sha256 IS NOT NULL"
        large = {sha256 for (sha256,) in new.execute(large_ones)}
        new.execute("DETACH old")
    sync_file(path)
    return large, rows


def _choose(new: Connection, choice: Choice) -> None:
    """Fill the table `gone`."""
    origins = new.execute("SELECT origin, kind, topic, run FROM old.origins").fetchall()
    wanted = json.dumps([origin for origin, *facts in origins if choice.wants(OriginRow(origin, *facts))])
    new.execute(
        "INSERT INTO gone SELECT row FROM old.records WHERE origin IN (SELECT value FROM json_each(?)) AND time < ?",
        (wanted, _end(choice)),
    )
    # Lists of inputs go with the last value that was made of them.
    lists = "SELECT json_extract(more, '$.made_of.list') FROM old.records WHERE instr(more, '\"made_of\"') AND row"
    new.execute(
        "INSERT INTO gone SELECT row FROM old.entries WHERE kind = 'artifact' AND topic = ?"
        f" AND id IN ({lists} IN (SELECT row FROM gone))"
        f" AND id NOT IN (SELECT coalesce(json_extract(more, '$.made_of.list'), '') FROM old.records"
        " WHERE instr(more, '\"made_of\"') AND row NOT IN (SELECT row FROM gone))",
        (_LISTS,),
    )


def spans_of(rows: Iterator[tuple[int, bytes]]) -> list[DeletedSpan]:
    """Rows with their links, in order, as spans of neighbours, each with the link of its last row."""
    spans: list[DeletedSpan] = []
    for row, link in rows:
        if spans and row == spans[-1].last + 1:
            spans[-1] = DeletedSpan(spans[-1].first, row, link)
        else:
            spans.append(DeletedSpan(row, row, link))
    return spans


def _link_objects(old: Path, part: Path, needed: set[str]) -> None:
    for path in Objects(old).files():
        if path.name.partition(".")[0] in needed:
            same = part / OBJECTS / path.parent.name / path.name
            make_folder(same.parent)
            link_or_copy(path, same)

"""The tables of a ledger, and the versions that they have had.

Promises: the next writer brings a ledger of any earlier version up to date, one version at a time, each step in one
transaction. A ledger of a later version is refused with a sentence that says so.

The trap: a record's checksum covers its columns (see `ether.ledger.rows`). So a migration may add tables, indexes and
columns, but never change the values of those columns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ether.errors import LedgerDamaged, LedgerFailed, SchemaTooNew
from ether.ledger.sqlite import DATABASE, WAL, Connection

APPLICATION_ID = 0x45544C31  # "ETL1"
SCHEMA = 1
"""The version that this Ether writes."""

_IN_PART = 0x100
"""Added to the version in the file, of a database whose rows are not all rows from 1 on: of a volume that continues
another one, or of which rows were deleted. An Ether that knows no volumes refuses it, and does not call the other rows
missing."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE origins (          -- what many records have in common
  origin INTEGER PRIMARY KEY,
  outbox TEXT NOT NULL,         -- '' where no outbox has numbered it
  kind TEXT NOT NULL,
  topic TEXT NOT NULL,
  source TEXT NOT NULL,
  run TEXT NOT NULL,
  context TEXT NOT NULL,
  content_type TEXT
);
CREATE TABLE records (
  row INTEGER PRIMARY KEY,      -- from 1, without a hole: its place in the chain
  origin INTEGER NOT NULL,
  number INTEGER NOT NULL,      -- of its outbox
  id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  time REAL NOT NULL,           -- unix seconds by the source's clock
  received REAL NOT NULL,       -- unix seconds by the recorder's clock
  parents TEXT NOT NULL,        -- JSON: a list of ids
  more TEXT NOT NULL,           -- JSON: an object
  size INTEGER NOT NULL,        -- bytes of the payload
  sha256 TEXT,                  -- of a payload that is kept elsewhere: in contents, or above 64 KiB in objects/
  payload BLOB,                 -- NULL where it is kept elsewhere
  checksum BLOB NOT NULL,       -- SHA-256 of what the record says (see docs/ledger.md)
  link BLOB NOT NULL            -- SHA-256 of the link before it and of the checksum
);
CREATE INDEX by_id ON records (id, origin);
CREATE INDEX by_origin ON records (origin);
CREATE VIEW entries AS
  SELECT row, outbox, kind, topic, source, run, context, content_type, number, id, seq, time, received, parents, more,
    size, sha256, payload, checksum, link, records.origin AS origin
  FROM records LEFT JOIN origins ON origins.origin = records.origin;
CREATE TABLE parents (parent TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (parent, row)) WITHOUT ROWID;
CREATE TABLE contents (sha256 TEXT PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE outboxes (
  outbox TEXT PRIMARY KEY, source TEXT NOT NULL,
  highest INTEGER NOT NULL,     -- the highest number that is here, with everything before it
  head INTEGER NOT NULL,        -- the highest number that the source has given out, as far as is known
  last REAL NOT NULL,           -- unix seconds when something last came from it
  checksum BLOB NOT NULL        -- SHA-256 of the columns above
) WITHOUT ROWID;
"""

_VIEW = " ".join(next(each for each in _TABLES.split(";\n") if each.startswith("CREATE VIEW")).split())

_DELETED = """
CREATE TABLE deletions (        -- who has deleted rows of this volume, when and why: JSON
  deletion INTEGER PRIMARY KEY,
  said TEXT NOT NULL,
  checksum BLOB NOT NULL        -- SHA-256 of said
);
CREATE TABLE deleted (          -- the rows that are gone
  first INTEGER PRIMARY KEY,
  last INTEGER NOT NULL,
  link BLOB NOT NULL,           -- of the last of them: the chain goes on from it
  deletion INTEGER NOT NULL
);
"""

_NAMES = frozenset(re.findall(r"CREATE (?:TABLE|VIEW) (\w+)", _TABLES + _DELETED))

MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {}
"""By each earlier version, the step from it to the next version."""


def version_of(connection: Connection) -> int:
    """The schema version, 0 for an empty database."""
    return _stored_version(connection) & ~_IN_PART


def _stored_version(connection: Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def create(connection: Connection, meta: Mapping[str, str], *, deletions: bool = False) -> None:
    """Make the tables, all or none. `deletions`: with those for rows that were deleted."""
    in_part = _IN_PART if deletions or "volume" in meta else 0
    connection.execute("BEGIN IMMEDIATE")
    for statement in f"{_TABLES}{_DELETED if deletions else ''}".split(";\n"):
        connection.execute(statement)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(meta.items()))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA | in_part}")
    connection.execute("COMMIT")


def has_deletions(connection: Connection) -> bool:
    """Whether rows of this volume were deleted."""
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'deleted'").fetchone())


def migrate(connection: Connection, folder: Path) -> list[int]:
    """Bring the tables up to date; returns the versions that were left behind. A step that fails changes nothing."""
    check_version(connection, folder)
    passed = []
    while (version := version_of(connection)) < SCHEMA:
        connection.execute("BEGIN IMMEDIATE")
        MIGRATIONS[version](connection)
        in_part = _stored_version(connection) & _IN_PART
        connection.execute(f"PRAGMA user_version = {version + 1 | in_part}")
        connection.execute("COMMIT")
        passed.append(version)
    return passed


def check_version(connection: Connection, folder: Path) -> int:
    """The schema version of a ledger that can be read; raises `SchemaTooNew`, `LedgerFailed`."""
    version = version_of(connection)
    if version > SCHEMA:
        raise SchemaTooNew(folder, version, SCHEMA)
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise LedgerFailed(folder, "its first writer ended before it was made; the next writer will make it")
    if int(connection.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
        raise LedgerFailed(folder, f"its {DATABASE} is the database of something else")
    _check_shape(connection, folder)
    return version


def _check_shape(connection: Connection, folder: Path) -> None:
    """Raise `LedgerDamaged` for a database in which something else stands under a name of the ledger's own, or that has
    a trigger or a virtual table: a query of a view that somebody has replaced may never end, or say anything. Views of
    other names are their owner's, and nothing of Ether asks them."""
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        words = " ".join(sql.split()) if isinstance(sql, str) else ""
        right = {
            "view": words == _VIEW if name == "entries" else str(name).lower() not in _NAMES,
            "table": name != "entries" and words.upper().startswith("CREATE TABLE"),
            "index": True,
        }.get(kind, False)
        if not right:
            drop = f"; if it is yours, DROP {kind.upper()} it" if kind in ("view", "trigger") else ""
            raise LedgerDamaged(folder, DATABASE, f"its {kind} {str(name)!r:.40} is not a ledger's own{drop}")


def meta_of(connection: Connection) -> dict[str, str]:
    """The ledger's own description: `session`, and `created` in unix seconds. Raises `ValueError` where it is
    damaged."""
    said = dict(connection.execute("SELECT key, value FROM meta"))
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in said.items()):
        raise ValueError("its meta is no text")
    return said


def refuse_log_on_read_only(folder: Path) -> None:
    """Raise `LedgerFailed` for a ledger with a write-ahead log in a folder that cannot be written to: SQLite has to
    make its shared-memory file there before it can read the log."""
    log = folder / WAL
    if log.exists() and log.stat().st_size and not os.access(folder, os.W_OK):
        raise LedgerFailed(
            folder,
            "its writer has not closed it, and nothing can be written here: copy the folder to where you can write",
        )

"""The tables of a ledger, the versions they have had, and how a connection to them is made.

Promises: a ledger of any earlier version is brought up to date by its next writer, one version at a time, each in one
transaction; a later one is refused by a sentence.

The trap: a record's checksum covers its columns (see `ether.ledger.rows`), so that a migration may add tables,
indexes and columns, but never change what those columns say.
"""

from __future__ import annotations

import os
import sqlite3
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

from ether.errors import LedgerFailed, SchemaTooNew

DATABASE = "ledger.db"
WAL = "ledger.db-wal"
SHARED_MEMORY = "ledger.db-shm"
PAGE_BYTES = 4096
APPLICATION_ID = 0x45544C31  # "ETL1"
SCHEMA = 1
"""The version that this Ether writes."""

_BUSY_S = 0.5

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

MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {}
"""From each earlier version the step to the next."""


def connect(folder: Path, *, write: bool, sealed: bool = False) -> sqlite3.Connection:
    """A connection to the folder's database; raises `sqlite3.Error`. Each thread may use it, one at a time. `sealed`:
    nobody writes, and nothing is to be put beside it whatever its header says."""
    mode = "rwc" if write else "ro&immutable=1" if sealed else "ro"
    path = urllib.parse.quote(str((folder / DATABASE).absolute()))
    connection = sqlite3.connect(
        f"file:{path}?mode={mode}", uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        if write:
            _make_durable(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_durable(connection: sqlite3.Connection) -> None:
    """WAL, and a sync at each commit. The page size only has an effect on a new file."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version, 0 for an empty database."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def create(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    """Make the tables, all or none."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES.split(";\n"):
        connection.execute(statement)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(meta.items()))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
    connection.execute("COMMIT")


def migrate(connection: sqlite3.Connection, folder: Path) -> list[int]:
    """Bring the tables up to date; returns the versions passed. A step that fails leaves the version before it."""
    check_version(connection, folder)
    passed = []
    while (version := version_of(connection)) < SCHEMA:
        connection.execute("BEGIN IMMEDIATE")
        MIGRATIONS[version](connection)
        connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute("COMMIT")
        passed.append(version)
    return passed


def check_version(connection: sqlite3.Connection, folder: Path) -> int:
    """The schema version of a ledger that can be read; raises `SchemaTooNew`, `LedgerFailed`."""
    version = version_of(connection)
    if version > SCHEMA:
        raise SchemaTooNew(folder, version, SCHEMA)
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise LedgerFailed(folder, "its first writer ended before it was made; the next writer will make it")
    if int(connection.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
        raise LedgerFailed(folder, f"its {DATABASE} is the database of something else")
    return version


def meta_of(connection: sqlite3.Connection) -> dict[str, str]:
    """What the ledger says of itself: `session`, `created`."""
    return dict(connection.execute("SELECT key, value FROM meta"))


def refuse_log_on_read_only(folder: Path) -> None:
    """SQLite reads a database with a log only where it can write its scratch file; raises `LedgerFailed`."""
    log = folder / WAL
    if log.exists() and log.stat().st_size and not os.access(folder, os.W_OK):
        raise LedgerFailed(
            folder,
            "its writer has not closed it, and nothing can be written here: copy the folder to where you can write",
        )

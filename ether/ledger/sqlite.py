"""The owner of `sqlite3`: how every database file of Ether is opened, and what its errors mean.

Three kinds of files are opened here: a ledger (`open_ledger`), an outbox of records (`open_locked`), and the outbox and
journal of durable calls (`open_database`, which also makes the tables). All of them use a write-ahead log, and
transactions that the code begins and ends itself (`transaction`). Other modules take `Connection`, `SqliteError` and
`OperationalError` from here.

Promise: a block of `ledger_errors` or `store_errors` raises no error of SQLite or of the operating system. It raises an
error of Ether in its place, which names the file or folder and the cause.

The trap: a connection may be used by several threads, but by one at a time; its owner holds a lock around each
transaction.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ether.errors import LedgerDamaged, LedgerError, LedgerFailed, LedgerFull, StoreFailed
from ether.ledger.durable import free_bytes

Connection = sqlite3.Connection
SqliteError = sqlite3.Error
OperationalError = sqlite3.OperationalError

DATABASE = "ledger.db"
WAL = "ledger.db-wal"
SHARED_MEMORY = "ledger.db-shm"
PAGE_BYTES = 4096
"""Of a ledger's database. The seal has a hash for each piece of the file of this size, whatever its pages are."""
LEAN_PAGE_BYTES = 512
"""Of a database that is made to spare a card: a commit writes whole pages, of which most hold little that is new."""


_FOLDER_MODE = 0o700
"""Records and calls may hold secrets of their user."""

_LEDGER_BUSY_S = 0.5

swapping = threading.Lock()
"""Held while a ledger's database is opened, and while another one takes its place (`ether.ledger.rotation`).

SQLite opens the database first, and its shared memory, by name, with the first query. A connection of this process that
had the old database and the new shared memory would believe that nobody else uses that (locks of a process do not
conflict with each other), and cut it off under the writer, which then dies of SIGBUS. In another process SQLite sees
the writer's lock."""

# -- opening


def connect(path: Path, mode: Literal["ro", "rw", "rwc"], *, busy_s: float, immutable: bool = False) -> Connection:
    """A connection without settings. `mode` is SQLite's: read only, read and write, or make the file where it is
    missing. `busy_s`: how long a statement waits for a lock. `immutable`: the file is read without locks, and nothing
    is put beside it. Raises `SqliteError`."""
    uri = f"{path.absolute().as_uri()}?mode={mode}{'&immutable=1' if immutable else ''}"
    # isolation_level None: Python's module begins no transactions of its own.
    return sqlite3.connect(uri, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False)


def _set_durability(connection: Connection, synchronous: Literal["NORMAL", "FULL"]) -> None:
    """Write-ahead log. FULL syncs it at each commit; with NORMAL a commit survives a kill, but not a power cut."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    # Where fsync only reaches the drive's own memory (macOS), SQLite asks for F_FULLFSYNC instead.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def _open(
    path: Path, mode: Literal["rw", "rwc"], *, synchronous: Literal["NORMAL", "FULL"], busy_s: float, exclusive: bool
) -> Connection:
    connection = connect(path, mode, busy_s=busy_s)
    try:
        if exclusive:  # before the log is set up: then SQLite needs no shared-memory file
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _set_durability(connection, synchronous)
    except BaseException:
        connection.close()
        raise
    return connection


def open_ledger(folder: Path, *, write: bool, sealed: bool = False, lean: bool = False) -> Connection:
    """A connection to the folder's ledger; raises `SqliteError`. `sealed` (only for reading): there is no writer, so
    the file is read as it is. Otherwise SQLite would put its shared-memory file beside it, which a sealed folder
    must not get and a read-only one cannot. `lean` (only for writing): as little as possible is written, and the log is
    copied into the database by `copy_log` alone."""
    path = folder / DATABASE
    if sealed and not write:
        return connect(path, "ro", busy_s=_LEDGER_BUSY_S, immutable=True)
    with swapping:
        connection = connect(path, "rwc" if write else "ro", busy_s=_LEDGER_BUSY_S)
        try:
            if write:
                _make_durable(connection, lean=lean)
            else:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the shared memory
        except BaseException:
            connection.close()
            raise
    return connection


def copy_log(connection: Connection) -> None:
    """Copy the log of a lean ledger into its database, as far as readers let it. Raises `SqliteError`."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


@contextmanager
def open_new(path: Path, page_bytes: int = PAGE_BYTES) -> Iterator[Connection]:
    """A new database of a ledger, empty, which becomes durable with `sync_file` after the block: until then nothing is
    synced, and there is no log beside it. Raises `SqliteError`."""
    connection = connect(path, "rwc", busy_s=_LEDGER_BUSY_S)
    try:
        connection.execute(f"PRAGMA page_size = {page_bytes}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")
        yield connection
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def close_without_copying(connection: Connection, folder: Path) -> None:
    """Close a connection to a ledger whose files somebody else has changed: the last one that closes would copy the log
    into the database, by what it knows of a log that is not there any more."""
    guard: Connection | None = None
    try:
        # SQLite copies nothing while somebody else has the database open; and a connection that only reads never does.
        guard = connect(folder / DATABASE, "ro", busy_s=0.0)
        guard.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except SqliteError:
        pass  # it cannot be read, and may be locked all the same
    try:
        connection.close()
    finally:
        if guard is not None:
            guard.close()


def attach(connection: Connection, path: Path, name: str) -> None:
    """Give a connection a second database to read from, a file that nobody changes. Raises `SqliteError`."""
    connection.execute(f"ATTACH ? AS {name}", (f"{path.absolute().as_uri()}?mode=ro&immutable=1",))


def _make_durable(connection: Connection, *, lean: bool = False) -> None:
    """A ledger is synced at each commit."""
    # Has an effect on a new file alone:
    connection.execute(f"PRAGMA page_size = {LEAN_PAGE_BYTES if lean else PAGE_BYTES}")
    _set_durability(connection, "FULL")
    if lean:
        connection.execute("PRAGMA wal_autocheckpoint = 0")


def page_bytes_of(connection: Connection) -> int:
    """The size of a page of the database. Raises `SqliteError`."""
    return int(connection.execute("PRAGMA page_size").fetchone()[0])


def pages_of_database(connection: Connection) -> int:
    """How many pages the database has, with those that are still in its log. Raises `SqliteError`."""
    return int(connection.execute("PRAGMA page_count").fetchone()[0])


def open_locked(path: Path, *, new: bool) -> Connection | None:
    """A connection to a file without a schema of ours, locked until it is closed or the process ends; None where
    another process holds it. `new`: the file is made where it is missing. Raises `OperationalError`."""
    try:
        connection = _open(path, "rwc" if new else "rw", synchronous="NORMAL", busy_s=0.0, exclusive=True)
        try:
            # In exclusive locking mode the lock of a transaction stays after its end.
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
    except OperationalError as error:
        if is_locked(error):
            return None
        raise
    return connection


def open_database(
    path: Path,
    tables: str,
    version: int,
    *,
    synchronous: Literal["NORMAL", "FULL"],
    exclusive: bool = False,
    existing: bool = False,
    busy_s: float = 5.0,
) -> Connection:
    """A connection to a file that has these tables and this version. `tables`: statements that make them where they are
    missing. `exclusive`: locked until it is closed or the process ends. `existing`: a missing file is an error, and is
    not made. Raises `SqliteError`, `OSError`, and `ValueError` for a file of another version."""
    if not existing:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    mode: Literal["rw", "rwc"] = "rw" if existing else "rwc"
    connection = _open(path, mode, synchronous=synchronous, busy_s=busy_s, exclusive=exclusive)
    try:
        connection.execute("BEGIN EXCLUSIVE" if exclusive else "BEGIN IMMEDIATE")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, version):
            raise ValueError(f"it is of version {found}, and this Ether knows {version}")
        for statement in tables.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """All statements of the block or none. A single statement needs no transaction of its own."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself has rolled back after some errors, such as a full disk
            connection.execute("ROLLBACK")
        raise


# -- errors

_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_OF_THE_DISK = {
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
}  # fmt: skip
_HALF_MADE = sqlite3.SQLITE_READONLY | 3 << 8
"""SQLITE_READONLY_ROLLBACK: a ledger has a rollback journal only until its tables are made."""

_NEARLY_NONE_BYTES = 64 * 1024


@contextmanager
def ledger_errors(folder: Path) -> Iterator[None]:
    """Raise `LedgerError` in place of `SqliteError` and `OSError`, for a ledger in this folder."""
    try:
        yield
    except LedgerError:
        raise
    except sqlite3.Error as error:
        raise _ledger_error(folder, error) from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise LedgerFull(folder, _free(folder)) from error
        raise LedgerFailed(folder, f"{error.strerror or error} ({error.filename or 'while writing'})") from error


def _ledger_error(folder: Path, error: sqlite3.Error) -> LedgerError:
    """What an error of SQLite means for a ledger. SQLite tells the primary cause in the low byte of its code."""
    if isinstance(error, sqlite3.ProgrammingError):
        return LedgerFailed(folder, str(error))  # used after it was closed
    code = _primary_code(error)
    if getattr(error, "sqlite_errorcode", 0) == _HALF_MADE:
        return LedgerFailed(folder, "its first writer ended before it was made; the next writer will make it")
    if code == sqlite3.SQLITE_FULL:
        return LedgerFull(folder, _free(folder))
    # A DatabaseError without a code is the sqlite3 module's own: it could not make a Python value of a column.
    if code in _DAMAGED or (isinstance(error, sqlite3.DatabaseError) and code == 0):
        return LedgerDamaged(folder, DATABASE, str(error))
    # On a full disk SQLite may fail to make or extend its log and shared memory, and reports that as an I/O error.
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and 0 <= _free(folder) < _NEARLY_NONE_BYTES:
        return LedgerFull(folder, _free(folder))
    name = getattr(error, "sqlite_errorname", "SQLite")
    # SQLite does not tell a quota that is used up from a disk that fails.
    hint = "; the disk is not full: it fails, or a quota is used up" if name == "SQLITE_IOERR_WRITE" else ""
    return LedgerFailed(folder, f"{error} ({name}){hint}")


def _free(folder: Path) -> int:
    """Free bytes, -1 where the system does not say."""
    try:
        return free_bytes(folder)
    except OSError:
        return -1


@contextmanager
def store_errors(what: str, path: Path) -> Iterator[None]:
    """Raise `StoreFailed` in place of `SqliteError`, `OSError` and `ValueError`; `what` says what was attempted with
    the file."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        raise StoreFailed(what, str(path), _reason(error)) from error


def is_locked(error: SqliteError) -> bool:
    """Whether another process (or connection) holds the file."""
    return _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_of_the_disk(error: SqliteError) -> bool:
    """Whether the file could not be read now (rights, locks, the drive), which proves nothing about its content."""
    return _primary_code(error) in _OF_THE_DISK


def _primary_code(error: SqliteError) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__

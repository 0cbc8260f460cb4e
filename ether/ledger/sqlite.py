"""The owner of `sqlite3`: how every database file of Ether is opened, and what its errors mean.

Three kinds of files are opened here: a ledger (`open_ledger`), an outbox of records (`open_locked`), and the outbox and
journal of durable calls (`open_database`, which also makes the tables). All of them use a write-ahead log, and
transactions that the code begins and ends itself (`transaction`). Other modules take `Connection`, `SqliteError` and
`OperationalError` from here.

Promise: from a block of `ledger_errors` or `told` no error of SQLite or of the operating system gets out, but an error
of Ether that names the file or folder and the cause.

The trap: a connection may be used by several threads, but by one at a time; its owner holds a lock around each
transaction.
"""

from __future__ import annotations

import errno
import sqlite3
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
"""Of a ledger's database. The seal has a hash for each page."""

_FOLDER_MODE = 0o700
"""Records and calls may hold secrets of their user."""

_LEDGER_BUSY_S = 0.5

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


def open_ledger(folder: Path, *, write: bool, sealed: bool = False) -> Connection:
    """A connection to the folder's ledger; raises `SqliteError`. `sealed` (only for reading): there is no writer, so
    the file is read as it is. Otherwise SQLite would put its shared-memory file beside it, which a sealed folder
    must not get and a read-only one cannot."""
    path = folder / DATABASE
    if not write:
        return connect(path, "ro", busy_s=_LEDGER_BUSY_S, immutable=sealed)
    connection = connect(path, "rwc", busy_s=_LEDGER_BUSY_S)
    try:
        _make_durable(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_durable(connection: Connection) -> None:
    """A ledger is synced at each commit."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # has an effect on a new file alone
    _set_durability(connection, "FULL")


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
    return LedgerFailed(folder, f"{error} ({getattr(error, 'sqlite_errorname', 'SQLite')})")


def _free(folder: Path) -> int:
    """Free bytes, -1 where the system does not say."""
    try:
        return free_bytes(folder)
    except OSError:
        return -1


@contextmanager
def told(what: str, path: Path) -> Iterator[None]:
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

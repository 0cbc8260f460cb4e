"""SQLite files, opened in one way: write-ahead log, explicit transactions, one error for whatever the disk does.

Promise: what goes wrong with a file is a `StoreFailed` that names the file and the cause. The trap: a connection is
used by several threads, so its owner holds a lock around each transaction.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ether.errors import LedgerDamaged, LedgerError, LedgerFailed, LedgerFull, StoreFailed
from ether.ledger.durable import free_bytes

Connection = sqlite3.Connection
SqliteError = sqlite3.Error

_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# SQLITE_READONLY_ROLLBACK: a ledger has a rollback journal only while it is being made.
_HALF_MADE = sqlite3.SQLITE_READONLY | 3 << 8
_NEARLY_NONE_BYTES = 64 * 1024


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Raise `LedgerError` in place of `sqlite3.Error` and `OSError`."""
    try:
        yield
    except LedgerError:
        raise
    except sqlite3.Error as error:
        raise _from_sqlite(folder, error) from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise LedgerFull(folder, _free(folder)) from error
        raise LedgerFailed(folder, f"{error.strerror or error} ({error.filename or 'while writing'})") from error


def _from_sqlite(folder: Path, error: sqlite3.Error) -> LedgerError:
    if isinstance(error, sqlite3.ProgrammingError):
        return LedgerFailed(folder, str(error))  # used after it was closed
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if getattr(error, "sqlite_errorcode", 0) == _HALF_MADE:
        return LedgerFailed(folder, "its first writer ended before it was made; the next writer will make it")
    if code == sqlite3.SQLITE_FULL:
        return LedgerFull(folder, _free(folder))
    if code in _DAMAGED or (isinstance(error, sqlite3.DatabaseError) and code == 0):
        return LedgerDamaged(folder, "ledger.db", str(error))
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and 0 <= _free(folder) < _NEARLY_NONE_BYTES:
        return LedgerFull(folder, _free(folder))
    return LedgerFailed(folder, f"{error} ({getattr(error, 'sqlite_errorname', 'SQLite')})")


def _free(folder: Path) -> int:
    """Free bytes, -1 where that cannot be told."""
    try:
        return free_bytes(folder)
    except OSError:
        return -1


_FOLDER_MODE = 0o700
"""What is kept may be anybody's secret."""


def open_database(
    path: Path,
    tables: str,
    version: int,
    *,
    synchronous: Literal["NORMAL", "FULL"],
    exclusive: bool = False,
    existing: bool = False,
    busy_s: float = 5.0,
) -> sqlite3.Connection:
    """A connection to a file whose tables are there. `exclusive`: locked from now on until it is closed, or the process
    ends. `existing`: never made. Raises `sqlite3.Error`, `OSError`, and `ValueError` for a file of another version."""
    if not existing:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rw' if existing else 'rwc'}",
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if exclusive:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("BEGIN EXCLUSIVE" if exclusive else "BEGIN IMMEDIATE")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, version):
            raise ValueError(f"it is of version {found}, and this Ether knows {version}")
        for statement in tables.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing. Not needed around a single statement."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def told(what: str, path: Path) -> Iterator[None]:
    """Raise `StoreFailed` for what the disk or SQLite does; `what` was attempted with the file."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        raise StoreFailed(what, str(path), _reason(error)) from error


def is_locked(error: sqlite3.Error) -> bool:
    """Whether somebody else has the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def sync_file(path: Path) -> None:
    """Make durable what a file holds. Never for a database itself: closing it here would give up this process's locks
    on it."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make durable which files there are; nothing on systems where a folder cannot be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows, where NTFS keeps a journal of this
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__

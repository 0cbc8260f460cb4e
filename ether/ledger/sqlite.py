"""SQLite files, opened in one way: write-ahead log, explicit transactions, one error for whatever the disk does.

Promise: what goes wrong with a file is a `StoreFailed` that names the file and the cause. The trap: a connection is
used by several threads, so its owner holds a lock around each transaction.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ether.errors import StoreFailed

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

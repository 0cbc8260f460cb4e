"""What SQLite and the operating system raise, in the ledger's own words.

Promise: inside of `translated` nothing but `LedgerError` is raised for what a disk can do. The trap: SQLite tells a
full disk in several ways; where it only says "I/O error", the free space decides.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ether.errors import LedgerDamaged, LedgerError, LedgerFailed, LedgerFull
from ether.ledger.durable import free_bytes

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

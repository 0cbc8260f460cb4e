"""One writer for a ledger at a time.

Promise: the lock ends with its process, however that ends, on every system: it is SQLite's own lock of an empty
database in the folder. The trap: it is a lock of this machine; a folder on a network share may be written from two.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from pathlib import Path

from ether.errors import LedgerLocked

LOCK = "lock"
WRITER = "writer"
"""Who writes, as JSON. It outlives a killed writer and then says nothing: the lock alone counts."""

_LOOKED_AT_S = 0.2
"""Longer than anybody's look at the lock lasts."""


class LedgerLock:
    """Holds the folder's lock until `release()`."""

    def __init__(self, folder: Path) -> None:
        """Raises `LedgerLocked` where another holds it, `sqlite3.Error` and `OSError` where it cannot be had."""
        self._writer = folder / WRITER
        os.close(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)) if not (folder / LOCK).exists() else None
        self._connection = sqlite3.connect(
            folder / LOCK, timeout=_LOOKED_AT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("PRAGMA journal_mode = OFF")
            self._connection.execute("BEGIN EXCLUSIVE")
            self._writer.write_text(json.dumps(_oneself()))
        except sqlite3.OperationalError as error:
            self._connection.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise LedgerLocked(folder, _holder(self._writer)) from error
            raise
        except BaseException:
            self._connection.close()
            raise

    def release(self) -> None:
        """Let others write."""
        self._writer.unlink(missing_ok=True)
        self._connection.close()


def is_held(folder: Path) -> bool:
    """Whether somebody writes to the ledger now."""
    if not (folder / LOCK).exists():
        return False
    connection = sqlite3.connect(f"{(folder / LOCK).as_uri()}?mode=ro", uri=True, timeout=0)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    finally:
        connection.close()
    return False


def _oneself() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _holder(path: Path) -> str:
    try:
        told = json.loads(path.read_text())
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process (its pid is not known)"

"""One writer for a ledger at a time.

The lock is SQLite's own, of an empty database file in the folder. Promise: it ends with its process, however that
process ends, on every system. The trap: it is a lock of one machine; on a network share two machines may write to one
folder.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from ether.errors import LedgerLocked
from ether.ledger.sqlite import OperationalError, SqliteError, connect, is_locked
from ether.system.clock import wall_time

LOCK = "lock"
WRITER = "writer"
"""The file that names the writer, as JSON. It outlives a killed writer and then says nothing: the lock alone counts."""

_LOOKED_AT_S = 0.2
"""Longer than a look at the lock by `is_held` lasts."""


class LedgerLock:
    """Holds the folder's lock until `release()`."""

    def __init__(self, folder: Path) -> None:
        """Raises `LedgerLocked` where another writer holds it, `SqliteError` and `OSError` where it cannot be had."""
        self._writer = folder / WRITER
        lock = folder / LOCK
        if not lock.exists():  # made here, because SQLite would not make it private
            os.close(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = connect(lock, "rwc", busy_s=_LOOKED_AT_S)
        try:
            self._connection.execute("PRAGMA journal_mode = OFF")
            self._connection.execute("BEGIN EXCLUSIVE")  # never committed: the lock is this open transaction
            self._writer.write_text(json.dumps(_this_writer()))
        except OperationalError as error:
            self._connection.close()
            if is_locked(error):
                raise LedgerLocked(folder, _holder(self._writer)) from error
            raise
        except BaseException:
            self._connection.close()
            raise

    def release(self) -> None:
        """Let others write."""
        with suppress(OSError):  # its folder is gone, or the disk: the lock itself is the transaction
            self._writer.unlink()
        self._connection.close()


def is_held(folder: Path) -> bool:
    """Whether a writer has the ledger open now."""
    if not (folder / LOCK).exists():
        return False
    connection = connect(folder / LOCK, "ro", busy_s=0)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except SqliteError as error:
        return is_locked(error)
    finally:
        connection.close()
    return False


def _this_writer() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_time())),
    }


def _holder(path: Path) -> str:
    try:
        writer = json.loads(path.read_text())
        return f"process {writer['pid']} on {writer['host']}, since {writer['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process (its pid is not known)"

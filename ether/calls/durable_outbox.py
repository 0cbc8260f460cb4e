"""The saves of one process that are not answered yet, on disk: what will be sent again, also by the next run.

One file for each living process, in a folder of its session. Promises: what `add` has written survives the end of the
process however it ends, and after `sync()` that of the machine; the file is locked by the operating system while its
process lives, so whoever takes over takes only from the dead; nothing is lost if it dies in the middle of taking over.

The trap: a call may then stand in two files and be sent by two processes. Its id makes that harmless: the callee's
journal runs it once.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import NamedTuple

from ether.errors import StoreFailed
from ether.ledger.durable import sync_file, sync_folder
from ether.ledger.sqlite import Connection, SqliteError, is_locked, open_database, told, transaction
from ether.wire.codec import Body

KEPT_DAYS = 30.0
"""For so long a call is sent again. A journal remembers twice as long."""

MAX_CALLS = 100_000
MAX_BYTES = 4 << 30

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    id TEXT PRIMARY KEY, service TEXT, method TEXT, instance TEXT, journal TEXT, made REAL, caller TEXT,
    content_type TEXT, payload BLOB
)
"""
_COLUMNS = "id, service, method, instance, journal, made, caller"
_SUFFIX = ".calls"
_ATTEMPTS = 5
_CLOCK_IS_SET = 1.6e9
"""Unix seconds: what claims to be older comes from a machine that did not know the time yet, and is of unknown age."""


class SavedCall(NamedTuple):
    """A save that is not answered yet."""

    call_id: str
    """32 hexadecimal digits; the same however often it is sent."""
    service: str
    """The instance or class that was asked for."""
    method: str
    instance: str
    """The instance that it was sent to: it may have begun there, so nobody else can take it. "" before."""
    journal: str
    """The id of the journal that this instance keeps, "" where it is not known."""
    made: float
    """Unix seconds."""
    caller: str
    """The instance or program that made it."""

    def is_too_old(self, now: float) -> bool:
        """Whether it is given up; `now` in unix seconds."""
        return self.made > _CLOCK_IS_SET and now - self.made > KEPT_DAYS * 86_400


class CallOutbox:
    """This process's file. Every method may be called from any thread, and raises `StoreFailed`."""

    def __init__(self, folder: Path, owner: str) -> None:
        """`owner` names the instance or program, for a name of the file that people understand."""
        self._folder = folder
        self._lock = threading.Lock()
        self._path, self._database = _new_file(folder, owner)
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._writes: dict[str, int] = {}
        """By call the number of its last write."""
        self._last_write = self._synced = 0
        self._syncing = threading.Lock()
        self._folder_is_synced = False

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, call: SavedCall, body: Body) -> None:
        """Write a call down before it is sent."""
        with self._lock:
            if len(self._sizes) >= MAX_CALLS or self._bytes + len(body.payload) > MAX_BYTES:
                held = f"it holds {len(self._sizes):,} calls of {self._bytes:,} bytes that were not answered yet"
                raise StoreFailed("keep a call in", str(self._path), held)
            with told("keep a call in", self._path):
                self._insert(call, body)

    def bind(self, call_id: str, instance: str, journal: str) -> None:
        """It is about to be sent to this instance."""
        with self._lock, told("keep a call in", self._path):
            self._database.execute(
                "UPDATE calls SET instance = ?, journal = ? WHERE id = ?", (instance, journal, call_id)
            )
            self._note_write(call_id)

    def body(self, call_id: str) -> Body | None:
        """What to send; None where it is not here any more."""
        with self._lock, told("read a call from", self._path):
            row = self._database.execute("SELECT payload, content_type FROM calls WHERE id = ?", (call_id,)).fetchone()
        return None if row is None else Body(*row)

    def remove(self, call_id: str) -> None:
        """It was answered. Nothing where it is not here."""
        with self._lock, told("take an answered call out of", self._path):
            self._database.execute("DELETE FROM calls WHERE id = ?", (call_id,))
            self._bytes -= self._sizes.pop(call_id, 0)
            self._writes.pop(call_id, None)

    def sync(self, call_id: str | None = None) -> None:
        """Return when a call, or all that was written, is on disk: before anything is promised on its strength. Others
        read and write meanwhile."""
        with self._lock:
            wanted = self._last_write if call_id is None else self._writes.get(call_id, 0)
        with self._syncing, told("make durable", self._path):
            if self._synced >= wanted:  # by somebody else, while we waited
                return
            with self._lock:  # not in the middle of a transaction
                now = self._last_write
            sync_file(Path(f"{self._path}-wal"))  # its log: what has left that was synced on its way
            if not self._folder_is_synced:
                sync_folder(self._folder)
                self._folder_is_synced = True
            self._synced = now

    def take_over(self, owner: str | None = None) -> tuple[list[SavedCall], list[StoreFailed]]:
        """Make the calls of dead processes (of one owner; None: of all) this one's; they are durable here before they
        are gone there. Gives those that are new here, the oldest first, and what is wrong with files that stay."""
        taken: list[SavedCall] = []
        problems: list[StoreFailed] = []
        for path in files_in(self._folder, owner):
            if path != self._path:
                taken += self._take_over(path, problems)
        return sorted(taken, key=lambda call: call.made), problems

    def close(self) -> None:
        """Let go of the file: with calls in it, it is the next run's. Twice is fine."""
        with self._lock:
            self._database.close()
            if not self._sizes:
                _unlink(self._path)
            self._sizes = {}

    def _insert(self, call: SavedCall, body: Body) -> bool:
        new = call.call_id not in self._sizes
        self._database.execute(
            "INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*call, body.content_type, body.payload)
        )
        if new:
            self._sizes[call.call_id] = len(body.payload)
            self._bytes += len(body.payload)
            self._note_write(call.call_id)
        return new

    def _note_write(self, call_id: str) -> None:
        self._writes[call_id] = self._last_write + 1
        self._last_write += 1

    def _take_over(self, path: Path, problems: list[StoreFailed]) -> list[SavedCall]:
        try:
            theirs = open_database(path, _TABLES, _VERSION, synchronous="FULL", exclusive=True, existing=True, busy_s=0)
        except (SqliteError, ValueError) as error:
            locked = isinstance(error, SqliteError) and is_locked(error)
            if not locked and path.exists():  # else its process lives; or somebody else has just taken it over
                problems.append(StoreFailed("take calls over from", str(path), str(error)))
            return []
        taken: list[SavedCall] = []
        try:
            with told("take calls over from", path):
                taken = self._copy(theirs)
                self.sync()
                theirs.execute("DELETE FROM calls")
            if os.name == "posix":  # before the lock is given back: whoever waits for it finds no file, or an empty one
                _unlink(path)
        except StoreFailed as error:  # what was copied is sent all the same, and perhaps by the next one, too
            problems.append(error)
            return taken
        finally:
            theirs.close()
        _unlink(path)
        return taken

    def _copy(self, theirs: Connection) -> list[SavedCall]:
        taken = []
        with self._lock, transaction(self._database):
            for *told_of, content_type, payload in theirs.execute(
                f"SELECT {_COLUMNS}, content_type, payload FROM calls"
            ):
                call = SavedCall(*told_of)
                if self._insert(call, Body(payload, content_type)):
                    taken.append(call)
        return taken


def files_in(folder: Path, owner: str | None = None) -> list[Path]:
    """The files of processes, living and dead, of one owner or of all."""
    return [path for path in sorted(folder.glob(f"*{_SUFFIX}")) if owner in (None, path.name.rsplit(".", 2)[0])]


def _new_file(folder: Path, owner: str) -> tuple[Path, Connection]:
    """A file that nobody else has, locked. Who takes over may have taken a new one for a dead process's before it was
    locked: then there is another."""
    for attempt in range(_ATTEMPTS):
        path = folder / f"{owner}.{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
        with told("make", path):
            try:
                database = open_database(path, _TABLES, _VERSION, synchronous="NORMAL", exclusive=True)
            except SqliteError as error:
                if is_locked(error) and attempt + 1 < _ATTEMPTS:
                    continue
                raise
        if path.exists():
            return path, database
        database.close()
    raise StoreFailed("make", str(folder), "new files are taken away as soon as they are made")


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        try:
            os.unlink(f"{path}{suffix}")
        except OSError:  # it is not there; or open, on Windows, and whoever closes it comes here again
            continue

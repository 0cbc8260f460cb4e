"""The durable calls of one process that are not answered yet, on disk: this run or the next one sends them again.

Each living process has one file, in a folder of its session. Promises: what `add` has written survives the end of the
process, however it ends, and after `sync()` a power failure of the machine. The operating system locks the file while
its process lives, so a process takes calls over from dead processes only. A crash in the middle of taking over loses
nothing.

The trap: after such a crash a call may stand in two files and be sent by two processes. That is harmless, because the
call has the same id in both: the journal of the called instance runs it once.
"""

from __future__ import annotations

import os
import threading
from heapq import merge
from itertools import accumulate
from pathlib import Path

from ether.calls.durable_records import SavedCall
from ether.errors import StoreFailed
from ether.ledger.durable import sync_file, sync_folder
from ether.ledger.sqlite import Connection, SqliteError, is_locked, open_database, store_errors, transaction
from ether.system.clock import boot_id, uptime
from ether.wire.codec import Body

MAX_CALLS = 100_000
MAX_BYTES = 4 << 30

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    id TEXT PRIMARY KEY, service TEXT, method TEXT, instance TEXT, journal TEXT, made REAL, caller TEXT,
    content_type TEXT, payload BLOB
);
CREATE TABLE IF NOT EXISTS ages (id TEXT PRIMARY KEY, age REAL, boot TEXT, uptime REAL)
"""
_COLUMNS = "id, service, method, instance, journal, made, caller"
_SUFFIX = ".calls"
_ATTEMPTS = 5


class CallOutbox:
    """This process's file. Every method may be called from any thread, and raises `StoreFailed`."""

    def __init__(self, folder: Path, owner: str) -> None:
        """`owner` is the name of the instance or program; it makes the file's name readable."""
        self._folder = folder
        self._lock = threading.Lock()
        self._path, self._database = _new_file(folder, owner)
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._noted: dict[str, float] = {}
        """The calls whose age is in the file, with the age that they had when this process took them over."""
        self._writes: dict[str, int] = {}
        """For each call the number of its last write."""
        self._last_write = self._synced = 0
        self._syncing = threading.Lock()
        self._folder_is_synced = False

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, call: SavedCall, body: Body) -> None:
        """Write a call to the file, before it is sent."""
        with self._lock:
            if len(self._sizes) >= MAX_CALLS or self._bytes + len(body.payload) > MAX_BYTES:
                held = f"it holds {len(self._sizes):,} calls of {self._bytes:,} bytes that were not answered yet"
                raise StoreFailed("keep a call in", str(self._path), held)
            with store_errors("keep a call in", self._path):
                self._insert(call, body)

    def bind(self, call_id: str, instance: str, journal: str) -> None:
        """Note that the call is about to be sent to this instance."""
        with self._lock, store_errors("keep a call in", self._path):
            self._database.execute(
                "UPDATE calls SET instance = ?, journal = ? WHERE id = ?", (instance, journal, call_id)
            )
            self._note_write(call_id)

    def note_age(self, call_id: str, age_s: float) -> None:
        """Write down how long a call has waited, for the process that takes it over. It need not be durable."""
        with self._lock, store_errors("keep a call in", self._path):
            if call_id in self._sizes:
                self._insert_age(call_id, age_s)

    def age_s(self, call_id: str) -> float:
        """How long a call that was taken over had waited by then, as far as earlier processes have noted it."""
        return self._noted.get(call_id, 0.0)

    def body(self, call_id: str) -> Body | None:
        """The body of a call; None where the call has been removed."""
        with self._lock, store_errors("read a call from", self._path):
            row = self._database.execute("SELECT payload, content_type FROM calls WHERE id = ?", (call_id,)).fetchone()
        return None if row is None else Body(*row)

    def remove(self, call_id: str) -> None:
        """Remove an answered call. Does nothing where the call is not in the file."""
        with self._lock, store_errors("take an answered call out of", self._path):
            self._database.execute("DELETE FROM calls WHERE id = ?", (call_id,))
            if self._noted.pop(call_id, None) is not None:
                self._database.execute("DELETE FROM ages WHERE id = ?", (call_id,))
            self._bytes -= self._sizes.pop(call_id, 0)
            self._writes.pop(call_id, None)

    def sync(self, call_id: str | None = None) -> None:
        """Return when a call is durable, or, without an id, everything that was written before; nothing may be promised
        about a call earlier.

        Threads share the work. One fsync covers every write that was committed before it, so a thread that had to wait
        for another thread's fsync often finds its own call durable. `_lock` is free during the fsync, so that calls can
        be added and read meanwhile.
        """
        with self._lock:
            wanted = self._last_write if call_id is None else self._writes.get(call_id, 0)
        with self._syncing, store_errors("make durable", self._path):
            if self._synced >= wanted:  # another thread's fsync covered it while this thread waited
                return
            with self._lock:  # so that the fsync does not fall into the middle of a transaction
                now = self._last_write
            # The write-ahead log is enough: what has moved from it into the database file was fsynced by SQLite then.
            sync_file(Path(f"{self._path}-wal"))
            if not self._folder_is_synced:
                sync_folder(self._folder)
                self._folder_is_synced = True
            self._synced = now

    def take_over(self, owner: str | None = None) -> tuple[list[SavedCall], list[StoreFailed]]:
        """Move the calls of dead processes into this process's file; they are durable here before they are deleted
        there. `owner` restricts this to one owner's processes; None means all.

        Returns the calls that are new here, the oldest first, and an error for each file that could not be taken over.
        """
        problems: list[StoreFailed] = []
        paths = [path for path in files_in(self._folder, owner) if path != self._path]
        return _merged([self._take_over(path, problems) for path in paths]), problems

    def close(self) -> None:
        """Close the file. A file that still holds calls stays for the next run. A second call does nothing."""
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

    def _insert_age(self, call_id: str, age_s: float) -> None:
        row = (call_id, age_s, boot_id(), uptime())
        self._database.execute("INSERT OR REPLACE INTO ages VALUES (?, ?, ?, ?)", row)
        self._noted[call_id] = age_s

    def _note_write(self, call_id: str) -> None:
        self._writes[call_id] = self._last_write + 1
        self._last_write += 1

    def _take_over(self, path: Path, problems: list[StoreFailed]) -> list[SavedCall]:
        try:
            theirs = open_database(path, _TABLES, _VERSION, synchronous="FULL", exclusive=True, existing=True, busy_s=0)
        except (SqliteError, ValueError) as error:
            # A locked file belongs to a living process. A file that is gone was taken over by another process.
            locked = isinstance(error, SqliteError) and is_locked(error)
            if not locked and path.exists():
                problems.append(StoreFailed("take calls over from", str(path), str(error)))
            return []
        taken: list[SavedCall] = []
        try:
            with store_errors("take calls over from", path):
                taken = self._copy(theirs)
                self.sync()
                theirs.execute("DELETE FROM calls")
                theirs.execute("DELETE FROM ages")
            if os.name == "posix":
                # Before `close` releases the lock: a process that waits for it then finds no file, or an empty one.
                _unlink(path)
        except StoreFailed as error:
            # The copied calls are sent all the same, though the next process may take them over, too.
            problems.append(error)
            return taken
        finally:
            theirs.close()
        _unlink(path)
        return taken

    def _copy(self, theirs: Connection) -> list[SavedCall]:
        taken = []
        noted = theirs.execute("SELECT id, age, boot, uptime FROM ages")
        ages = {call_id: _grown(age_s, boot, at) for call_id, age_s, boot, at in noted}
        with self._lock, transaction(self._database):
            for *fields, content_type, payload in theirs.execute(
                f"SELECT {_COLUMNS}, content_type, payload FROM calls ORDER BY rowid"
            ):
                call = SavedCall(*fields)
                if self._insert(call, Body(payload, content_type)):
                    taken.append(call)
                    if call.call_id in ages:
                        self._insert_age(call.call_id, ages[call.call_id])
        return taken


def _merged(files: list[list[SavedCall]]) -> list[SavedCall]:
    """The calls of several files, the oldest first. Calls of one file stay in the order in which they were made, though
    the clock may have been set back in between."""
    timed = [zip(accumulate((call.made for call in calls), max), calls, strict=True) for calls in files]
    return [call for _, call in merge(*timed, key=lambda pair: pair[0])]


def _grown(age_s: float, boot: str, at: float) -> float:
    """An age now that was noted when the uptime was `at`. After a restart of the machine nobody knows how long it was
    off (its clock may have been wrong before, or now), so that time is not counted."""
    return age_s + max(0.0, uptime() - at) if boot and boot == boot_id() else age_s


def files_in(folder: Path, owner: str | None = None) -> list[Path]:
    """The files of all processes, living and dead, of one owner or (None) of every owner."""
    return [path for path in sorted(folder.glob(f"*{_SUFFIX}")) if owner in (None, path.name.rsplit(".", 2)[0])]


def _new_file(folder: Path, owner: str) -> tuple[Path, Connection]:
    """A new file, locked by this process.

    Between making a file and locking it, another process may take it for a dead process's, lock it and remove it. Then
    this process makes another file.
    """
    for attempt in range(_ATTEMPTS):
        path = folder / f"{owner}.{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
        with store_errors("make", path):
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
        except OSError:  # it does not exist; or, on Windows, a process has it open, and removes it when it closes it
            continue

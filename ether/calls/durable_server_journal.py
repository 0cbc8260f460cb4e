"""The journal of one instance on disk: which durable calls it has begun and finished, so that each is run once.

`begin` is on disk before the method runs, `finish` before the answer leaves. A call that arrives again, after whatever
crash, is therefore found either finished, and gets its stored answer, or begun and not finished. An unfinished call is
not run again: nobody can know how far it came, and on a bench a second dose is worse than an error.

Promises: the file is bounded by the number of calls and by the bytes of answers, not by age: the times in it are for
people, and a clock that is set would make calls of a minute ago seem old, and be run again. A call that the journal has
forgotten for lack of room is refused, not run again: a call's id contains the time at which it was made. Every journal
has an id of its own. A caller that finds another journal id than the one it sent its call to knows that nobody can say
whether the call was run.

The trap: a journal belongs to one machine. An instance that moves to another machine begins a new journal.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from ether.calls.durable_records import JournaledResult, JournalEntry, time_of
from ether.ledger.sqlite import open_database, store_errors, transaction
from ether.system.clock import wall_time
from ether.wire.codec import Body

MAX_CALLS = 1_000_000
MAX_ANSWER_BYTES = 256 << 20

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    id BLOB PRIMARY KEY, begun REAL, finished REAL, error TEXT, content_type TEXT, answer BLOB
);
CREATE TABLE IF NOT EXISTS journal (id TEXT, horizon BLOB)
"""
_PRUNE_EVERY = 1000


class CallJournal:
    """One instance's journal. Every method may be called from any thread, and raises `StoreFailed`."""

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = wall_time,
        max_calls: int = MAX_CALLS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._path, self._now = path, now
        self._max_calls, self._max_answer_bytes = max_calls, max_answer_bytes
        self._lock = threading.Lock()
        self._running: set[bytes] = set()
        self._finishes = 0
        with store_errors("open the journal", path):
            self._database = open_database(path, _TABLES, _VERSION, synchronous="FULL")
            try:
                with transaction(self._database):
                    self.id, self._horizon = self._identity()
                    self._prune()
            except BaseException:
                self._database.close()
                raise

    def begin(self, call_id: bytes) -> JournalEntry | JournaledResult:
        """Look a call up, and note the begin of one that is new: it is on disk when this returns `JournalEntry.NEW`."""
        with self._lock, store_errors("write to the journal", self._path):
            if call_id in self._running:
                return JournalEntry.RUNNING
            known = self._look_up(call_id)
            if known is not None:
                return known
            if time_of(call_id) <= self._horizon:
                return JournalEntry.FORGOTTEN
            insert = "INSERT OR IGNORE INTO calls (id, begun) VALUES (?, ?)"
            if self._database.execute(insert, (call_id, self._now())).rowcount == 0:
                # Another process has begun it since `_look_up`: it took this process for dead and replaced it.
                return JournalEntry.INTERRUPTED
            self._running.add(call_id)
            return JournalEntry.NEW

    def finish(self, call_id: bytes, body: Body, error: str | None) -> None:
        """Note a call's answer; it is on disk when this returns."""
        with self._lock, store_errors("write to the journal", self._path):
            self._running.discard(call_id)
            self._database.execute(
                "UPDATE calls SET finished = ?, error = ?, content_type = ?, answer = ? WHERE id = ?",
                (self._now(), error, body.content_type, body.payload, call_id),
            )
            self._finishes += 1
            if self._finishes % _PRUNE_EVERY == 0:
                with transaction(self._database):
                    self._prune()

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            self._database.close()

    def _look_up(self, call_id: bytes) -> JournalEntry | JournaledResult | None:
        row = self._database.execute(
            "SELECT finished, error, content_type, answer FROM calls WHERE id = ?", (call_id,)
        ).fetchone()
        if row is None:
            return None
        finished, error, content_type, answer = row
        if finished is None:
            return JournalEntry.INTERRUPTED
        return JournaledResult(None if answer is None else Body(answer, content_type), error, finished)

    def _identity(self) -> tuple[str, bytes]:
        row = self._database.execute("SELECT id, horizon FROM journal").fetchone()
        if row is None:
            row = (os.urandom(8).hex(), b"")
            self._database.execute("INSERT INTO journal VALUES (?, ?)", row)
        return row[0], row[1]

    # -- bounds: each one is pruned to nine tenths, so that pruning is rare

    def _prune(self) -> None:
        count, answer_bytes = self._database.execute("SELECT count(*), sum(length(answer)) FROM calls").fetchone()
        if count > self._max_calls:
            self._forget_oldest(count - self._max_calls * 9 // 10)
        if (answer_bytes or 0) > self._max_answer_bytes:
            self._drop_answers(answer_bytes - self._max_answer_bytes * 9 // 10)

    def _forget_oldest(self, number: int) -> None:
        """Delete the oldest finished calls, and raise the horizon to the time of the latest one of them.

        From now on a call that was made at or before the horizon counts as `FORGOTTEN`, not as new. Calls that were
        begun and not finished stay: they are few, and what they say cannot be derived from the horizon.
        """
        oldest = "SELECT rowid FROM calls WHERE finished IS NOT NULL ORDER BY rowid LIMIT ?"
        rows = self._database.execute(f"SELECT id FROM calls WHERE rowid IN ({oldest})", (number,)).fetchall()
        if rows:
            self._horizon = max(self._horizon, *(time_of(bytes(row[0])) for row in rows))
            self._database.execute("UPDATE journal SET horizon = ?", (self._horizon,))
            self._database.execute(f"DELETE FROM calls WHERE rowid IN ({oldest})", (number,))

    def _drop_answers(self, excess: int) -> None:
        """Drop the oldest answers until `excess` bytes are free. The journal still knows that these calls were run."""
        sizes = self._database.execute(
            "SELECT rowid, length(answer) FROM calls WHERE answer IS NOT NULL ORDER BY rowid"
        ).fetchall()
        dropped: list[tuple[int]] = []
        for rowid, size in sizes:
            if excess <= 0:
                break
            dropped.append((rowid,))
            excess -= size
        self._database.executemany("UPDATE calls SET answer = NULL WHERE rowid = ?", dropped)

"""What an instance has begun and finished of the saves that it was asked for, on disk: why each runs once.

`begin` is durable before the method runs, `finish` before its answer leaves. So after whatever end, a call that comes
again is found finished, and gets its answer; or begun and not finished, and is not run again: nobody can know how far
it came, and on a bench a second dose is worse than an error.

Promises: bounded by age, count and the bytes of answers; what is forgotten by count is refused, not run again, because
a call's id tells when it was made. Every journal has an id of its own: a caller that finds another one than it sent its
call to knows that nobody can say whether it ran.

The trap: a journal is of one machine. An instance that moves to another one begins a new journal.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ether.errors import DecodeError, EncodeError, EtherError, TransportError
from ether.ledger.sqlite import open_database, told, transaction
from ether.log import get_ether_logger
from ether.protocol.answers import INTERRUPTED, UNKEPT, ErrorReport
from ether.wire.codec import Body, decode, encode

KEPT_DAYS = 60.0
"""Twice as long as a call may be sent again: see `ether.calls.durable_outbox`."""

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
_MADE = slice(0, 6)
"""The bytes of a call's id that say when it was made."""

ID_BYTES = 16


def new_call_id(unix_ms: int) -> bytes:
    """The id of a call that is made at `unix_ms` milliseconds since 1970: 6 bytes of time, 10 that nobody guesses."""
    return max(0, unix_ms).to_bytes(6, "big") + os.urandom(ID_BYTES - 6)


class JournalEntry(enum.Enum):
    """What `begin` says of a call, where it has no answer to it."""

    NEW = "new"
    """It is begun with this: run it, and then call `finish`."""
    RUNNING = "running"
    """It is being run in this very process."""
    INTERRUPTED = "interrupted"
    """It was begun in an earlier life and not finished."""
    FORGOTTEN = "forgotten"
    """It was made so long ago that it may have been run and forgotten."""


class JournaledResult(NamedTuple):
    """The answer to a call that was run. `body` is None where it was too long ago to be kept whole."""

    body: Body | None
    error: str | None
    """The class of what it raised; None where it returned."""
    finished: float
    """Unix seconds."""


class CallJournal:
    """One instance's journal. Every method may be called from any thread, and raises `StoreFailed`."""

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.time,
        max_calls: int = MAX_CALLS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._path, self._now = path, now
        self._max_calls, self._max_answer_bytes = max_calls, max_answer_bytes
        self._lock = threading.Lock()
        self._running: set[bytes] = set()
        self._finishes = 0
        with told("open the journal", path):
            self._database = open_database(path, _TABLES, _VERSION, synchronous="FULL")
            try:
                with transaction(self._database):
                    self.id, self._horizon = self._identity()
                    self._prune()
            except BaseException:
                self._database.close()
                raise

    def begin(self, call_id: bytes) -> JournalEntry | JournaledResult:
        """Look a call up; one that is new is begun, and that is on disk, when this returns `JournalEntry.NEW`."""
        with self._lock, told("write to the journal", self._path):
            if call_id in self._running:
                return JournalEntry.RUNNING
            known = self._look_up(call_id)
            if known is not None:
                return known
            if call_id[_MADE] <= self._horizon:
                return JournalEntry.FORGOTTEN
            insert = "INSERT OR IGNORE INTO calls (id, begun) VALUES (?, ?)"
            if self._database.execute(insert, (call_id, self._now())).rowcount == 0:
                return JournalEntry.INTERRUPTED  # another process begins it this very moment: ours was taken for dead
            self._running.add(call_id)
            return JournalEntry.NEW

    def finish(self, call_id: bytes, body: Body, error: str | None) -> None:
        """What came of it; on disk when this returns."""
        with self._lock, told("write to the journal", self._path):
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
        """Let go of the file. Twice is fine."""
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

    # -- bounds

    def _prune(self) -> None:
        long_ago = self._now() - KEPT_DAYS * 86_400
        self._database.execute("DELETE FROM calls WHERE coalesce(finished, begun) < ?", (long_ago,))
        count, answer_bytes = self._database.execute("SELECT count(*), sum(length(answer)) FROM calls").fetchone()
        if count > self._max_calls:
            self._forget(count - self._max_calls * 9 // 10)
        if (answer_bytes or 0) > self._max_answer_bytes:
            self._drop_answers(answer_bytes - self._max_answer_bytes * 9 // 10)

    def _forget(self, number: int) -> None:
        """Of the finished calls the oldest; from now on nothing is believed to be new that was made before them."""
        oldest = "SELECT rowid FROM calls WHERE finished IS NOT NULL ORDER BY rowid LIMIT ?"
        rows = self._database.execute(f"SELECT id FROM calls WHERE rowid IN ({oldest})", (number,)).fetchall()
        if rows:
            self._horizon = max(self._horizon, *(bytes(row[0])[_MADE] for row in rows))
            self._database.execute("UPDATE journal SET horizon = ?", (self._horizon,))
            self._database.execute(f"DELETE FROM calls WHERE rowid IN ({oldest})", (number,))

    def _drop_answers(self, excess: int) -> None:
        """That a call was run is still known; what it returned is not."""
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


logger = get_ether_logger("Ether")

Respond = Callable[[object, ErrorReport | None], None]

_AGAIN = "It was not run again."


class InstanceJournal:
    """The journal of one instance, opened when it can be: what is wrong with the disk today may be mended tomorrow."""

    def __init__(self, where: Callable[[], Path]) -> None:
        """`where` finds the file. What keeps it from being opened is logged, and then told to each caller."""
        self._where = where
        self._lock = threading.Lock()
        self._journal: CallJournal | None = None
        try:
            self.id = self.opened().id
        except EtherError as error:
            self.id = ""
            logger.error("saves will be refused: %s", error)

    def opened(self) -> CallJournal:
        """Raises `StoreFailed` and `ConfigError`."""
        with self._lock:
            if self._journal is None:
                self._journal = CallJournal(self._where())
            return self._journal

    def close(self) -> None:
        """Let go of the file. Twice is fine."""
        with self._lock:
            journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


class JournaledCall:
    """One save on its way through the worker: `begin`, then `respond`."""

    def __init__(
        self, journal: InstanceJournal, call_id: bytes, call: str, respond: Respond, forget: Callable[[], None]
    ) -> None:
        """`respond` sends the answer; `forget` lets go of a delivery that needs none."""
        self._journal, self._id, self._call = journal, call_id, call
        self._respond, self._forget = respond, forget
        self._begun = False

    def begin(self) -> bool:
        """On disk that it is begun. False where it is not to be run; then it has been answered."""
        try:
            found = self._journal.opened().begin(self._id)
        except EtherError as error:
            self._answer(None, _unkept(error, f"{self._call} was not run"))
            return False
        if isinstance(found, tuple):
            self._answer(*_as_it_was(found, self._call))
            return False
        return self._judge(found)

    def _judge(self, found: JournalEntry) -> bool:
        if found.value == "new":
            self._begun = True
        elif found.value == "running":  # its first delivery will be answered
            self._forget()
        else:
            self._answer(None, ErrorReport(INTERRUPTED, "Interrupted", _WHY[found.value]))
        return self._begun

    def respond(self, value: object, error: ErrorReport | None) -> None:
        """The end: on disk before the answer leaves."""
        if self._begun:
            self._begun = False
            value, error = self._finished(value, error)
        self._answer(value, error)

    def _finished(self, value: object, error: ErrorReport | None) -> tuple[object, ErrorReport | None]:
        try:
            body = encode(value if error is None else error.to_value())
        except EncodeError as unsendable:
            error = ErrorReport("raised", type(unsendable).__name__, str(unsendable))
            body = encode(error.to_value())
        try:
            self._journal.opened().finish(self._id, body, error.class_name if error else None)
        except EtherError as unkept:
            logger.error("%s ran, and that is not on disk: %s", self._call, unkept)
            return None, _unkept(unkept, f"{self._call} was run, and {_outcome(error)}, but that could not be kept")
        return value, error

    def _answer(self, value: object, error: ErrorReport | None) -> None:
        try:
            self._respond(value, error)
        except TransportError as unsent:
            logger.warning(
                "the answer of %s could not be sent, and waits to be asked for again: %s", self._call, unsent
            )


_WHY = {
    "interrupted": f"it had begun when the instance died, and how far it came is not known. {_AGAIN}",
    "forgotten": f"it is older than what the instance remembers, so it may have been run before. {_AGAIN}",
}


def _outcome(error: ErrorReport | None) -> str:
    return "returned" if error is None else f"raised {error.class_name}: {error.message}"


def _unkept(error: EtherError, what: str) -> ErrorReport:
    return ErrorReport(UNKEPT, type(error).__name__, f"{what}: {error}")


def _as_it_was(kept: JournaledResult, call: str) -> tuple[object, ErrorReport | None]:
    """The answer that a call had when it was run."""
    if kept.body is None:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(kept.finished))
        why = f"{call} was run at {at}, and what it returned is not kept any more. {_AGAIN}"
        return None, ErrorReport(INTERRUPTED, "Interrupted", why)
    value: Body = kept.body
    try:
        answer = decode(value.payload, value.content_type)
    except DecodeError as error:
        return None, ErrorReport(UNKEPT, "DecodeError", f"{call} was run, and its answer cannot be read: {error}")
    return (answer, None) if kept.error is None else (None, ErrorReport.from_value(answer))

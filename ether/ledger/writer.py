"""The ledger of a session, written: what its recorder keeps, on disk before it is acknowledged.

Promises: what `append` returns is on the disk, once, and stays readable whatever is killed or cut off afterwards. When
it raises, nothing of that call is kept, nothing from before is hurt, and the next call begins from what is on the disk.
A folder whose writer was killed is opened as it is.

The trap: after a sync that failed the system's memory of the files may say more than the disk holds. So the database is
opened again and everything in its write-ahead log is written once more before any number is believed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from ether.errors import LedgerFailed
from ether.ledger import schema
from ether.ledger.durable import PART, low_space, make_folder, sync_file, sync_folder
from ether.ledger.head import HeadFile, read_head
from ether.ledger.lock import LedgerLock
from ether.ledger.objects import Objects
from ether.ledger.rows import Intake, OriginCache, OutboxState, first_link, outbox_checksum
from ether.ledger.seal import seal, unseal
from ether.ledger.sqlite import WAL, Connection, SqliteError, open_ledger, translated
from ether.ledger.wal import tails
from ether.wire.entries import Batch, Entry

logger = logging.getLogger("Ether.store")

_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TOGETHER = 20
"""Rows of one statement: 280 of the 999 values that any SQLite takes. A row costs a fifth less than with its own."""

_UNFIT = (UnicodeError, OverflowError, ValueError, TypeError)
"""What the database or JSON raise for values that they cannot hold."""


class LedgerWriter:
    """Writes one ledger. Not locked: one thread at a time. Made by `LedgerWriter.open`."""

    def __init__(self, folder: Path, session: str, lock: LedgerLock) -> None:
        self.folder, self.session = folder, session
        self.repeated = 0
        """Entries that were offered although they were here; for counting."""
        self._lock = lock
        self._objects = Objects(folder)
        self._connection: Connection | None = None
        self._head: HeadFile | None = None
        self._rows, self._link = 0, b""
        self._outboxes: dict[str, OutboxState] = {}
        self._origins = OriginCache(0)
        self._told_heads: dict[str, OutboxState] = {}
        self._failed = self._closed = False

    @classmethod
    def open(cls, folder: Path, session: str) -> LedgerWriter:
        """Open the folder's ledger, or make it (mode 0700); an older schema is brought up to date.

        Raises `LedgerLocked` where another process writes to it, `SchemaTooNew`, `LedgerDamaged`, `LedgerFull`,
        `LedgerFailed`.
        """
        folder = Path(folder).absolute()
        with translated(folder):
            make_folder(folder)
            lock = LedgerLock(folder)
        writer = cls(folder, session, lock)
        try:
            with translated(folder):
                writer._tell_what_is_left_over()
                unseal(folder)
                writer._connect()
        except BaseException:
            writer._disconnect()
            lock.release()
            raise
        return writer

    def append(self, batches: Sequence[Batch], received: float) -> dict[str, int]:
        """Keep what is new in the batches, in one transaction; returns for each outbox the highest number on the disk.

        What is here already is left out, and what comes after a hole. Raises `LedgerFull`, `LedgerFailed`; then nothing
        of this call is kept.
        """

        def gather(intake: Intake) -> None:
            for batch in batches:
                intake.take(batch)

        self._keep(gather, received)
        return {batch.outbox: self.highest(batch.outbox) for batch in batches}

    def append_loose(self, entries: Sequence[tuple[str, Entry]], received: float) -> None:
        """Keep entries that no outbox has numbered, each with its source, in one transaction. Raises as `append`."""

        def gather(intake: Intake) -> None:
            for source, entry in entries:
                intake.take_loose(source, entry)

        self._keep(gather, received)

    def highest(self, outbox: str) -> int:
        """The highest number of an outbox that is on the disk, 0 where there is none."""
        state = self._outboxes.get(outbox)
        return state.highest if state else 0

    def note_head(self, outbox: str, source: str, head: int) -> None:
        """Remember the highest number that an outbox has given out. It goes to the disk with what is kept next."""
        state = self._told_heads.get(outbox) or self._outboxes.get(outbox) or OutboxState(source, 0, 0)
        if head > state.head or outbox not in self._outboxes:
            self._told_heads[outbox] = state._replace(head=max(head, state.head))

    def warning(self) -> str | None:
        """A sentence where the disk is nearly full, else None."""
        return low_space(self.folder)

    @property
    def records(self) -> int:
        """How many rows are on the disk."""
        return self._rows

    def close(self) -> None:
        """Write down what is left, seal the folder, and let others write. The lock is let go whatever happens."""
        if self._closed:
            return
        self._closed = True
        try:
            with translated(self.folder):
                self._ready()
                self._store(self._intake(0.0, careful=False))
                connection, self._connection = self._connection, None
                if connection:
                    self._end(connection)
        finally:
            self._disconnect()
            self._lock.release()

    def _end(self, connection: Connection) -> None:
        self._disconnect()
        why_not = seal(self.folder, connection)
        if why_not:
            logger.warning("the ledger %s is closed, but not sealed: %s", self.folder, why_not)

    def _keep(self, gather: Callable[[Intake], None], received: float) -> None:
        with translated(self.folder):
            self._ready()
            try:
                intake = self._intake(received, careful=False)
                gather(intake)
                self._store(intake)
            except _UNFIT:
                self._roll_back()
                intake = self._intake(received, careful=True)
                gather(intake)
                self._store(intake)

    def _intake(self, received: float, *, careful: bool) -> Intake:
        intake = Intake(self._rows, self._link, self._outboxes, self._origins, received, careful=careful)
        for outbox, told in self._told_heads.items():
            known = self._outboxes.get(outbox)
            if known is None or told.head > known.head:
                intake.outboxes[outbox] = (known or told)._replace(head=told.head)
        return intake

    def _store(self, intake: Intake) -> None:
        """All of it is on the disk, or an error is raised and nothing is believed until the next `_ready`."""
        if not (intake.rows or intake.outboxes):
            self.repeated += intake.repeated
            return
        try:
            self._objects.put(intake.objects)
            self._commit(intake)
            self._heads().write(self._rows + len(intake.rows), intake.link)
        except (SqliteError, OSError):
            self._failed = True
            self._roll_back()
            raise
        self._believe(intake)

    def _commit(self, intake: Intake) -> None:
        run = self._database()
        run.execute("BEGIN IMMEDIATE")
        new = [(number, *origin) for origin, (number, _) in intake.origins.items()]
        run.executemany("INSERT INTO origins VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)
        rows = intake.rows
        alone = len(rows) % _TOGETHER
        together = [[*chain.from_iterable(rows[at : at + _TOGETHER])] for at in range(alone, len(rows), _TOGETHER)]
        run.executemany(f"INSERT INTO records VALUES {_ROW}", rows[:alone])
        run.executemany(f"INSERT INTO records VALUES {', '.join([_ROW] * _TOGETHER)}", together)
        if intake.parents:
            run.executemany("INSERT INTO parents VALUES (?, ?)", intake.parents)
        if intake.contents:
            run.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?)", intake.contents.items())
        changed = [(name, *state, outbox_checksum(name, state)) for name, state in intake.outboxes.items()]
        run.executemany("INSERT OR REPLACE INTO outboxes VALUES (?, ?, ?, ?, ?, ?)", changed)
        run.execute("COMMIT")

    def _believe(self, intake: Intake) -> None:
        self._rows += len(intake.rows)
        self._link = intake.link
        self._outboxes.update(intake.outboxes)
        self._origins.add(intake.origins)
        self._told_heads.clear()
        self.repeated += intake.repeated
        for refused in intake.refused:
            logger.warning("the ledger %s does not keep %s", self.folder, refused)

    def _roll_back(self) -> None:
        if self._connection and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except SqliteError:
                self._failed = True

    def _ready(self) -> None:
        """After a failure: begin again from what is on the disk."""
        if self._failed or self._connection is None:
            self._disconnect()
            self._connect(after_failure=True)

    def _connect(self, *, after_failure: bool = False) -> None:
        """Open the database, make sure that what it shows is on the disk, and read where it ends."""
        self._failed = True
        self._objects.forget()
        self._connection = connection = open_ledger(self.folder, write=True)
        if schema.version_of(connection) == 0:
            created = f"{time.time():.6f}"
            schema.create(connection, {"session": self.session, "created": created})
        for version in schema.migrate(connection, self.folder):
            logger.warning("the ledger %s was brought from schema version %d to %d", self.folder, version, version + 1)
        self._write_through(connection, after_failure=after_failure)
        self._read_end(connection)
        cut = self._cut_rows()
        self._head = HeadFile(self.folder)
        sync_folder(self.folder)
        if cut:
            self._remember_cut(cut)
        self._head.write(self._rows, self._link)
        self._failed = False

    def _write_through(self, connection: Connection, *, after_failure: bool) -> None:
        """Copy the write-ahead log into the database and sync it: a killed writer may not have synced it, and a failed
        sync may have lost it."""
        busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if not busy and frames == copied:
            return
        if not after_failure:  # somebody reads an earlier state; a sync that has not failed is as good
            sync_file(self.folder / WAL)
        else:
            raise LedgerFailed(self.folder, "a reader holds its state of before; end that program, or wait for it")

    def _read_end(self, connection: Connection) -> None:
        meta = schema.meta_of(connection)
        if meta.get("session") != self.session:
            raise LedgerFailed(self.folder, f"it belongs to the session {meta.get('session')!r}, not {self.session!r}")
        last = connection.execute("SELECT row, link FROM records ORDER BY row DESC LIMIT 1").fetchone()
        self._rows, self._link = last or (0, first_link(self.session, meta["created"]))
        self._origins = OriginCache(connection.execute("SELECT coalesce(max(origin), 0) FROM origins").fetchone()[0])
        known = connection.execute("SELECT outbox, source, highest, head FROM outboxes")
        self._outboxes = {outbox: OutboxState(*state) for outbox, *state in known}

    def _cut_rows(self) -> int:
        """How many rows the head file knows of that are not here any more."""
        head = read_head(self.folder)
        return max(0, head.records - self._rows) if head else 0

    def _remember_cut(self, rows: int) -> None:
        """Rows that were on the disk are gone: say so for ever, in their place."""
        why = f"{rows} rows that had been written were cut off or made unreadable"
        logger.error("the ledger %s is damaged after row %d: %s", self.folder, self._rows, why)
        more = {"first": self._rows + 1, "last": self._rows + rows, "why": why}
        intake = self._intake(time.time(), careful=False)
        intake.take_loose("", Entry(0, "gap", "", "", 0, intake.received, (), "", None, b"", more))
        self._commit(intake)
        self._believe(intake)

    def _disconnect(self) -> None:
        connection, head = self._connection, self._head
        self._connection = self._head = None
        if head:
            head.close()
        if connection:
            connection.close()

    def _database(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def _heads(self) -> HeadFile:
        assert self._head is not None
        return self._head

    def _tell_what_is_left_over(self) -> None:
        """Name what a killed writer has left half-written; remove its unfinished files."""
        for tail in tails(self.folder):
            logger.warning("the ledger %s was not closed: %s", self.folder, tail)
        for part in [*self.folder.glob(f"*{PART}"), *self._objects.folder.rglob(f"*{PART}")]:
            logger.warning("the ledger %s was not closed: %s is half-written, and is removed", self.folder, part.name)
            part.unlink()

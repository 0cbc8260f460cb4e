"""The writer of a session's ledger: records are on the disk before the recorder acknowledges them.

Promises: the numbers that `append` returns are on the disk, once, and stay readable whatever process is killed or
whatever power is cut afterwards. When it raises, nothing of that call is stored, nothing from before is damaged, and
the next call begins from what is on the disk. A folder whose writer was killed can be opened again.

Order of a transaction: large payloads (files in objects/), the database, the file `head`, and only then the writer's
own counts. So what a record refers to is on the disk before the record, and the head never counts a row too many.

The trap: after a sync that failed, the system's cache of the files may hold more than the disk does. So the database is
opened again, and its whole write-ahead log is copied and synced, before any number counts.
"""

from __future__ import annotations

import logging
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
from ether.ledger.sqlite import WAL, Connection, SqliteError, ledger_errors, open_ledger
from ether.ledger.wal import tails
from ether.system.clock import wall_time
from ether.wire.entries import Batch, Entry

logger = logging.getLogger("Ether.store")

_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TOGETHER = 20
"""Rows of one INSERT: 280 of the 999 values that every SQLite takes. A row costs a fifth less than alone."""

_UNFIT = (UnicodeError, OverflowError, ValueError, TypeError)
"""Errors of the database and of JSON for values that they cannot hold."""


class LedgerWriter:
    """Writes one ledger. Not locked: one thread at a time. Made by `LedgerWriter.open`."""

    def __init__(self, folder: Path, session: str, lock: LedgerLock) -> None:
        self.folder, self.session = folder, session
        self.repeated = 0
        """How many entries were offered that were in the ledger already."""
        self._lock = lock
        self._objects = Objects(folder)
        self._connection: Connection | None = None
        self._head: HeadFile | None = None
        # The end of the chain, the outboxes and the origins, as they are on the disk:
        self._rows, self._link = 0, b""
        self._outboxes: dict[str, OutboxState] = {}
        self._origins = OriginCache(0)
        self._noted_heads: dict[str, OutboxState] = {}
        """Heads from `note_head` that the next transaction stores."""
        self._failed = self._closed = False

    @classmethod
    def open(cls, folder: Path, session: str) -> LedgerWriter:
        """Open the folder's ledger, or make it (mode 0700); an older schema is brought up to date.

        Raises `LedgerLocked` where another process writes to it, `SchemaTooNew`, `LedgerDamaged`, `LedgerFull`,
        `LedgerFailed`.
        """
        folder = Path(folder).absolute()
        with ledger_errors(folder):
            make_folder(folder)
            lock = LedgerLock(folder)
        writer = cls(folder, session, lock)
        try:
            with ledger_errors(folder):
                writer._clear_leftovers()
                unseal(folder)
                writer._connect()
        except BaseException:
            writer._disconnect()
            lock.release()
            raise
        return writer

    def append(self, batches: Sequence[Batch], received: float) -> dict[str, int]:
        """Store the new entries of the batches in one transaction; returns for each outbox the highest number on the
        disk. Entries that are in the ledger already are left out, and entries after a hole in the numbers. `received`:
        unix seconds. Raises `LedgerFull`, `LedgerFailed`; then nothing of this call is stored.
        """

        def gather(intake: Intake) -> None:
            for batch in batches:
                intake.take(batch)

        self._append(gather, received)
        return {batch.outbox: self.highest(batch.outbox) for batch in batches}

    def append_loose(self, entries: Sequence[tuple[str, Entry]], received: float) -> None:
        """Store entries without an outbox, each with its source, in one transaction. Raises as `append` does."""

        def gather(intake: Intake) -> None:
            for source, entry in entries:
                intake.take_loose(source, entry)

        self._append(gather, received)

    def highest(self, outbox: str) -> int:
        """The highest number of an outbox that is on the disk, 0 where there is none."""
        state = self._outboxes.get(outbox)
        return state.highest if state else 0

    def note_head(self, outbox: str, source: str, head: int) -> None:
        """Remember the highest number that an outbox has given out. The next transaction stores it."""
        state = self._noted_heads.get(outbox) or self._outboxes.get(outbox) or OutboxState(source, 0, 0)
        if head > state.head or outbox not in self._outboxes:
            self._noted_heads[outbox] = state._replace(head=max(head, state.head))

    def warning(self) -> str | None:
        """A sentence where the disk is nearly full, else None."""
        return low_space(self.folder)

    @property
    def records(self) -> int:
        """How many rows are on the disk."""
        return self._rows

    def close(self) -> None:
        """Store the noted heads, seal the folder, and let others write. The lock is released whatever happens."""
        if self._closed:
            return
        self._closed = True
        try:
            with ledger_errors(self.folder):
                self._ready()
                self._store(self._intake(0.0, careful=False))
                connection, self._connection = self._connection, None
                if connection:
                    try:
                        self._seal(connection)
                    finally:
                        connection.close()
        finally:
            self._disconnect()
            self._lock.release()

    def _seal(self, connection: Connection) -> None:
        self._disconnect()  # closes the head file, which the seal hashes
        why_not = seal(self.folder, connection)
        if why_not:
            logger.warning("the ledger %s is closed, but not sealed: %s", self.folder, why_not)

    # -- one transaction

    def _append(self, gather: Callable[[Intake], None], received: float) -> None:
        """Gather entries and store them: first without checks; where an entry cannot be stored, again with checks,
        which refuse that entry alone."""
        with ledger_errors(self.folder):
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
        for outbox, noted in self._noted_heads.items():
            known = self._outboxes.get(outbox)
            if known is None or noted.head > known.head:
                intake.outboxes[outbox] = (known or noted)._replace(head=noted.head)
        return intake

    def _store(self, intake: Intake) -> None:
        """Bring all of it to the disk. Where an error is raised, the next `_ready` reads the state from the disk."""
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
        self._adopt(intake)

    def _commit(self, intake: Intake) -> None:
        run = self._database()
        run.execute("BEGIN IMMEDIATE")
        new = [(number, *origin) for origin, (number, _) in intake.origins.items()]
        run.executemany("INSERT INTO origins VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)
        rows = intake.rows
        # The rest that fills no whole group comes first, row by row; the order of the rows stays.
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

    def _adopt(self, intake: Intake) -> None:
        """Take over the state after a transaction that is on the disk."""
        self._rows += len(intake.rows)
        self._link = intake.link
        self._outboxes.update(intake.outboxes)
        self._origins.add(intake.origins)
        self._noted_heads.clear()
        self.repeated += intake.repeated
        for refused in intake.refused:
            logger.warning("the ledger %s does not keep %s", self.folder, refused)

    def _roll_back(self) -> None:
        if self._connection and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except SqliteError:
                self._failed = True

    # -- opening, also after a failure

    def _ready(self) -> None:
        """After a failure: open the ledger again, and begin from what is on the disk."""
        if self._failed or self._connection is None:
            self._disconnect()
            self._connect(after_failure=True)

    def _connect(self, *, after_failure: bool = False) -> None:
        """Open the database, make sure that its content is on the disk, and read where the chain ends. `_failed` stays
        true until all of it has succeeded, so that an error in between is followed by another attempt."""
        self._failed = True
        self._objects.forget()
        self._connection = connection = open_ledger(self.folder, write=True)
        if schema.version_of(connection) == 0:
            created = f"{wall_time():.6f}"
            schema.create(connection, {"session": self.session, "created": created})
        for version in schema.migrate(connection, self.folder):
            logger.warning("the ledger %s was brought from schema version %d to %d", self.folder, version, version + 1)
        self._write_through(connection, after_failure=after_failure)
        self._read_end(connection)
        cut = self._cut_rows()  # before HeadFile may write to the file
        self._head = HeadFile(self.folder)
        sync_folder(self.folder)
        if cut:
            self._remember_cut(cut)
        self._head.write(self._rows, self._link)
        self._failed = False

    def _write_through(self, connection: Connection, *, after_failure: bool) -> None:
        """Copy the write-ahead log into the database and sync both. A killed writer may have left a commit that it had
        not synced; and after a failed sync the cache may show pages that never reached the disk, which are written
        again by this."""
        busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if not busy and frames == copied:
            return
        # A reader needs an earlier state of the database, so not all of the log can be copied.
        if not after_failure:  # no sync has failed, so a sync of the log is as good
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
        """How many rows the head file counts that the database does not have any more."""
        head = read_head(self.folder)
        return max(0, head.records - self._rows) if head else 0

    def _remember_cut(self, rows: int) -> None:
        """Rows that were on the disk are lost: put a gap that says so in their place."""
        why = f"{rows} rows that had been written were cut off or made unreadable"
        logger.error("the ledger %s is damaged after row %d: %s", self.folder, self._rows, why)
        more = {"first": self._rows + 1, "last": self._rows + rows, "why": why}
        intake = self._intake(wall_time(), careful=False)
        intake.take_loose("", Entry(0, "gap", "", "", 0, intake.received, (), "", None, b"", more))
        self._commit(intake)
        self._adopt(intake)

    def _disconnect(self) -> None:
        connection, head = self._connection, self._head
        self._connection = self._head = None
        try:
            if head:
                head.close()
        finally:
            if connection:
                connection.close()

    def _database(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def _heads(self) -> HeadFile:
        assert self._head is not None
        return self._head

    def _clear_leftovers(self) -> None:
        """Log what a killed writer has left half-written, and remove its unfinished files."""
        for tail in tails(self.folder):
            logger.warning("the ledger %s was not closed: %s", self.folder, tail)
        for part in [*self.folder.glob(f"*{PART}"), *self._objects.folder.rglob(f"*{PART}")]:
            logger.warning("the ledger %s was not closed: %s is half-written, and is removed", self.folder, part.name)
            part.unlink()

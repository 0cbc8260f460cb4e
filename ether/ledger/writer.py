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

import hashlib
import logging
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ether.errors import LedgerFailed
from ether.ledger import schema
from ether.ledger.durable import PART, low_space, make_folder, sync_file, sync_folder
from ether.ledger.head import NAME as HEAD
from ether.ledger.head import HeadFile, read_head
from ether.ledger.in_place import FilesInPlace, WrittenOver
from ether.ledger.lock import LOCK, LedgerLock
from ether.ledger.objects import Objects
from ether.ledger.rotation import has_end_of, remove_objects_of_closed, rotate
from ether.ledger.rows import LARGE_BYTES, LEAN_LARGE_BYTES, Intake, OriginCache, OutboxState, outbox_checksum
from ether.ledger.seal import seal, unseal
from ether.ledger.sqlite import (
    DATABASE,
    WAL,
    Connection,
    SqliteError,
    close_without_copying,
    copy_log,
    ledger_errors,
    open_ledger,
    page_bytes_of,
    pages_of_database,
)
from ether.ledger.volumes import FOLDER as VOLUMES
from ether.ledger.volumes import beginning_of, closed_volumes, remove_unfinished_rotation
from ether.ledger.wal import tails
from ether.system.clock import wall_time
from ether.wire.entries import Batch, Entry

logger = logging.getLogger("Ether.store")

_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TOGETHER = 20
"""Rows of one INSERT: 280 of the 999 values that every SQLite takes. A row costs a fifth less than alone."""

_LEAN_LOG_BYTES = 8 << 20
"""How long the log of a lean ledger may become before it is copied into the database: each copy writes the pages of
the indexes once more."""
_PAGES_BESIDE = 10
"""About how many pages a commit writes beside new ones: of the indexes, of the outboxes, those that are not full."""
_COPY_SYNCS = 3
"""Syncs of such a copy: of the log, of the database, and of the log where it is begun anew."""

SIGNER = "signer"
"""The name of artifacts that say who has signed."""

_UNFIT = (UnicodeError, OverflowError, ValueError, TypeError)
"""Errors of the database and of JSON for values that they cannot hold."""


class LedgerWriter:
    """Writes one ledger. Not locked: one thread at a time. Made by `LedgerWriter.open`."""

    def __init__(self, folder: Path, session: str, lock: LedgerLock, *, lean: bool = False) -> None:
        self.folder, self.session = folder, session
        self.repeated = 0
        """How many entries were offered that were in the ledger already."""
        self.conflicts = 0
        """How many came under a number that was taken by another content."""
        self._lean = lean
        self._pages_copied = self._commits = 0
        self._lock = lock
        self._lock_file = FilesInPlace(folder / LOCK)
        self._lock_file.note()
        database, log = folder / DATABASE, folder / WAL
        self._files = FilesInPlace(database, log, folder / HEAD, own=(database, log))
        self._is_written_over = self._was_written_over = False
        self._objects = Objects(folder)
        self._connection: Connection | None = None
        self._head: HeadFile | None = None
        # The end of the chain, the outboxes and the origins, as they are on the disk:
        self._rows, self._link = 0, b""
        self._first, self._object_bytes, self._closed_bytes = 1, 0, 0
        self._begun: float | None = None
        self._outboxes: dict[str, OutboxState] = {}
        self._origins = OriginCache(0)
        self._noted_heads: dict[str, OutboxState] = {}
        """Heads from `note_head` that the next transaction stores."""
        self._failed = self._closed = False
        self._signers: set[str] = set()
        """By its SHA-256 what says who has signed, as far as it is known to be in the database."""

    @classmethod
    def open(cls, folder: Path, session: str, *, lean: bool = False) -> LedgerWriter:
        """Open the folder's ledger, or make it (mode 0700); an older schema is brought up to date.

        `lean` writes and syncs less, for cards that wear out: payloads of up to `rows.LEAN_LARGE_BYTES` are in their
        rows, new databases have small pages, their log is copied only by `copy_log`, and a commit does not sync the
        head, so that after a power cut a cut-off end is noticed only up to the last head that the system had written.

        Raises `LedgerLocked` where another process writes to it, `SchemaTooNew`, `LedgerDamaged`, `LedgerFull`,
        `LedgerFailed`.
        """
        folder = Path(folder).absolute()
        with ledger_errors(folder):
            make_folder(folder)
            lock = LedgerLock(folder)
        writer = cls(folder, session, lock, lean=lean)
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

    def append(
        self, batches: Sequence[Batch], received: float, loose: Sequence[tuple[str, Entry]] = ()
    ) -> dict[str, int]:
        """Store the new entries of the batches in one transaction; returns for each outbox the highest number on the
        disk. Entries that are in the ledger already are left out, and entries after a hole in the numbers. `received`:
        unix seconds. `loose`: entries without an outbox, each with its source. Raises `LedgerFull`, `LedgerFailed`;
        then nothing of this call is stored.
        """

        def gather(intake: Intake) -> None:
            for batch in batches:
                if batch.signature is not None:
                    self._take_signer(intake, batch.source, batch.signature.signer)
                intake.take(batch)
            for source, entry in loose:
                intake.take_loose(source, entry)

        self._append(gather, received)
        return {batch.outbox: self.highest(batch.outbox) for batch in batches}

    def append_loose(self, entries: Sequence[tuple[str, Entry]], received: float) -> None:
        """Store entries without an outbox, each with its source, in one transaction. Raises as `append` does."""
        self.append((), received, entries)

    def _take_signer(self, intake: Intake, source: str, signer: bytes) -> None:
        """Keep what says who has signed, once in each volume."""
        sha256 = hashlib.sha256(signer).hexdigest()
        if sha256 in self._signers or sha256 in intake.contents:
            return
        known = self._database().execute("SELECT 1 FROM contents WHERE sha256 = ?", (sha256,)).fetchone()
        if known:
            self._signers.add(sha256)
            return
        about = Entry(0, "artifact", SIGNER, sha256, 0, intake.received, (), "", "application/json", signer)
        intake.take_loose(source, about)

    def signers(self) -> dict[str, bytes]:
        """By outbox, of those whose batches in the current volume are signed: what says who has signed."""
        found = self._database().execute(
            "SELECT topic, payload FROM origins JOIN contents ON sha256 = context"
            " WHERE kind = 'signature' ORDER BY origin"
        )
        return dict(found.fetchall())

    @property
    def link(self) -> str:
        """The last link of the chain that is on the disk, in hexadecimal."""
        return self._link.hex()

    def highest(self, outbox: str) -> int:
        """The highest number of an outbox that is on the disk, 0 where there is none."""
        state = self._outboxes.get(outbox)
        return state.highest if state else 0

    def source(self, outbox: str) -> str | None:
        """Whose outbox it is; None for one of which nothing is on the disk."""
        state = self._outboxes.get(outbox)
        return state.source if state else None

    def note_head(self, outbox: str, source: str, head: int) -> None:
        """Remember the highest number that an outbox has given out. The next transaction stores it."""
        state = self._noted_heads.get(outbox) or self._outboxes.get(outbox) or OutboxState(source, 0, 0)
        if head > state.head or outbox not in self._outboxes:
            self._noted_heads[outbox] = state._replace(head=max(head, state.head))

    def warning(self) -> str | None:
        """A sentence where the disk is nearly full, else None."""
        try:
            return low_space(self.folder)
        except OSError:  # the folder is gone, which the next transaction says
            return None

    @property
    def records(self) -> int:
        """How many rows are on the disk."""
        return self._rows

    @property
    def grown_bytes(self) -> int | None:
        """Bytes of the databases of all volumes that this writer has had, and of the large payloads that it has put: to
        be compared with earlier. None while that is not known, after a failure."""
        if self._connection is None:
            return None
        try:
            database_bytes = pages_of_database(self._connection) * page_bytes_of(self._connection)
        except SqliteError:  # which the next transaction says
            return None
        return self._closed_bytes + database_bytes + self._objects.put_bytes

    @property
    def size_bytes(self) -> int:
        """How many bytes the current volume has on the disk; its payloads in objects/ as far as they came since it was
        opened or begun."""
        files = (self.folder / DATABASE, self.folder / WAL)
        return self._object_bytes + sum(path.stat().st_size for path in files if path.exists())

    @property
    def begun(self) -> float | None:
        """Unix seconds when the first row of the current volume came; None where it is empty."""
        return self._begun

    def copy_log(self) -> int:
        """Copy the log of a lean ledger into its database, if it has become long; returns how many syncs that took. It
        is no part of what `append` promises: where it fails, the log stays, and is read with the next opening."""
        if not self._lean or self._connection is None or self._failed:
            return 0
        try:
            new = pages_of_database(self._connection) - self._pages_copied
            if (new + self._commits * _PAGES_BESIDE) * page_bytes_of(self._connection) < _LEAN_LOG_BYTES:
                return 0
            self._files.check_untouched()
            copy_log(self._connection)
            self._files.leave()
            self._pages_copied, self._commits = pages_of_database(self._connection), 0
        except (SqliteError, OSError) as error:
            self._is_written_over = isinstance(error, WrittenOver)
            logger.warning("the log of the ledger %s cannot be copied into its database: %s", self.folder, error)
            self._failed = True
        return _COPY_SYNCS

    def rotate(self, now: float) -> str | None:
        """Close the current volume, and go on in a new one; returns the reason where that is not possible now, else
        None. An empty volume stays. `now`: unix seconds. Raises `LedgerFull`, `LedgerFailed`; then the ledger is what
        it was before, or rotated, and the next call goes on."""
        with ledger_errors(self.folder):
            self._ready()
            self._store(self._intake(now, careful=False))  # the noted heads
            if self._rows < self._first:
                return None
            connection, self._connection = self._database(), None
            self._failed = True  # `_ready` opens it again, whatever comes of this
            self._disconnect()
            closed_bytes = (self.folder / DATABASE).stat().st_size
            try:
                why_not = rotate(self.folder, connection, now, lean=self._lean)
            finally:
                connection.close()
            if why_not is None:
                self._closed_bytes += closed_bytes
            self._connect()
        return why_not

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
        intake = Intake(
            self._rows, self._link, self._outboxes, self._origins, received, careful=careful,
            is_kept=self._are_kept, large_bytes=LEAN_LARGE_BYTES if self._lean else LARGE_BYTES,
        )  # fmt: skip
        for outbox, noted in self._noted_heads.items():
            known = self._outboxes.get(outbox)
            if known is None or noted.head > known.head:
                intake.outboxes[outbox] = (known or noted)._replace(head=noted.head)
        return intake

    def _are_kept(self, outbox: str, entries: Sequence[Entry]) -> list[bool]:
        """Whether these entries, whose numbers this ledger has, are kept as they are. What is in a closed volume, was
        deleted or given up is not asked for: nothing is known of it."""
        run = self._database()
        same = (
            "SELECT kind, outbox, number, time, payload, sha256, content_type, topic FROM entries WHERE id = ?"
            " AND (outbox = ? OR kind = 'conflict')"
        )
        kept = [any(_says(row, outbox, each) for row in run.execute(same, (each.id, outbox))) for each in entries]
        if not all(kept):
            numbers = [each.number for each in entries]
            held = (
                "SELECT number FROM records WHERE origin IN"
                " (SELECT origin FROM origins WHERE outbox = ? AND kind != 'gap') AND number BETWEEN ? AND ?"
            )
            taken = {number for (number,) in run.execute(held, (outbox, min(numbers), max(numbers)))}
            kept = [is_kept or each.number not in taken for is_kept, each in zip(kept, entries, strict=True)]
        return kept

    def _store(self, intake: Intake) -> None:
        """Bring all of it to the disk. Where an error is raised, the next `_ready` reads the state from the disk."""
        if not (intake.rows or intake.outboxes):
            self.repeated += intake.repeated
            return
        try:
            self._files.check_untouched()
            self._objects.put(intake.objects)
            self._commit(intake)
            self._heads().write(self._rows + len(intake.rows), intake.link, sync=not self._lean)
            self._files.note()
            self._files.check()  # after all that was written: what went into a file without a name does not count
            self._files.leave()
        except (SqliteError, OSError) as error:
            self._failed, self._is_written_over = True, isinstance(error, WrittenOver)
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
        self._commits += 1

    def _adopt(self, intake: Intake) -> None:
        """Take over the state after a transaction that is on the disk."""
        self._rows += len(intake.rows)
        self._link = intake.link
        if intake.rows and self._begun is None:
            self._begun = intake.received
        self._object_bytes += sum(map(len, intake.objects.values()))
        self._outboxes.update(intake.outboxes)
        self._origins.add(intake.origins)
        self._noted_heads.clear()
        self.repeated += intake.repeated
        self.conflicts += intake.conflicts
        if intake.conflicts:
            logger.error(
                "the ledger %s had %d entries with another content under the same number of their outbox: both are"
                " kept, and `ether status` names them. Somebody sends in the name of another program, or a disk was"
                " copied.",
                self.folder, intake.conflicts,
            )  # fmt: skip
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
            self._lock_again()
            self._connect(after_failure=True)

    def _lock_again(self) -> None:
        """The whole folder may have been removed or replaced: then the lock that this writer holds keeps nobody out of
        the one that stands there now."""
        make_folder(self.folder)
        try:
            self._lock_file.check()
        except OSError:
            self._lock_file.forget()
            self._lock.release()
            self._lock = LedgerLock(self.folder)
            self._lock_file.note()

    def _connect(self, *, after_failure: bool = False) -> None:
        """Open the database, make sure that its content is on the disk, and read where the chain ends. `_failed` stays
        true until all of it has succeeded, so that an error in between is followed by another attempt."""
        self._failed = True
        before = self._rows, self._link
        self._objects.forget()
        self._signers.clear()
        self._connection = connection = open_ledger(self.folder, write=True, lean=self._lean)
        if schema.version_of(connection) == 0:
            self._refuse_to_begin_anew()
            created = f"{wall_time():.6f}"
            schema.create(connection, {"session": self.session, "created": created})
        for version in schema.migrate(connection, self.folder):
            logger.warning("the ledger %s was brought from schema version %d to %d", self.folder, version, version + 1)
        self._write_through(connection, after_failure=after_failure)
        self._finish_rotation(connection)
        self._read_end(connection)
        if self._was_written_over and before == (self._rows, self._link):
            self._files.trusts_times = False  # nothing was changed: this disk notes times late
        self._was_written_over = False
        self._pages_copied, self._commits = pages_of_database(connection), 0
        cut = self._cut_rows()  # before HeadFile may write to the file
        self._head = HeadFile(self.folder)
        sync_folder(self.folder)
        if cut:
            self._remember_cut(cut)
        self._head.write(self._rows, self._link)
        self._files.note()
        self._files.leave()
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
        beginning = beginning_of(meta)
        self._first = beginning.first
        oldest = connection.execute("SELECT received FROM records ORDER BY row LIMIT 1").fetchone()
        self._begun = oldest[0] if oldest else None
        self._rows, self._link = last or (beginning.first - 1, beginning.follows)
        self._object_bytes = sum(path.stat().st_size for path in self._objects.files())
        self._origins = OriginCache(connection.execute("SELECT coalesce(max(origin), 0) FROM origins").fetchone()[0])
        known = connection.execute("SELECT outbox, source, highest, head FROM outboxes")
        self._outboxes = {outbox: OutboxState(*state) for outbox, *state in known}

    def _refuse_to_begin_anew(self) -> None:
        """A new first volume beside closed ones would be another ledger."""
        if closed_volumes(self.folder):
            why = f"its {DATABASE} is gone, and its closed volumes are there; put it back, or move them away"
            raise LedgerFailed(self.folder, why)

    def _finish_rotation(self, connection: Connection) -> None:
        """Remove what a writer that was killed in the middle of a rotation has left: a closed volume whose rows are
        those of the current one. Any other one that is not before the current volume may have rows that nobody else
        has: then the current one was put back from an older copy."""
        number = beginning_of(schema.meta_of(connection)).volume
        for closed in closed_volumes(self.folder):
            if closed.number >= number and not has_end_of(connection, closed):
                why = f"{closed.folder.name} in {VOLUMES} goes beyond it: {DATABASE} is older than its closed volumes"
                raise LedgerFailed(self.folder, f"{why}; put back the ledger as a whole, or move that volume away")
        remove_unfinished_rotation(self.folder, number)
        if number > 1:
            remove_objects_of_closed(self.folder, number - 1)

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
        self._files.forget()
        try:
            if head:
                head.close()
        finally:
            self._was_written_over, self._is_written_over = self._is_written_over, False
            if connection and self._was_written_over:
                close_without_copying(connection, self.folder)
            elif connection:
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


def _says(row: tuple[Any, ...], outbox: str, entry: Entry) -> bool:
    """Whether a row says what an entry says: its own, or the conflict that it has become before."""
    kind, of, number, time, payload, sha256, content_type, topic = row
    if kind != "conflict" and (of, number, kind) != (outbox, entry.number, entry.kind):
        return False
    content = payload == entry.payload if sha256 is None else sha256 == hashlib.sha256(entry.payload).hexdigest()
    return bool(content and time == entry.time + 0.0 and (content_type, topic) == (entry.content_type, entry.topic))

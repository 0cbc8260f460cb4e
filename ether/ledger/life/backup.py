"""A ledger's copy in another folder, made while its recorder writes, and brought up to date by the same command.

A backup is a ledger itself: it can be read, verified, and backed up again. Closed volumes are copied once, as files; of
the current volume the rows that the backup does not have. A volume that the backup has stays as it is there, also when
rows of it were deleted from the ledger, or it was compressed.

Promises: the source is only read (but for its file `backups`). After `back_up` the backup is sealed and has every row
that was acknowledged when it began. One that was killed in the middle is a whole ledger with fewer rows, whose seal may
be missing, and the next one goes on. The trap: a backup has no locks of its ledger. Rows that are deleted in the ledger
are deleted in the backup by deleting them there, too.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ether.errors import LedgerDamaged, LedgerFailed, LedgerLocked
from ether.ledger import schema
from ether.ledger.durable import PART, append_line, make_folder, sync_file, sync_folder
from ether.ledger.head import HeadFile
from ether.ledger.life.copying import RowCopy, Snapshot, copy_volume, remove_unneeded_objects, snapshot_of
from ether.ledger.lock import LedgerLock, is_held
from ether.ledger.objects import Objects
from ether.ledger.reader import LedgerReader, VolumeReader
from ether.ledger.rotation import payloads_of
from ether.ledger.seal import SEAL, seal, unseal
from ether.ledger.sqlite import (
    DATABASE,
    SHARED_MEMORY,
    WAL,
    Connection,
    SqliteError,
    ledger_errors,
    open_ledger,
    open_new,
    swapping,
)
from ether.ledger.volumes import (
    BACKUPS,
    FOLDER,
    beginning_of,
    closed_volumes,
    remove_replaced,
    remove_tree,
)

_TRIES = 5
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class BackupReport(NamedTuple):
    """What a backup has done."""

    folder: Path
    backup: Path
    volumes: int
    """Closed volumes that were copied now."""
    rows: int
    """Rows of the current volume that were copied now."""
    bytes: int
    """Bytes that were copied now."""
    last: int
    """The last row of the backup: all before it are in it, too."""
    link: str
    """The link of that row: kept elsewhere, it proves later what the backup had."""


def back_up(folder: Path, backup: Path, now: float) -> BackupReport:
    """Bring the backup of a ledger up to date, or make it; `now` in unix seconds. Raises `LedgerFailed` where the
    folder is no backup of this ledger, `LedgerLocked` where another backup goes to it, `LedgerDamaged` where the ledger
    is damaged, `LedgerFull`."""
    done = _copied(folder, backup)
    with ledger_errors(done.folder):
        _note(done, now)
    return done


def _copied(folder: Path, backup: Path) -> BackupReport:
    folder, backup = Path(folder).absolute(), Path(backup).absolute()
    if backup == folder or folder in backup.parents:
        raise LedgerFailed(backup, f"it is in the folder of the ledger {folder}; a backup belongs elsewhere")
    with ledger_errors(backup):
        _refuse_other_content(backup)
        make_folder(backup)
        lock = LedgerLock(backup)
    try:
        with ledger_errors(backup):
            _remove_unfinished_files(backup)
        for _ in range(_TRIES):
            with LedgerReader.open(folder) as reader, ledger_errors(backup):
                current = reader.volumes[-1]
                try:
                    return _Backup(folder, backup, reader).run()
                except (LedgerDamaged, SqliteError):
                    if not current.has_moved():  # its volume was closed, or opened by a writer, in the middle of it
                        raise
        raise LedgerFailed(folder, "its volumes are closed faster than they are copied; try again")
    finally:
        lock.release()


def _refuse_other_content(backup: Path) -> None:
    if not backup.is_dir() or (backup / DATABASE).exists() or (backup / FOLDER).is_dir():
        return
    other = [path.name for path in backup.iterdir() if path.name not in ("lock", "writer") and PART not in path.name]
    if other:
        raise LedgerFailed(backup, f"something else is in it ({other[0]}); name a folder that is empty or not there")


def _remove_unfinished_files(backup: Path) -> None:
    """What a killed backup was writing: a database, a file of the seal. For who holds the lock."""
    for path in backup.glob(f"*{PART}"):
        if path.is_file():
            path.unlink()


class _Backup:
    """One backup of one ledger."""

    def __init__(self, folder: Path, backup: Path, reader: LedgerReader) -> None:
        self._folder, self._backup, self._reader = folder, backup, reader
        self._volumes = self._rows = self._bytes = 0
        self._is_empty = not (backup / DATABASE).exists()

    def run(self) -> BackupReport:
        current = self._reader.volumes[-1]
        snapshot = snapshot_of(current.connect(), current.beginning.first - 1)
        number = current.beginning.volume
        if not self._is_empty:
            self._check_kin(snapshot)
        if not self._is_up_to_date(number, snapshot.last):
            unseal(self._backup)
            self._copy_closed(number)
            link = self._copy_current(current, snapshot)
        else:
            link = self._last_link()
        return BackupReport(self._folder, self._backup, self._volumes, self._rows, self._bytes, snapshot.last, link)

    def _check_kin(self, snapshot: Snapshot) -> None:
        """Raise `LedgerFailed` where the backup is of another ledger, or has more than this one."""
        ledger = self._folder
        with LedgerReader.open(self._backup) as there:
            if there.session != self._reader.session:
                why = f"it is of the session {there.session!r}, and {ledger} is of {self._reader.session!r}"
                raise LedgerFailed(self._backup, why)
            last = there.count()
            self._is_empty = last == 0
            if last > snapshot.last:
                why = (
                    f"it has rows {snapshot.last + 1:,} to {last:,}, which the ledger {ledger} does not have (any more)"
                )
                raise LedgerFailed(self._backup, f"{why}; restore from it, or name another folder")
            theirs, ours = there.by_row(last), self._reader.by_row(last)
            if theirs is not None and ours is not None and theirs.link != ours.link:
                raise LedgerFailed(self._backup, f"it is of another ledger than {ledger}: row {last:,} is another one")

    def _is_up_to_date(self, number: int, last: int) -> bool:
        if not (self._backup / SEAL).exists() or not (self._backup / DATABASE).exists():
            return False
        there = {closed.number for closed in closed_volumes(self._backup, number)}
        if not there >= {closed.number for closed in closed_volumes(self._folder, number)}:
            return False
        with LedgerReader.open(self._backup) as backed_up:
            return (backed_up.volumes[-1].beginning.volume, backed_up.count()) == (number, last)

    def _last_link(self) -> str:
        with LedgerReader.open(self._backup) as backed_up:
            volume = backed_up.volumes[-1]
            found = volume.by_row(volume.count())
            return found.link if found is not None else volume.beginning.follows.hex()

    def _copy_closed(self, below: int) -> None:
        """Copy the closed volumes that the backup does not have. Its current volume keeps step with them, so that it is
        a whole ledger after each."""
        make_folder(self._backup / FOLDER)
        remove_replaced(self._backup, below)
        there = {closed.number for closed in closed_volumes(self._backup, below)}
        current = self._current_of_backup()
        for closed in closed_volumes(self._folder, below):
            if closed.number not in there:
                self._bytes += self._copy_one(closed.number)
                self._volumes += 1
            if closed.number == current:
                self._begin_behind(closed.number)
                current += 1

    def _current_of_backup(self) -> int | None:
        """The number of the backup's current volume; None where it has nothing yet."""
        if self._is_empty:
            return None
        connection = open_ledger(self._backup, write=False)
        try:
            return beginning_of(schema.meta_of(connection)).volume
        finally:
            connection.close()

    def _begin_behind(self, number: int) -> None:
        """The backup's current volume, of this number, is there as a closed one: go on in an empty one."""
        readers = {reader.number: reader for reader in self._reader.volumes}
        meta = schema.meta_of(readers[number + 1].connect())
        before = readers[number].connect().execute("SELECT * FROM outboxes").fetchall()
        with self._new_current() as target:
            schema.create(target, meta)
            target.execute("BEGIN")
            target.executemany("INSERT INTO outboxes VALUES (?, ?, ?, ?, ?, ?)", before)
            target.execute("COMMIT")
        beginning = beginning_of(meta)
        self._write_head(beginning.first - 1, beginning.follows)

    def _copy_one(self, number: int) -> int:
        for _ in range(_TRIES):
            found = next((each for each in closed_volumes(self._folder) if each.number == number), None)
            if found is None:
                break
            try:
                return copy_volume(found, self._backup / FOLDER)
            except FileNotFoundError:
                if found.folder.is_dir():
                    raise LedgerDamaged(found.folder, "its files", "one of them is missing") from None
        raise LedgerFailed(self._folder, f"its volume {number} was replaced while it was copied; try again")

    def _copy_current(self, current: VolumeReader, snapshot: Snapshot) -> str:
        """Bring the backup's current volume up to the snapshot; returns the link of its last row."""
        if self._current_of_backup() is None:
            with self._new_current() as target:
                schema.create(target, snapshot.meta)
                link = self._append(current, target, snapshot)
        else:
            connection = open_ledger(self._backup, write=True)
            try:
                link = self._append(current, connection, snapshot)
            finally:
                connection.close()
        self._write_head(snapshot.last, link)
        connection = open_ledger(self._backup, write=True)
        try:
            remove_unneeded_objects(self._backup, payloads_of(connection))
            why_not = seal(self._backup, connection)
        finally:
            connection.close()
        if why_not:
            raise LedgerFailed(self._backup, f"it is up to date, and could not be sealed: {why_not}")
        return link.hex()

    def _write_head(self, last: int, link: bytes) -> None:
        head = HeadFile(self._backup)
        try:
            head.write(last, link)
        finally:
            head.close()

    def _append(self, current: VolumeReader, target: Connection, snapshot: Snapshot) -> bytes:
        """Copy the rows that the target does not have, in one transaction; returns the link of the last."""
        beginning = current.beginning
        ends = target.execute("SELECT row, link FROM records ORDER BY row DESC LIMIT 1").fetchone()
        last, link = ends or (beginning.first - 1, beginning.follows)
        copy = RowCopy(current.folder, current.connect(), target, Objects(self._backup))
        target.execute("BEGIN IMMEDIATE")
        link = copy.copy(last, link, snapshot.last)
        target.executemany("INSERT OR REPLACE INTO outboxes VALUES (?, ?, ?, ?, ?, ?)", snapshot.outboxes)
        target.execute("COMMIT")
        self._rows, self._bytes = copy.rows, self._bytes + copy.bytes
        return link

    @contextmanager
    def _new_current(self) -> Iterator[Connection]:
        """A new database, which takes the place of the backup's current volume after the block."""
        part = self._backup / f"{DATABASE}.{os.urandom(4).hex()}{PART}"
        with open_new(part) as target:
            yield target
        sync_file(part)
        with swapping:
            (self._backup / WAL).unlink(missing_ok=True)
            (self._backup / SHARED_MEMORY).unlink(missing_ok=True)
            os.replace(part, self._backup / DATABASE)
        sync_folder(self._backup)


def _note(done: BackupReport, now: float) -> None:
    """Note in the ledger what the backup has. A ledger that cannot be written to (on a read-only disk) does without."""
    # Added in one write, so that two backups that end at once lose neither line; a torn line ends before the next one.
    line = json.dumps({"backup": str(done.backup), "at": now, "last": done.last, "link": done.link})
    try:
        append_line(done.folder / BACKUPS, line)
        sync_folder(done.folder)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise


def backups_of(folder: Path) -> list[dict[str, Any]]:
    """The backups that were made of a ledger, as each was brought up to date last: `backup` (its folder), `at` (unix
    seconds), `last` (its last row), `link` (that of this row)."""
    try:
        lines = (folder / BACKUPS).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get("last"), int):
            found.pop(str(told.get("backup")), None)
            found[str(told.get("backup"))] = told
    return list(found.values())


def restore(backup: Path, folder: Path, *, aside: Path | None = None) -> BackupReport:
    """Put a ledger back from its backup. What stands in the folder is moved to `aside`; without that the folder has to
    be empty or missing. Raises as `back_up` does, and `LedgerLocked` where a recorder writes to the folder.

    The copy is made beside the folder: one that is killed changes nothing there, and the next one goes on with it."""
    folder = Path(folder).absolute()
    part = folder.with_name(f"{folder.name}{PART}")
    with ledger_errors(folder):
        something = folder.is_dir() and any(folder.iterdir())
        if something and aside is None:
            raise LedgerFailed(folder, "something is in it, and nothing is overwritten; name another folder")
        if something and is_held(folder):
            raise LedgerLocked(folder, "a recorder that runs")
        if part.is_dir() and not _is_begun(part, backup):
            remove_tree(part)
    done = _copied(backup, part)
    with ledger_errors(folder):
        if something and is_held(folder):  # one that was started meanwhile
            raise LedgerLocked(folder, "a recorder that runs")
        if something and aside is not None:
            os.rename(folder, aside)
        elif folder.is_dir():
            folder.rmdir()
        os.rename(part, folder)
        sync_folder(folder.parent)
    return done._replace(backup=folder)


def _is_begun(part: Path, backup: Path) -> bool:
    """Whether an unfinished copy is one of this backup. Any other has nothing that its own backup does not have."""
    if not (part / DATABASE).exists():
        return False
    with LedgerReader.open(part) as begun, LedgerReader.open(backup) as whole:
        last = begun.count()
        theirs, ours = begun.by_row(last), whole.by_row(last)
        return begun.session == whole.session and (
            not last or (theirs and ours and theirs.link) == (ours and ours.link)
        )

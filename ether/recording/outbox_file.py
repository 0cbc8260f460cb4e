"""The outbox of one process on disk: rows of entries that no recorder has acknowledged yet, each row under the number
of its last entry.

One SQLite file for each process and session, `<source>~<id>.outbox` (the source escaped as folders are), held by the
operating system's lock for as long as its process lives. What was appended survives a kill at once, a power cut after
`sync()`.

Promises: rows are read in the order of their numbers; a file whose process died is opened by whoever
comes next (`adopt`), with all that was appended, and by one of them only. One that is empty when closed is removed.

The trap: the lock is SQLite's (exclusive locking mode), so nobody else can even look into a file that is in use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from ether.errors import OutboxFailed
from ether.ledger.durable import make_folder, sync_folder
from ether.ledger.places import folder_name
from ether.ledger.sqlite import Connection, OperationalError, SqliteError, open_locked, transaction
from ether.wire.entries import first_of, unpack_entries

SUFFIX = ".outbox"
_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, packed BLOB NOT NULL)",
)

_ENDINGS = ("", "-wal", "-shm", "-journal")
"""What SQLite adds to a database's name."""

Row = tuple[int, bytes]
"""A number, and entries as they are packed, of which the last has that number."""


class OutboxFile:
    """One outbox. Not locked between threads: one thread uses it."""

    def __init__(self, path: Path, database: Connection, outbox: str, source: str) -> None:
        """Made by `create` and `adopt`."""
        self.path, self.outbox, self.source = path, outbox, source
        self._database = database
        self._named = False
        first, last, count, size = database.execute(
            "SELECT MIN(number), MAX(number), COUNT(*), TOTAL(LENGTH(packed)) FROM entries"
        ).fetchone()
        self.first: int | None = first
        """No row has a lower number; None where there is none."""
        self.last: int = last or int(_meta(database).get("head", 0))
        """The highest number that was ever appended."""
        self.count: int = count
        """How many rows there are."""
        self.size: int = int(size)
        """Bytes of the rows."""

    @classmethod
    def create(cls, folder: Path, source: str) -> OutboxFile:
        """A new one; makes the folder. Raises `OutboxFailed`."""
        try:
            make_folder(folder)
            while True:
                outbox = os.urandom(8).hex()
                path = folder / f"{folder_name(source)}~{outbox}{SUFFIX}"
                if (database := _made(path)) is not None:
                    break  # else somebody who looks for orphans was faster, and removes it
            with transaction(database):  # all of it or nothing: a half-made one would be taken for a damaged one
                for statement in _SCHEMA:
                    database.execute(statement)
                database.executemany("INSERT INTO meta VALUES (?, ?)", [("outbox", outbox), ("source", source)])
        except (OSError, SqliteError) as error:
            raise OutboxFailed(str(folder), error) from error
        return cls(path, database, outbox, source)

    @property
    def base(self) -> int:
        """The number before the first that is there."""
        if self.first is None:
            return self.last
        [(_, packed)] = self.read(self.first, self.last, 1, 1)
        return first_of(unpack_entries(packed)[0]) - 1

    # -- rows

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows, of entries from `last` + 1 on. They survive a kill of this process from now on. Raises
        `OutboxFailed`; nothing of them is there then."""
        if not rows:
            return
        try:
            with transaction(self._database):
                self._database.executemany("INSERT INTO entries VALUES (?, ?)", rows)
        except SqliteError as error:
            raise OutboxFailed(str(self.path), error) from error
        self.first = rows[0][0] if self.first is None else self.first
        self.last = rows[-1][0]
        self.count += len(rows)
        self.size += sum(len(packed) for _, packed in rows)

    def read(self, first: int, last: int, max_count: int, max_bytes: int) -> list[Row]:
        """Rows that hold a number or a higher one, at least one where there is one."""
        found: list[Row] = []
        size = 0
        query = "SELECT number, packed FROM entries WHERE number BETWEEN ? AND ? ORDER BY number LIMIT ?"
        with closing(self._database.execute(query, (first, last, max_count))) as cursor:
            for number, packed in cursor:
                size += len(packed)
                if found and size > max_bytes:
                    break
                found.append((number, packed))
        return found

    def drop(self, upto: int) -> None:
        """Forget what was acknowledged. Raises `OutboxFailed`."""
        self._delete(upto)

    def replace(self, upto: int, gap: Row) -> None:
        """Put one row, of number `upto`, in the place of all up to it. Raises `OutboxFailed`."""
        self._delete(upto, gap)

    def exchange(self, number: int, rows: Sequence[Row]) -> None:
        """Put others, the last of them of this number, in the place of the row of this number, if that is there. Raises
        `OutboxFailed`."""
        try:
            with transaction(self._database):
                asked = "SELECT LENGTH(packed) FROM entries WHERE number = ?"
                before = self._database.execute(asked, (number,)).fetchone()
                if before is None:
                    return
                self._database.execute("DELETE FROM entries WHERE number = ?", (number,))
                self._database.executemany("INSERT INTO entries VALUES (?, ?)", rows)
        except SqliteError as error:
            raise OutboxFailed(str(self.path), error) from error
        self.size += sum(len(packed) for _, packed in rows) - before[0]
        self.count += len(rows) - 1
        self.first = min(self.first or number, rows[0][0])

    def sync(self) -> None:
        """Returns when all that was appended survives a power cut. Raises `OutboxFailed`."""
        try:
            self._database.execute("PRAGMA synchronous=FULL")
            with transaction(self._database):
                self._database.execute("INSERT OR REPLACE INTO meta VALUES ('head', ?)", (str(self.last),))
            if not self._named:
                sync_folder(self.path.parent)
                self._named = True
        except (OSError, SqliteError) as error:
            raise OutboxFailed(str(self.path), error) from error
        finally:
            self._database.execute("PRAGMA synchronous=NORMAL")

    def close(self) -> None:
        """Let go of it; an empty one is removed. Twice is fine."""
        empty = self.count == 0
        with suppress(SqliteError):
            self._database.close()
        if empty:
            for ending in _ENDINGS:
                Path(f"{self.path}{ending}").unlink(missing_ok=True)

    def _delete(self, upto: int, gap: Row | None = None) -> None:
        if self.first is None or (gap is None and upto < self.first):
            return
        try:
            with transaction(self._database):
                going = "SELECT COUNT(*), TOTAL(LENGTH(packed)) FROM entries WHERE number <= ?"
                count, size = self._database.execute(going, (upto,)).fetchone()
                self._database.execute("DELETE FROM entries WHERE number <= ?", (upto,))
                if gap is not None:
                    self._database.execute("INSERT INTO entries VALUES (?, ?)", gap)
                    count, size = count - 1, size - len(gap[1])
        except SqliteError as error:
            raise OutboxFailed(str(self.path), error) from error
        self.count -= count
        self.size -= int(size)
        self.first = None if self.count == 0 else upto if gap is not None else upto + 1


def adopt(folder: Path) -> Iterator[OutboxFile]:
    """The outboxes in a folder whose processes are dead, each to be closed. A file that is damaged is put aside as
    `….damaged`; one that cannot be read now (a full disk) is left. Both are named by the `OutboxFailed` that this
    raises when all others have been given."""
    unread: list[tuple[Path, Exception]] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            found = _adopted(path)
        except (OSError, OperationalError) as error:
            unread.append((path, error))
            continue
        except (SqliteError, KeyError) as error:
            _put_aside(path)
            unread.append((path, error))
            continue
        if found is not None:
            yield found
    for path, why in unread:
        raise OutboxFailed(str(path), why)


def _put_aside(path: Path) -> None:
    for ending in ("", "-wal"):
        with suppress(OSError):
            Path(f"{path}{ending}").rename(f"{path}.damaged{ending}")


def _adopted(path: Path) -> OutboxFile | None:
    """None where it lives, is gone, or holds nothing."""
    try:
        database = _opened(path, new=False)
    except OperationalError:
        if not path.exists():
            return None
        raise
    if database is None:
        return None
    try:
        tables = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if tables:
            told = _meta(database)
            found = OutboxFile(path, database, told["outbox"], told["source"])
            if found.count:
                return found
            found.close()
            return None
    except (SqliteError, KeyError):
        database.close()
        raise
    _remove(path, database)  # its maker died before it had written anything, or has not yet
    return None


def _made(path: Path) -> Connection | None:
    """A new database, locked; None where who looks for orphans has taken it for one before it was locked."""
    try:
        database = _opened(path, new=True)
    except OperationalError:
        if path.exists():
            raise
        return None
    if database is not None and not path.exists():
        database.close()
        return None
    return database


def _remove(path: Path, database: Connection) -> None:
    """Under the lock, so that a maker who waits for it finds that the file is gone. Windows keeps open files."""
    with suppress(PermissionError):
        path.unlink(missing_ok=True)
    database.close()
    for ending in _ENDINGS:
        Path(f"{path}{ending}").unlink(missing_ok=True)


def _opened(path: Path, *, new: bool) -> Connection | None:
    """The database, locked; None where another process holds it."""
    return open_locked(path, new=new)


def _meta(database: Connection) -> dict[str, str]:
    return dict(database.execute("SELECT key, value FROM meta"))

"""The outbox of one process on disk: rows of entries that no recorder has acknowledged yet.

One SQLite file for each process and session, `<source>~<id>.outbox` (the source escaped as names of folders are). A row
is a block of packed entries; its key is the number of its last entry.

The file is locked as long as its process lives: SQLite's exclusive locking mode holds the operating system's lock on
it, which ends with the process, however that ends. So a file that can be locked belongs to a dead process, and `adopt`
takes it over: it is an orphan. Appended rows survive a kill of the process at once, and a power cut after `sync()`.

Promises: rows are read in the order of their numbers; an orphan is adopted by one process only, with every row that was
appended. A file that is empty when it is closed is removed. One that was removed or moved away while it is open goes on
taking rows that nobody would find after a kill: `is_in_place` tells, and `put_back` writes them to a new file.

The trap: a file exists for a moment before it is locked, and is locked for a moment before it has tables. Another
process that looks for orphans may lock or remove it in these moments; `_made` and `_adopted` allow for that.
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

PAGE = "-given"
"""The ending of the page beside an outbox in which its process says how it stands (`ether.recording.sources`)."""

_ENDINGS = ("", "-wal", "-shm", "-journal", PAGE)
"""The endings of the files that belong to an outbox: those of an SQLite database, and the page."""

Row = tuple[int, bytes]
"""The number of a block's last entry, and the packed block."""


class OutboxFile:
    """One outbox file, locked by this process. For one thread."""

    def __init__(self, path: Path, database: Connection, outbox: str, source: str) -> None:
        """Made by `create` and `adopt`."""
        self.path, self.outbox, self.source = path, outbox, source
        self.ledger: str | None = _meta(database).get("ledger")
        """The folder of the ledger that its process's configuration names; None where it names none."""
        self._database = database
        self._identity = _identity(path)
        self._is_name_synced = False
        first, last, count, size = database.execute(
            "SELECT MIN(number), MAX(number), COUNT(*), TOTAL(LENGTH(packed)) FROM entries"
        ).fetchone()
        self.first: int | None = first
        """The number of the first row, or a lower one that no row has; None where there is no row."""
        self.last: int = last or int(_meta(database).get("head", 0))
        """The highest number that was ever appended."""
        self.count: int = count
        """How many rows there are."""
        self.size: int = int(size)
        """Bytes of the rows."""

    @classmethod
    def create(cls, folder: Path, source: str, ledger: str | None = None) -> OutboxFile:
        """Make a new file, and its folder. `ledger`: the folder in which its entries have to be recorded. Raises
        `OutboxFailed`."""
        try:
            make_folder(folder)
            while True:
                outbox = os.urandom(8).hex()
                path = folder / f"{folder_name(source)}~{outbox}{SUFFIX}"
                if (database := _made(path)) is not None:
                    break  # else a process that looks for orphans has locked it first, and removes it
            try:
                with transaction(database):  # a file with half of its tables would count as damaged
                    for statement in _SCHEMA:
                        database.execute(statement)
                    meta = [("outbox", outbox), ("source", source), *([("ledger", ledger)] if ledger else [])]
                    database.executemany("INSERT INTO meta VALUES (?, ?)", meta)
                return cls(path, database, outbox, source)
            except BaseException:
                database.close()
                raise
        except (OSError, SqliteError) as error:
            raise OutboxFailed(str(folder), error) from error

    @property
    def base(self) -> int:
        """The number before that of the first entry."""
        if self.first is None:
            return self.last
        [(_, packed)] = self.read(self.first, self.last, 1, 1)
        return first_of(unpack_entries(packed)[0]) - 1

    # -- rows

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows of the entries from `last` + 1 on. They survive a kill of this process from now on. Raises
        `OutboxFailed`, and then has added none."""
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
        """Rows of the numbers `first` to `last`, within the limits, but at least one where there is one. The first row
        may begin with lower numbers than `first`, because its key is its last one."""
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
        """Delete the rows up to this number. A row that ends after it stays whole. Raises `OutboxFailed`."""
        self._delete(upto)

    def replace(self, upto: int, gap: Row) -> None:
        """Put one row, of the number `upto`, in the place of all rows up to it. Raises `OutboxFailed`."""
        self._delete(upto, gap)

    def exchange(self, number: int, rows: Sequence[Row]) -> None:
        """Put other rows, the last of which has this number, in the place of the row of this number, if there is one.
        Raises `OutboxFailed`."""
        try:
            with transaction(self._database):
                query = "SELECT LENGTH(packed) FROM entries WHERE number = ?"
                before = self._database.execute(query, (number,)).fetchone()
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
        """Return when every appended row survives a power cut. Raises `OutboxFailed`."""
        # With synchronous=NORMAL the write-ahead log is not synced at a commit. FULL syncs it with the next commit, and
        # with it all earlier ones; writing `head` makes sure that there is one.
        try:
            self._database.execute("PRAGMA synchronous=FULL")
            with transaction(self._database):
                self._database.execute("INSERT OR REPLACE INTO meta VALUES ('head', ?)", (str(self.last),))
            if not self._is_name_synced:
                sync_folder(self.path.parent)
                self._is_name_synced = True
        except (OSError, SqliteError) as error:
            raise OutboxFailed(str(self.path), error) from error
        finally:
            self._database.execute("PRAGMA synchronous=NORMAL")

    def is_in_place(self) -> bool:
        """Whether the file still stands where it was opened."""
        return self._identity is not None and _identity(self.path) == self._identity

    def put_back(self) -> None:
        """Write all rows to a new file, of another name: SQLite removes the log of a database that it closes by its
        name. Raises `OutboxFailed`; then nothing has changed."""
        path = self.path.with_name(f"{folder_name(self.source)}~{self.outbox}-{os.urandom(3).hex()}{SUFFIX}")
        try:
            make_folder(path.parent)
            database = _made(path)
            if database is None:
                raise OSError(None, "another process has taken it", str(path))
            try:
                self._copy_to(database)
            except BaseException:
                _remove(path, database)
                raise
        except (OSError, SqliteError) as error:
            raise OutboxFailed(str(path), error) from error
        with suppress(SqliteError):
            self._database.close()
        self.path, self._database = path, database
        self._identity, self._is_name_synced = _identity(path), False

    def _copy_to(self, database: Connection) -> None:
        with transaction(database):
            for statement in _SCHEMA:
                database.execute(statement)
            for table in ("meta", "entries"):
                with closing(self._database.execute(f"SELECT * FROM {table}")) as rows:
                    database.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)

    def send_to(self, ledger: str) -> None:
        """Its entries belong into the ledger in this folder from now on. Raises `OutboxFailed`."""
        try:
            self._database.execute("INSERT OR REPLACE INTO meta VALUES ('ledger', ?)", (ledger,))
        except SqliteError as error:
            raise OutboxFailed(str(self.path), error) from error
        self.ledger = ledger

    def close(self) -> None:
        """Close and unlock the file; an empty one is removed. Twice is fine."""
        empty = self.count == 0
        with suppress(SqliteError):
            self._database.close()
        if empty:
            for ending in _ENDINGS:
                Path(f"{self.path}{ending}").unlink(missing_ok=True)

    def put_aside(self) -> None:
        """Close the file, in which a row cannot be read, and rename it to `….damaged`."""
        with suppress(SqliteError):
            self._database.close()
        _put_aside(self.path)

    def _delete(self, upto: int, gap: Row | None = None) -> None:
        """Delete the rows up to a number, and put `gap` in their place, in one transaction."""
        if self.first is None or (gap is None and upto < self.first):
            return
        try:
            with transaction(self._database):
                query = "SELECT COUNT(*), TOTAL(LENGTH(packed)) FROM entries WHERE number <= ?"
                count, size = self._database.execute(query, (upto,)).fetchone()
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
    """The orphans in a folder: outboxes whose processes are dead. The caller closes each. A damaged file is renamed to
    `….damaged`; a file that cannot be read now (a full disk) is left as it is. When all others have been yielded, an
    `OutboxFailed` names one of these."""
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


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _put_aside(path: Path) -> None:
    for ending in ("", "-wal"):
        with suppress(OSError):
            Path(f"{path}{ending}").rename(f"{path}.damaged{ending}")
    with suppress(OSError):
        Path(f"{path}{PAGE}").unlink(missing_ok=True)


def _adopted(path: Path) -> OutboxFile | None:
    """The outbox of a dead process; None where the process lives, the file is gone, or it holds no entries."""
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
            meta = _meta(database)
            found = OutboxFile(path, database, meta["outbox"], meta["source"])
            if found.count:
                return found
            found.close()
            return None
    except (SqliteError, KeyError):
        database.close()
        raise
    _remove(path, database)  # without tables: its maker died before it made them, or has yet to lock the file
    return None


def _made(path: Path) -> Connection | None:
    """A new database, locked; None where a process that looks for orphans has locked it first. Where that process has
    already removed it, the path is gone, and this lock is on a file without a name."""
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
    """Remove a file under its lock, so that its maker, who gets the lock next, finds it gone. Windows does not remove
    open files; there it is removed after closing."""
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

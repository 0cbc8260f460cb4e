"""Parts of one ledger that are copied to another folder: closed volumes as they are, and rows of the current one.

Promises: what is copied is checked on the way: a file against its seal, a row against its checksum and its link. So a
damage of the source is never carried on; it raises `LedgerDamaged`. A copy that was killed leaves an unfinished folder
or a transaction that does not count, and is begun again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from ether.errors import LedgerDamaged
from ether.ledger.durable import PART, make_folder, sync_folder, write_whole
from ether.ledger.objects import FOLDER as OBJECTS
from ether.ledger.objects import Objects
from ether.ledger.rows import COLUMNS, LARGE_BYTES, checksum_of, link_of
from ether.ledger.seal import SEAL, read_seal
from ether.ledger.sqlite import Connection
from ether.ledger.volumes import Closed, remove_tree
from ether.wire.json_text import loads

_PIECE_ROWS = 500
_CHUNK_BYTES = 1 << 20
_SELECT = f"SELECT {', '.join(COLUMNS)}, origin FROM entries"
_INSERT = f"INSERT INTO records VALUES ({', '.join('?' * 14)})"
_AT = {name: index for index, name in enumerate(COLUMNS)}
_OWN_AT = [0, len(COLUMNS), *range(_AT["number"], len(COLUMNS))]
"""Of a row of `_SELECT`: where the columns of the table `records` are."""


def copy_volume(source: Closed, into: Path) -> int:
    """Copy a closed volume to the folder `into` of another ledger's volumes; returns how many bytes it has. Raises
    `FileNotFoundError` where the volume was replaced meanwhile, `OSError`, and `LedgerDamaged` where it is not as it
    was sealed."""
    seal = read_seal(source.folder)
    if seal is None or not seal.whole:
        raise LedgerDamaged(source.folder, SEAL, "it is missing, or not what was written")
    target = into / source.folder.name
    part = target.with_name(f"{target.name}{PART}")
    remove_tree(part)
    make_folder(part)
    copied = 0
    for path, sha256 in seal.files.items():
        make_folder((part / path).parent)
        found = hashlib.sha256()
        write_whole(part / path, _hashed_pieces(source.folder / path, found))
        if found.hexdigest() != sha256:
            raise LedgerDamaged(source.folder, path, f"it is not as it was sealed: its SHA-256 is {found.hexdigest()}")
        copied += (part / path).stat().st_size
    write_whole(part / SEAL, [(source.folder / SEAL).read_bytes()])
    for inside in [path for path in part.rglob("*") if path.is_dir()]:
        sync_folder(inside)
    sync_folder(part)
    part.rename(target)
    sync_folder(into)
    return copied


def _hashed_pieces(path: Path, digest: Any) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
            yield piece


class Snapshot(NamedTuple):
    """The current volume of a ledger at one moment."""

    meta: Mapping[str, str]
    last: int
    """The last row."""
    outboxes: list[tuple[Any, ...]]


def snapshot_of(connection: Connection, before_first: int) -> Snapshot:
    """What the volume says of its end, of one moment, while its writer goes on."""
    connection.execute("BEGIN")
    try:
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        (last,) = connection.execute("SELECT max(row) FROM records").fetchone()
        outboxes = connection.execute("SELECT * FROM outboxes").fetchall()
    finally:
        connection.execute("COMMIT")
    return Snapshot(meta, before_first if last is None else int(last), outboxes)


class RowCopy:
    """Copies rows of one volume to another database of the same volume. `folder`: that of the source; `objects`: where
    large payloads go. The caller holds the target's transaction."""

    def __init__(self, folder: Path, source: Connection, target: Connection, objects: Objects) -> None:
        self._folder, self._source, self._target, self._objects = folder, source, target, objects
        self.rows = self.bytes = 0

    def copy(self, after: int, link: bytes, last: int) -> bytes:
        """Copy the rows behind `after`, whose link is `link`, up to `last`; returns the link of that. Raises
        `LedgerDamaged`, `SqliteError`, `OSError`."""
        (origin,) = self._target.execute("SELECT coalesce(max(origin), 0) FROM origins").fetchone()
        origins = self._source.execute("SELECT * FROM origins WHERE origin > ?", (origin,)).fetchall()
        self._target.executemany("INSERT INTO origins VALUES (?, ?, ?, ?, ?, ?, ?, ?)", origins)
        for begin in range(after + 1, last + 1, _PIECE_ROWS):
            end = min(begin + _PIECE_ROWS - 1, last)
            found = self._source.execute(f"{_SELECT} WHERE row BETWEEN ? AND ? ORDER BY row", (begin, end)).fetchall()
            if [row[0] for row in found] != list(range(begin, end + 1)):
                raise LedgerDamaged(self._folder, f"rows {begin} to {end}", "some are missing")
            link = self._take(found, link)
        return link

    def _take(self, found: list[tuple[Any, ...]], link: bytes) -> bytes:
        own, parents, payloads = [], [], set()
        for row in found:
            _, *columns, body, checksum, its_link, _ = row
            link = link_of(link, checksum)
            if checksum_of(columns, cast("bytes | None", body)) != checksum or link != its_link:
                raise LedgerDamaged(self._folder, f"row {row[0]}", "what the record says is not what was written")
            own.append(tuple(row[at] for at in _OWN_AT))
            if row[_AT["parents"]] != "[]":
                parents += [
                    (parent, row[0]) for parent in set(cast("list[str]", loads(row[_AT["parents"]], strict=True)))
                ]
            if row[_AT["sha256"]] is not None:
                payloads.add((row[_AT["sha256"]], row[_AT["size"]] > LARGE_BYTES))
            self.bytes += row[_AT["size"]]
        for sha256, is_large in payloads:
            self._take_payload(sha256, is_large=is_large)
        self._target.executemany(_INSERT, own)
        self._target.executemany("INSERT INTO parents VALUES (?, ?)", parents)
        self.rows += len(own)
        return link

    def _take_payload(self, sha256: str, *, is_large: bool) -> None:
        if is_large:
            self._objects.put({sha256: Objects(self._folder).get(sha256)})
            return
        found = self._source.execute("SELECT payload FROM contents WHERE sha256 = ?", (sha256,)).fetchone()
        if found is None or hashlib.sha256(found[0]).hexdigest() != sha256:
            raise LedgerDamaged(self._folder, f"content {sha256}", "it is missing, or not what its hash says")
        self._target.execute("INSERT OR IGNORE INTO contents VALUES (?, ?)", (sha256, found[0]))


def remove_unneeded_objects(folder: Path, needed: set[str]) -> None:
    """Remove the files of large payloads that no row refers to. For the ledger's writer. Raises `OSError`."""
    removed = [path for path in Objects(folder).files() if path.name not in needed]
    for path in removed:
        path.unlink()
    if removed:
        sync_folder(folder / OBJECTS)

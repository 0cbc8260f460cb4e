"""Rotation: the current volume is closed and sealed, and a new one goes on from its last row and link.

How: the files of the current volume get a second name in `volumes/NNNNNN.part` (hard links; copies where the disk knows
none), with a seal; that folder gets its name; then an empty database that continues the chain takes the place of
`ledger.db`, in one step. The file `head` stays: rows and links go on through all volumes, so it is right before and
after that step.

Promise: whenever the process is killed or the power goes, the folder is a whole ledger, either before the rotation or
after it. The trap: until the last step a closed folder has the current database under a second name. So nobody may
count it while the current volume has the same number (see `ether.ledger.volumes`).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ether.ledger import schema
from ether.ledger.durable import PART, make_folder, sync_file, sync_folder, write_whole
from ether.ledger.head import NAME as HEAD
from ether.ledger.objects import FOLDER as OBJECTS
from ether.ledger.objects import Objects
from ether.ledger.seal import write_seal
from ether.ledger.sqlite import (
    DATABASE,
    LEAN_PAGE_BYTES,
    PAGE_BYTES,
    SHARED_MEMORY,
    WAL,
    Connection,
    open_ledger,
    open_new,
    swapping,
)
from ether.ledger.volumes import (
    FOLDER,
    Closed,
    VolumeFacts,
    beginning_of,
    name_of,
    read_facts,
    remove_tree,
    write_facts,
)


def rotate(folder: Path, connection: Connection, now: float, *, lean: bool = False) -> str | None:
    """Close the volume that is open with `connection`, and begin the next one (`lean`: with small pages); returns the
    reason where that was not possible, else None. The connection is closed in any case. For the ledger's writer, which
    holds its lock, has closed the head file, and has at least one row. Raises `SqliteError` and `OSError`."""
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        connection.close()
        return "a reader has it open in the middle of a query"
    meta, outboxes = schema.meta_of(connection), connection.execute("SELECT * FROM outboxes").fetchall()
    facts, needed = facts_of(connection, now), payloads_of(connection)
    connection.close()
    _close_volume(folder, facts, needed)
    _begin_volume(folder, {
        "session": meta["session"], "created": f"{now:.6f}", "volume": str(facts.volume + 1),
        "first": str(facts.last + 1), "follows": facts.link,
    }, outboxes, LEAN_PAGE_BYTES if lean else PAGE_BYTES)  # fmt: skip
    remove_objects_of_closed(folder, facts.volume)
    return None


def facts_of(connection: Connection, now: float) -> VolumeFacts:
    """What is known of an open volume that is closed now."""
    meta = schema.meta_of(connection)
    beginning = beginning_of(meta)
    last, link, newest = connection.execute(
        "SELECT row, link, received FROM records ORDER BY row DESC LIMIT 1"
    ).fetchone()
    (oldest,) = connection.execute("SELECT received FROM records ORDER BY row LIMIT 1").fetchone()
    count = last - beginning.first + 1
    return VolumeFacts(
        beginning.volume, beginning.first, last, beginning.follows.hex(), link.hex(), float(meta["created"]), now,
        (oldest, newest), rows=count,
    )  # fmt: skip


def has_end_of(connection: Connection, closed: Closed) -> bool:
    """Whether an open database has the last row of a closed volume."""
    facts = read_facts(closed.folder)
    if facts is None:
        return False
    found = connection.execute("SELECT link FROM records WHERE row = ?", (facts.last,)).fetchone()
    return found is not None and found[0].hex() == facts.link


def payloads_of(connection: Connection) -> set[str]:
    """The hashes of the payloads that rows refer to, small ones included."""
    return {sha256 for (sha256,) in connection.execute("SELECT DISTINCT sha256 FROM records WHERE sha256 IS NOT NULL")}


def _close_volume(folder: Path, facts: VolumeFacts, needed: set[str]) -> None:
    """Make the folder of the closed volume, whole and sealed, before it gets its name. A payload that no row refers to
    stays: it was put for one that a killed writer has not stored, and that comes again."""
    make_folder(folder / FOLDER)
    closed = folder / FOLDER / name_of(facts.volume)
    part = closed.with_name(f"{closed.name}{PART}")
    remove_tree(part)
    part.mkdir(mode=0o700)
    link_or_copy(folder / DATABASE, part / DATABASE)
    write_whole(part / HEAD, [(folder / HEAD).read_bytes()])
    for path in [path for path in Objects(folder).files() if path.name in needed]:
        same = part / path.relative_to(folder)
        make_folder(same.parent)
        link_or_copy(path, same)
    write_facts(part, facts)
    finish_volume(part, closed)


def finish_volume(part: Path, closed: Path) -> None:
    """Seal a finished folder of a closed volume, and give it its name. Raises `OSError`."""
    write_seal(part)
    for inside in [path for path in part.rglob("*") if path.is_dir()]:
        sync_folder(inside)
    sync_folder(part)
    if closed.exists():  # of a rotation that was not finished: the current volume has the same rows
        remove_tree(closed)
    os.rename(part, closed)
    sync_folder(closed.parent)


def link_or_copy(path: Path, same: Path) -> None:
    """The same file under a second name; a synced copy where the disk has no hard links. Raises `OSError`."""
    try:
        os.link(path, same)
    except OSError:
        shutil.copyfile(path, same)
        os.chmod(same, 0o600)
        sync_file(same)


def _begin_volume(folder: Path, meta: dict[str, str], outboxes: list[tuple[object, ...]], page_bytes: int) -> None:
    """Put an empty database that continues the chain in the place of the current one."""
    part = folder / f"{DATABASE}.{os.urandom(4).hex()}{PART}"
    try:
        with open_new(part, page_bytes) as new:
            schema.create(new, meta)
            new.execute("BEGIN")
            new.executemany("INSERT INTO outboxes VALUES (?, ?, ?, ?, ?, ?)", outboxes)
            new.execute("COMMIT")
        # The log is empty, and its content is in the database that is closed. SQLite must not take it, nor the
        # shared memory of a reader that is still there, for those of the new database.
        sync_file(part)
        with swapping:
            (folder / WAL).unlink(missing_ok=True)
            (folder / SHARED_MEMORY).unlink(missing_ok=True)
            os.replace(part, folder / DATABASE)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def remove_objects_of_closed(folder: Path, volume: int) -> None:
    """Remove the large payloads that a closed volume has, and no row of the current one refers to. Raises
    `SqliteError`, `OSError`."""
    objects, closed = Objects(folder), Objects(folder / FOLDER / name_of(volume))
    names = [path.name for path in objects.files() if (closed.folder / path.relative_to(objects.folder)).exists()]
    if not names:
        return
    connection = open_ledger(folder, write=False)
    try:
        needed = payloads_of(connection)
    finally:
        connection.close()
    for name in names:
        if name not in needed:
            objects.path(name).unlink()
    for inside in [path for path in (folder / OBJECTS).iterdir() if not any(path.iterdir())]:
        inside.rmdir()
    sync_folder(folder / OBJECTS)

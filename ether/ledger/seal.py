"""The seal of a ledger that was closed: hashes of every file, and of every page of the database.

    seal    text for `sha256sum -c seal`: a line for each file; the last line is the SHA-256 of all lines before it
    pages   the SHA-256 of each page of ledger.db, 32 bytes each, so that a damage can be located

Promise: where the seal fits, no bit of any file in the folder has changed since the ledger was closed. The trap: the
seal finds damage, not forgery: a person who may write to the folder may write a new seal, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ether.ledger.durable import sync_folder, write_whole
from ether.ledger.head import NAME as HEAD
from ether.ledger.objects import PACKED, Objects, digest_of
from ether.ledger.sqlite import DATABASE, PAGE_BYTES, Connection
from ether.ledger.volumes import ARCHIVED, FACTS

SEAL = "seal"
PAGES = "pages"
_TITLE = "# ether ledger, seal 1: check with sha256sum -c seal"
_LAST = "# sha256 of the lines above: "


class Seal(NamedTuple):
    """The SHA-256 of each file by its path in the folder. `whole`: the seal itself is undamaged."""

    files: Mapping[str, str]
    whole: bool


def seal(folder: Path, connection: Connection) -> str | None:
    """Copy the write-ahead log into ledger.db, close it and seal the folder; returns the reason where that was not
    possible, else None. Raises `SqliteError` and `OSError`."""
    # TRUNCATE leaves no log behind. It is busy where a reader still needs an earlier state of the database.
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    if busy:
        return "a reader had it open"
    write_seal(folder)
    sync_folder(folder)
    return None


def write_seal(folder: Path) -> None:
    """Write the files `pages` and `seal` of a folder to which nobody writes; the caller syncs the folder. Raises
    `OSError`."""
    lines = [_TITLE]
    if (folder / DATABASE).exists():
        page_hashes, database = _hashed_pages(folder)
        write_whole(folder / PAGES, page_hashes)
        lines.append(f"{database}  {DATABASE}")
        lines.append(f"{digest_of(folder / HEAD)}  {HEAD}")
        lines.append(f"{hashlib.sha256(b''.join(page_hashes)).hexdigest()}  {PAGES}")
    else:
        lines += [f"{digest_of(folder / name)}  {name}" for name in (ARCHIVED, HEAD)]
    if (folder / FACTS).exists():
        lines.append(f"{digest_of(folder / FACTS)}  {FACTS}")
    for path in Objects(folder).files():
        digest = digest_of(path) if path.name.endswith(PACKED) else path.name
        lines.append(f"{digest}  {path.relative_to(folder).as_posix()}")
    text = "".join(f"{line}\n" for line in lines)
    write_whole(folder / SEAL, [f"{text}{_LAST}{hashlib.sha256(text.encode()).hexdigest()}\n".encode()])


def _hashed_pages(folder: Path) -> tuple[list[bytes], str]:
    """The SHA-256 of each page of the database, and of all of it in hexadecimal."""
    hashes, whole = [], hashlib.sha256()
    for page in pages_of(folder):
        hashes.append(hashlib.sha256(page).digest())
        whole.update(page)
    return hashes, whole.hexdigest()


def pages_of(folder: Path) -> Iterator[bytes]:
    """The database's pages. Only while this process has no connection to it: closing the file drops SQLite's locks."""
    with open(folder / DATABASE, "rb") as file:
        while page := file.read(PAGE_BYTES):
            yield page


def unseal(folder: Path) -> None:
    """Remove the seal, and have that on the disk, before anything is written. Raises `OSError`."""
    if (folder / SEAL).exists():
        (folder / SEAL).unlink()
        sync_folder(folder)
    (folder / PAGES).unlink(missing_ok=True)


def read_seal(folder: Path) -> Seal | None:
    """The folder's seal, None where it is not sealed. Raises `OSError`."""
    try:
        content = (folder / SEAL).read_bytes()
    except FileNotFoundError:
        return None
    text, found, digest = content.rpartition(_LAST.encode())
    whole = bool(found) and digest == hashlib.sha256(text).hexdigest().encode() + b"\n"
    lines = (line.partition("  ") for line in text.decode(errors="replace").splitlines() if not line.startswith("#"))
    return Seal({path: sha256 for sha256, _, path in lines}, whole)

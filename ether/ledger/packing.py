"""Files of a volume that are compressed, and unpacked for a reader.

SQLite needs a plain file. So a database is unpacked into a private folder among the system's temporary files, and
removed with its reader. The trap: it needs room there, as much as the database had before it was archived.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ether.errors import LedgerDamaged
from ether.ledger.durable import sync_file
from ether.ledger.sqlite import DATABASE
from ether.ledger.volumes import ARCHIVED

_CHUNK_BYTES = 1 << 20
_LEVEL = 6


class UnpackedDatabase:
    """A folder with a plain database; gone after `remove`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ether-volume-"))
        self.sha256 = ""

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def unpacked_database(folder: Path) -> UnpackedDatabase:
    """The database of an archived volume. Raises `OSError`, and `LedgerDamaged` where it cannot be unpacked."""
    found = UnpackedDatabase()
    digest = hashlib.sha256()
    try:
        with open(found.folder / DATABASE, "wb") as plain:
            for piece in _pieces(folder / ARCHIVED):
                digest.update(piece)
                plain.write(piece)
    except BaseException:
        found.remove()
        raise
    found.sha256 = digest.hexdigest()
    return found


def pack(path: Path, packed: Path, sha256: str) -> None:
    """Write a file compressed and synced, and check that it unpacks to what has this SHA-256. Raises `LedgerDamaged`,
    `OSError`."""
    found = hashlib.sha256()
    with open(packed, "xb") as out, gzip.GzipFile("", "wb", _LEVEL, out, mtime=0) as target, open(path, "rb") as plain:
        while piece := plain.read(_CHUNK_BYTES):
            found.update(piece)
            target.write(piece)
    sync_file(packed)
    if found.hexdigest() != sha256 or digest_of_packed(packed) != sha256:
        raise LedgerDamaged(path.parent, path.name, "it is not as it was written")


def digest_of_packed(path: Path) -> str:
    """The SHA-256 of what a compressed file unpacks to, in hexadecimal. Raises `OSError`, `LedgerDamaged`."""
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) as packed:
            while piece := packed.read(_CHUNK_BYTES):
                yield piece
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LedgerDamaged(path.parent, path.name, f"it cannot be unpacked: {error}") from error

"""Large payloads, each in a file that is named by the SHA-256 of its content: `objects/ab/abcdef…`.

Promises: when `put` returns, the files and their names are on the disk; only then may a record refer to them. `get`
returns the content that has the hash in the name, or raises.

The trap: a file that exists already may be damaged, or left by a transaction that failed. So it is read and synced
before a record refers to it.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ether.errors import LedgerDamaged
from ether.ledger.durable import make_folder, sync_file, sync_folder, write_whole

FOLDER = "objects"
PACKED = ".gz"
"""The ending of a payload that was compressed, in an archived volume."""
_CHUNK_BYTES = 1 << 20
_REMEMBERED = 20_000
"""A camera makes as many in half an hour. One that is forgotten is read once more where it comes again."""


class Objects:
    """The large payloads of one ledger."""

    def __init__(self, ledger_folder: Path) -> None:
        self.ledger_folder = ledger_folder
        self.folder = ledger_folder / FOLDER
        self.put_bytes = 0
        """Bytes of the payloads that this object has put."""
        self._durable: set[str] = set()
        """Hashes of files that this object has put, and that are on the disk; at most `_REMEMBERED`."""

    def path(self, sha256: str) -> Path:
        """The file of the payload with that hash."""
        return self.folder / sha256[:2] / sha256

    def put(self, payloads: Mapping[str, bytes]) -> None:
        """Store payloads by their SHA-256. Raises `OSError`; then no record may refer to any of them."""
        new = {sha256: payload for sha256, payload in payloads.items() if sha256 not in self._durable}
        folders = {self.path(sha256).parent for sha256 in new}
        for folder in folders:
            make_folder(folder)
        for sha256, payload in new.items():
            path = self.path(sha256)
            if path.is_file() and digest_of(path) == sha256:
                sync_file(path)
            else:
                write_whole(path, [payload])
        for folder in folders:
            sync_folder(folder)
            sync_folder(self.folder)
        if len(self._durable) + len(new) > _REMEMBERED:
            self._durable.clear()
        self._durable.update(new)
        self.put_bytes += sum(map(len, new.values()))

    def forget(self) -> None:
        """Check every file again before it is relied upon: for after a failed write or sync."""
        self._durable.clear()

    def get(self, sha256: str) -> bytes:
        """The payload; raises `LedgerDamaged` where it is missing or not what was written."""
        try:
            payload = self._read(self.path(sha256))
        except FileNotFoundError as error:
            raise LedgerDamaged(self.ledger_folder, self.where(sha256), "the file is missing") from error
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise LedgerDamaged(self.ledger_folder, f"{self.where(sha256)}{PACKED}", str(error)) from error
        if hashlib.sha256(payload).hexdigest() != sha256:
            raise LedgerDamaged(self.ledger_folder, self.where(sha256), "its content is not what its name says")
        return payload

    def _read(self, path: Path) -> bytes:
        """The content of a file, or of its compressed form."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return gzip.decompress(path.with_name(f"{path.name}{PACKED}").read_bytes())

    def where(self, sha256: str) -> str:
        """The path of a payload relative to the ledger's folder, for messages and the seal."""
        return f"{FOLDER}/{sha256[:2]}/{sha256}"

    def files(self) -> Iterator[Path]:
        """Every file in the objects' folder, whatever it is."""
        return (path for path in sorted(self.folder.rglob("*")) if not path.is_dir())


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            hashed.update(piece)
    return hashed.hexdigest()


class Artifact(NamedTuple):
    """A text or file that contexts refer to by its hash; `name` is for people."""

    sha256: str
    name: str
    content: bytes


def artifact(name: str, content: bytes) -> Artifact:
    """The artifact of this content."""
    return Artifact(hashlib.sha256(content).hexdigest(), name, content)

"""Whether a ledger is what was written: every file against the seal, every record against its checksum and the chain.

Promises: in a sealed folder each changed bit of each file is found, and told with its file and page and the records it
concerns; in one that is not sealed each that changes what is read from it. Half-written tails and leftover files are
named. Changes nothing; raises `LedgerFailed` only where there is no ledger.

The trap: a file of the database must not be opened beside SQLite in one process, because closing it would drop SQLite's
locks. So pages are hashed only where there is a seal, that is, no writer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ether.errors import LedgerError, LedgerFailed
from ether.ledger import schema
from ether.ledger.durable import PART
from ether.ledger.head import NAME as HEAD
from ether.ledger.head import read_head, slots_of, unpacked
from ether.ledger.lock import LOCK, WRITER, is_held
from ether.ledger.objects import FOLDER as OBJECTS
from ether.ledger.objects import Objects, digest_of
from ether.ledger.seal import PAGES, SEAL, Seal, pages_of, read_seal
from ether.ledger.sqlite import (
    DATABASE,
    PAGE_BYTES,
    SHARED_MEMORY,
    WAL,
    SqliteError,
    is_of_the_disk,
    open_ledger,
    translated,
)
from ether.ledger.verify_records import Range, RecordCheck, VerifyFinding, VerifyReport, ranges
from ether.ledger.wal import tails

_HASH_BYTES = 32
_OWN = {DATABASE, WAL, SHARED_MEMORY, HEAD, SEAL, PAGES, LOCK, WRITER}


def verify(folder: Path) -> VerifyReport:
    """Look at everything in the folder; raises `LedgerFailed` where it is no ledger or cannot be read at all."""
    folder = Path(folder).absolute()
    if not (folder / DATABASE).is_file():
        raise LedgerFailed(folder, f"there is no {DATABASE} in it: this is no ledger")
    schema.refuse_log_on_read_only(folder)
    with translated(folder):
        report = _Verification(folder).report()
        if report.sealed and not (folder / SEAL).exists():  # a writer came meanwhile
            report = _Verification(folder).report()
        return report


class _Verification:
    """One look at one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._objects = Objects(folder)
        self._seal = read_seal(folder)
        self._written = is_held(folder)
        self._head = read_head(folder)
        self._digests: dict[str, str] = {}
        self._findings: list[VerifyFinding] = []

    def report(self) -> VerifyReport:
        """Look, and tell."""
        pages, files = self._against_seal(self._seal) if self._seal else ([], [])
        records = self._records(thorough=self._seal is None or bool(pages))
        concerned = ranges(records.concerned())
        self._findings += [VerifyFinding(where, what, concerned) for where, what in pages]
        self._findings += [VerifyFinding(path, what, records.rows_with(path)) for path, what in files]
        self._findings += records.findings
        self._look_at_head(records)
        self._look_at_log(ranges(records.missing))
        self._look_at_files(records)
        return VerifyReport(self._folder, records.good, self._seal is not None, tuple(self._findings))

    def _records(self, *, thorough: bool) -> RecordCheck:
        check = RecordCheck(self._folder, self._digest_of_object, self._head)
        connection = open_ledger(self._folder, write=False, sealed=self._seal is not None)
        try:
            check.look(connection, thorough=thorough)
        except (SqliteError, LedgerError, ValueError) as error:
            if self._says_nothing_of_the_data(error):
                raise
            check.unreadable(str(error))
        finally:
            connection.close()
        return check

    def _says_nothing_of_the_data(self, error: Exception) -> bool:
        """Whether it is about the disk, or about a ledger that was never made."""
        if isinstance(error, SqliteError) and is_of_the_disk(error):
            return True
        return isinstance(error, LedgerError) and self._seal is None and not (self._head and self._head.records)

    def _against_seal(self, seal: Seal) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """What differs from the seal: in the database, and elsewhere."""
        if not seal.whole:
            self._findings.append(
                VerifyFinding(SEAL, "it is not what was written; so what it says of other files may be wrong")
            )
        there = set(self._all_files())
        files = [
            (path, what) for path, sha256 in seal.files.items() if (seal.whole or path in there)
            and path != DATABASE and (what := self._differs(path, sha256))
        ]  # fmt: skip
        pages = self._pages(seal, pages_are_whole=all(path != PAGES for path, _ in files))
        listed = set(seal.files)
        extra = [path for path in self._all_files() if path not in listed and path not in _OWN]
        self._findings += [VerifyFinding(path, "it is not in the seal: it came later", harm=False) for path in extra]
        for path in (LOCK, WAL):
            if (self._folder / path).exists() and (self._folder / path).stat().st_size:
                self._findings.append(VerifyFinding(path, "it has content, although the ledger was closed"))
        return pages, files

    def _differs(self, path: str, sha256: str) -> str | None:
        try:
            found = self._digest(path)
        except FileNotFoundError:
            return "the file is missing"
        return None if found == sha256 else f"it is not as it was sealed: its SHA-256 is {found}"

    def _pages(self, seal: Seal, *, pages_are_whole: bool) -> list[tuple[str, str]]:
        if not pages_are_whole or PAGES not in seal.files:
            what = self._differs(DATABASE, seal.files.get(DATABASE, ""))
            return [(DATABASE, what)] if what else []
        return [*self._damaged_pages((self._folder / PAGES).read_bytes())]

    def _damaged_pages(self, hashes: bytes) -> Iterator[tuple[str, str]]:
        expected, number = len(hashes) // _HASH_BYTES, 0
        for number, page in enumerate(pages_of(self._folder), 1):
            begin = (number - 1) * PAGE_BYTES
            where = f"{DATABASE}, page {number:,} (bytes {begin:,} to {begin + len(page) - 1:,})"
            if number > expected:
                yield where, "it was not there when the ledger was sealed"
            elif hashlib.sha256(page).digest() != hashes[(number - 1) * _HASH_BYTES : number * _HASH_BYTES]:
                yield where, "it is not as it was sealed"
        if number < expected:
            yield (
                f"{DATABASE}, from byte {number * PAGE_BYTES:,}",
                f"{expected - number:,} pages are cut off",
            )

    def _look_at_head(self, records: RecordCheck) -> None:
        for number, slot in enumerate(slots_of(self._folder)):
            if any(slot) and unpacked(slot) is None:
                where = f"{HEAD}, bytes {number * len(slot)} to {(number + 1) * len(slot) - 1}"
                what = "half-written or damaged; the other half tells how many records there are"
                sealed = self._seal is not None
                self._findings.append(
                    VerifyFinding(where, what if self._head else "damaged", harm=sealed or not self._head)
                )
        if self._head is None:
            what = "nothing tells how many records there should be: records cut off from the end would not be missed"
            self._findings.append(VerifyFinding(HEAD, what, harm=records.good > 0))

    def _look_at_log(self, missing: tuple[Range, ...]) -> None:
        for tail in tails(self._folder):
            where = f"{tail.file}, bytes {tail.begin:,} to {tail.end - 1:,}"
            what = f"{tail.what} (its writer is at work)" if self._written else tail.what
            self._findings.append(VerifyFinding(where, what, missing, harm=bool(missing)))

    def _look_at_files(self, records: RecordCheck) -> None:
        for path in self._all_files():
            if path.endswith(PART):
                self._findings.append(
                    VerifyFinding(path, "a file that was not finished; nothing refers to it", harm=False)
                )
            elif path.startswith(f"{OBJECTS}/") and not records.rows_with(path):
                self._findings.append(VerifyFinding(path, "no record refers to it", harm=False))
            elif not path.startswith(f"{OBJECTS}/") and path not in _OWN and self._seal is None:
                self._findings.append(VerifyFinding(path, "it is no part of a ledger", harm=False))

    def _all_files(self) -> list[str]:
        paths = (path for path in sorted(self._folder.rglob("*")) if not path.is_dir())
        return [path.relative_to(self._folder).as_posix() for path in paths]

    def _digest_of_object(self, sha256: str) -> str | None:
        try:
            return self._digest(self._objects.where(sha256))
        except FileNotFoundError:
            return None

    def _digest(self, path: str) -> str:
        if path not in self._digests:
            self._digests[path] = digest_of(self._folder / path)
        return self._digests[path]

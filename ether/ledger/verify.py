"""Verification of a ledger: every file is compared with the seal, every record with its checksum and the chain.

Promises: in a sealed folder every changed bit of every file is found, and reported with its file, its page and the
records that it affects. In a folder without a seal every change is found that alters what a reader gets. Half-written
tails and leftover files are named. Nothing is changed; `LedgerFailed` is raised only where there is no ledger.

The trap: a process must not open the database file itself while SQLite has it open, because closing the file drops
SQLite's locks. So pages are hashed only in a sealed folder, which has no writer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ether.errors import LedgerDamaged, LedgerError, LedgerFailed
from ether.ledger import schema
from ether.ledger.deletions import Deletion
from ether.ledger.durable import PART
from ether.ledger.head import NAME as HEAD
from ether.ledger.head import read_head, slots_of, unpacked
from ether.ledger.lock import LOCK, WRITER, is_held
from ether.ledger.objects import FOLDER as OBJECTS
from ether.ledger.objects import PACKED, Objects, digest_of
from ether.ledger.packing import digest_of_packed, unpacked_database
from ether.ledger.seal import PAGES, SEAL, Seal, pages_of, read_seal
from ether.ledger.signatures import SignatureCheck, SignedRows
from ether.ledger.sqlite import (
    DATABASE,
    PAGE_BYTES,
    SHARED_MEMORY,
    WAL,
    Connection,
    SqliteError,
    is_of_the_disk,
    ledger_errors,
    open_ledger,
)
from ether.ledger.verify_records import Range, RecordCheck, VerifyFinding, VerifyReport, ranges
from ether.ledger.volumes import ARCHIVED, BACKUPS, FACTS, ROTATE_NOW, Beginning, closed_volumes, is_current, read_facts
from ether.ledger.volumes import FOLDER as VOLUMES
from ether.ledger.wal import tails

_HASH_BYTES = 32
_OWN = {ARCHIVED, DATABASE, WAL, SHARED_MEMORY, HEAD, SEAL, PAGES, LOCK, WRITER, FACTS, BACKUPS, ROTATE_NOW}
_TRIES = 5
"""The files of a ledger, besides those in objects/."""

_Difference = tuple[str, str]
"""A place (file, or page of the database), and how it differs from the seal."""


def verify(folder: Path) -> VerifyReport:
    """Verify everything in the folder, with all volumes; raises `LedgerFailed` where it is no ledger or cannot be read
    at all."""
    folder = Path(folder).absolute()
    if not (folder / DATABASE).is_file() and not (folder / ARCHIVED).is_file():
        raise LedgerFailed(folder, f"there is no {DATABASE} in it: this is no ledger")
    with ledger_errors(folder):
        known: dict[Path, VerifiedVolume] = {}
        for _ in range(_TRIES):
            report = _verified(folder, known)
            if report is not None:
                return report
        raise LedgerFailed(folder, "it is changed again and again while it is read; try later")


def _verified(folder: Path, known: dict[Path, VerifiedVolume]) -> VerifyReport | None:
    """The report of a folder with all its volumes; None where it was changed meanwhile. `known`: closed volumes that
    were verified before that; a closed volume that changes gets another folder."""
    current = VerifiedVolume(folder)
    number = current.beginning.volume if current.is_known else None
    closed = closed_volumes(folder, number)
    try:
        for each in closed:
            if each.folder not in known:
                known[each.folder] = VerifiedVolume(each.folder, each.number)
    except FileNotFoundError:  # a volume was replaced by its next generation
        return None
    volumes = [known[each.folder] for each in closed]
    if current.has_changed() or closed != closed_volumes(folder, number):
        return None
    beyond = [each for each in closed_volumes(folder) if number is not None and each.number > number]
    if not volumes and not beyond and not is_current(folder):
        return current.report
    findings = [*_between(volumes, current), *current.report.findings]
    for volume in volumes:
        where = volume.folder.relative_to(folder).as_posix()
        findings += [replace(finding, where=f"{where}/{finding.where}") for finding in volume.report.findings]
    counted = [each.folder for each in (*closed, *beyond)]
    for path in sorted((folder / VOLUMES).glob("*")):
        if path.is_dir() and path not in counted:
            what = "a volume that was not finished, or was replaced; nothing refers to it"
            findings.append(VerifyFinding(f"{VOLUMES}/{path.name}", what, harm=False))
    for each in beyond:
        what = "it goes beyond the current volume, which was put back from an older copy"
        findings.append(VerifyFinding(f"{VOLUMES}/{each.folder.name}", what))
    reports = [*(volume.report for volume in volumes), current.report]
    signers = tuple(sorted({who for each in reports for who in each.signers}))
    return VerifyReport(
        folder, sum(each.records for each in reports), all(each.sealed for each in reports), tuple(findings),
        sum(each.entries for each in reports), sum(each.signed for each in reports), signers,
    )  # fmt: skip


def _between(volumes: list[VerifiedVolume], current: VerifiedVolume) -> Iterator[VerifyFinding]:
    """Whether each volume goes on where the one before it ends, and which are not there."""
    row, link, number = 0, "", 0
    for volume in (*volumes, *([current] if current.is_known else [])):
        beginning = volume.beginning
        if beginning.volume != number + 1:
            lost = f"{number + 1:06d}" + ("" if beginning.volume == number + 2 else f" to {beginning.volume - 1:06d}")
            rows = ((row + 1, beginning.first - 1),) if beginning.first > row + 1 else ()
            yield VerifyFinding(f"{VOLUMES}/{lost}", "the volume is missing", rows)
        elif number and (beginning.first, beginning.follows.hex()) != (row + 1, link):
            what = f"it does not continue volume {number}: that ends with row {row:,} and another link"
            yield VerifyFinding(f"{VOLUMES}/{beginning.volume:06d}", what, ((beginning.first, beginning.first),))
        number, row, link = beginning.volume, volume.last, volume.link


class VerifiedVolume:
    """A volume that was verified: its report, and where it begins and ends. Raises `SqliteError`, `OSError`,
    `LedgerError` where it cannot be read for other reasons than a damage."""

    def __init__(self, folder: Path, number: int | None = None) -> None:
        self.folder = folder
        schema.refuse_log_on_read_only(folder)
        self._database = _identity(folder / DATABASE)
        verification = _Verification(folder)
        self.report = verification.report()
        if self.has_changed():  # a writer has opened it meanwhile, and changed its files
            self._database = _identity(folder / DATABASE)
            verification = _Verification(folder)
            self.report = verification.report()
        records = verification.records
        self.is_known = records is not None and bool(records.beginning.follows)
        """Whether its beginning could be read."""
        self.beginning = records.beginning if records else Beginning(number or 0, 0, b"")
        self.last = records.last if records else 0
        self.link = verification.head.link if verification.head else ""

    def has_changed(self) -> bool:
        """Whether it was sealed when it was read, and is not any more; or its volume was closed."""
        unsealed = self.report.sealed and not (self.folder / SEAL).exists()
        return unsealed or _identity(self.folder / DATABASE) != self._database


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class _Verification:
    """One verification of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._objects = Objects(folder)
        self._seal = read_seal(folder)
        self._written = is_held(folder)
        self.head = read_head(folder)
        self._is_archived = not (folder / DATABASE).exists() and (folder / ARCHIVED).exists()
        self.records: RecordCheck | None = None
        self._digests: dict[str, str] = {}
        self._findings: list[VerifyFinding] = []
        self._signed = SignedRows()

    def report(self) -> VerifyReport:
        """Do all checks. The files come before the records, and their findings after: only the records tell which rows
        a damaged page or object affects."""
        pages, files = self._against_seal(self._seal) if self._seal else ([], [])
        # Every page of a sealed database is hashed, so its structure needs no check of its own while they all fit.
        records = self.records = self._check_records(thorough=self._seal is None or bool(pages))
        affected = ranges(records.affected())
        self._findings += [VerifyFinding(where, what, affected) for where, what in pages]
        self._findings += [VerifyFinding(path, what, records.rows_with(path)) for path, what in files]
        self._findings += records.findings
        self._check_head(records)
        self._check_log(ranges(records.missing))
        self._check_leftovers(records)
        self._findings += map(_deletion_note, records.deletions)
        signed = self._signed
        self._findings += signed.findings
        return VerifyReport(
            self._folder, records.good, self._seal is not None, tuple(self._findings), signed.entries, signed.signed,
            signed.signers,
        )  # fmt: skip

    def _check_records(self, *, thorough: bool) -> RecordCheck:
        check = RecordCheck(self._folder, self._digest_of_object, self.head)
        try:
            with self._opened() as connection:
                check.run(connection, thorough=thorough)
                if not check.damaged and not check.missing:  # else the records have to be mended first
                    self._signed = SignatureCheck(connection, self._objects.get).run()
        except (SqliteError, LedgerError, ValueError) as error:
            if self._proves_no_damage(error):
                raise
            check.unreadable(str(error))
        return check

    @contextmanager
    def _opened(self) -> Iterator[Connection]:
        """The database; that of an archived volume unpacked, and compared with what it was."""
        if not self._is_archived:
            connection = open_ledger(self._folder, write=False, sealed=self._seal is not None)
            try:
                yield connection
            finally:
                connection.close()
            return
        plain = unpacked_database(self._folder)
        try:
            facts = read_facts(self._folder)
            if facts is not None and plain.sha256 != facts.database:
                self._findings.append(
                    VerifyFinding(ARCHIVED, "what it unpacks to is not the database that was archived")
                )
            connection = open_ledger(plain.folder, write=False, sealed=True)
            try:
                yield connection
            finally:
                connection.close()
        finally:
            plain.remove()

    def _proves_no_damage(self, error: Exception) -> bool:
        """Whether the cause is the disk, or a ledger whose first writer never made its tables."""
        if isinstance(error, SqliteError) and is_of_the_disk(error):
            return True
        return isinstance(error, LedgerError) and self._seal is None and not (self.head and self.head.records)

    # -- against the seal

    def _against_seal(self, seal: Seal) -> tuple[list[_Difference], list[_Difference]]:
        """What differs from the seal: in the database, and in the other files."""
        if not seal.whole:
            self._findings.append(
                VerifyFinding(SEAL, "it is not what was written; so what it says of other files may be wrong")
            )
        present = set(self._all_files())
        # A damaged seal may name files that never were. So its names count only where there is such a file.
        files = [
            (path, what) for path, sha256 in seal.files.items() if (seal.whole or path in present)
            and path != DATABASE and (what := self._differs(path, sha256))
        ]  # fmt: skip
        # The hashes of pages locate a damage in the database, but only while the file of hashes is itself whole.
        pages = self._pages(seal, pages_are_whole=all(path != PAGES for path, _ in files))
        listed = set(seal.files)
        extra = [path for path in self._all_files() if path not in listed and path not in _OWN]
        self._findings += [VerifyFinding(path, "it is not in the seal: it came later", harm=False) for path in extra]
        # The seal does not list these two: they are empty or missing once the ledger is closed.
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

    def _pages(self, seal: Seal, *, pages_are_whole: bool) -> list[_Difference]:
        if self._is_archived:  # its one file is in the seal, like any other
            return []
        if not pages_are_whole or PAGES not in seal.files:
            what = self._differs(DATABASE, seal.files.get(DATABASE, ""))
            return [(DATABASE, what)] if what else []
        return [*self._damaged_pages((self._folder / PAGES).read_bytes())]

    def _damaged_pages(self, hashes: bytes) -> Iterator[_Difference]:
        expected, number = len(hashes) // _HASH_BYTES, 0
        for number, page in enumerate(pages_of(self._folder), 1):
            begin = (number - 1) * PAGE_BYTES
            where = f"{DATABASE}, page {number:,} (bytes {begin:,} to {begin + len(page) - 1:,})"
            if number > expected:
                yield where, "it was not there when the ledger was sealed"
            elif hashlib.sha256(page).digest() != hashes[(number - 1) * _HASH_BYTES : number * _HASH_BYTES]:
                yield where, "it is not as it was sealed"
        if number < expected:
            yield f"{DATABASE}, from byte {number * PAGE_BYTES:,}", f"{expected - number:,} pages are cut off"

    # -- beside the records

    def _check_head(self, records: RecordCheck) -> None:
        """A torn slot alone is no harm in a ledger that was not sealed: the other slot is what was true before."""
        for number, slot in enumerate(slots_of(self._folder)):
            if any(slot) and unpacked(slot) is None:
                where = f"{HEAD}, bytes {number * len(slot)} to {(number + 1) * len(slot) - 1}"
                what = "half-written or damaged; the other half tells how many records there are"
                sealed = self._seal is not None
                self._findings.append(
                    VerifyFinding(where, what if self.head else "damaged", harm=sealed or not self.head)
                )
        if self.head is None:
            what = "nothing tells how many records there should be: records cut off from the end would not be missed"
            self._findings.append(VerifyFinding(HEAD, what, harm=records.good > 0))

    def _check_log(self, missing: tuple[Range, ...]) -> None:
        """A half-written end of the write-ahead log is harm only where rows are missing that the head file counts."""
        for tail in tails(self._folder):
            where = f"{tail.file}, bytes {tail.begin:,} to {tail.end - 1:,}"
            what = f"{tail.what} (its writer is at work)" if self._written else tail.what
            self._findings.append(VerifyFinding(where, what, missing, harm=bool(missing)))

    def _check_leftovers(self, records: RecordCheck) -> None:
        for path in self._all_files():
            if path.endswith(PART):
                self._findings.append(
                    VerifyFinding(path, "a file that was not finished; nothing refers to it", harm=False)
                )
            elif path.startswith(f"{OBJECTS}/") and not records.rows_with(path):
                self._findings.append(VerifyFinding(path, "no record refers to it", harm=False))
            elif not path.startswith(f"{OBJECTS}/") and path not in _OWN and self._seal is None:
                self._findings.append(VerifyFinding(path, "it is no part of a ledger", harm=False))

    # -- files

    def _all_files(self) -> list[str]:
        paths = [path for path in sorted(self._folder.glob("*")) if path.name != VOLUMES]
        inside = (file for path in paths if path.is_dir() for file in sorted(path.rglob("*")))
        files = (path for path in (*paths, *inside) if not path.is_dir())
        return [path.relative_to(self._folder).as_posix() for path in files]

    def _digest_of_object(self, sha256: str) -> str | None:
        path = self._objects.path(sha256)
        try:
            if not path.exists() and (packed := path.with_name(f"{path.name}{PACKED}")).exists():
                return digest_of_packed(packed)
            return self._digest(self._objects.where(sha256))
        except FileNotFoundError:
            return None
        except LedgerDamaged as error:
            return f"not known ({error.why})"

    def _digest(self, path: str) -> str:
        """The SHA-256 of a file, each read once: an object is checked against the seal and against its name."""
        if path not in self._digests:
            self._digests[path] = digest_of(self._folder / path)
        return self._digests[path]


def _deletion_note(deletion: Deletion) -> VerifyFinding:
    rows = tuple((span.first, span.last) for span in deletion.spans)
    return VerifyFinding("deletions", str(deletion), rows, harm=False)

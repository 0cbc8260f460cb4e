"""Verification of a ledger's records, and the report of a verification.

Each record is compared with its checksum, with the chain of links, and with what it refers to (small contents, files in
objects/, the table of parents, the table of outboxes); the end of the chain is compared with the head file.

Promises: every row that can be read is checked, also rows behind one that cannot be read. A row is *damaged* where its
columns are not what was written, and *missing* where it was written and is not there.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ether.errors import DecodeError
from ether.ledger import schema
from ether.ledger.deletions import Deletion, deletions_in
from ether.ledger.head import Head
from ether.ledger.objects import FOLDER as OBJECTS
from ether.ledger.objects import PACKED
from ether.ledger.rows import (
    COLUMNS,
    LARGE_BYTES,
    OutboxState,
    checksum_of,
    link_of,
    outbox_checksum,
)
from ether.ledger.sqlite import DATABASE, Connection, SqliteError
from ether.ledger.volumes import Beginning, beginning_of
from ether.wire.json_text import loads

_PIECE_ROWS = 500
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM entries"
_AT = {name: index for index, name in enumerate(COLUMNS)}
_MOST_LISTED = 100
"""Findings of one kind that are listed."""

# -- the report

Range = tuple[int, int]
"""First and last row."""


@dataclass(frozen=True, slots=True)
class VerifyFinding:
    """Something that is not as it was written, or was not finished."""

    where: str
    """A file of the folder, with the bytes or the page where they are known; or a row."""
    what: str
    records: tuple[Range, ...] = ()
    """The rows that it affects; none where every record still has all that it had."""
    harm: bool = True
    """False for bytes that were never acknowledged and that no record refers to: half-written tails, leftover files."""

    def __str__(self) -> str:
        affected = f" (records {shown(self.records)})" if self.records else ""
        return f"{'damage' if self.harm else 'note'}: {self.where}: {self.what}{affected}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of a verification."""

    folder: Path
    records: int
    """How many rows are as they were written."""
    sealed: bool
    """True where every byte of the folder was verified; otherwise everything that a reader gets was."""
    findings: tuple[VerifyFinding, ...]
    entries: int = 0
    """How many rows are entries of outboxes, which their devices can sign."""
    signed: int = 0
    """How many of these are what a device has signed."""
    signers: tuple[str, ...] = ()
    """These devices, each with its lab."""

    @property
    def signed_text(self) -> str:
        """How much is signed, and by whom, in words."""
        if not self.signed:
            return "unsigned"
        who = ", ".join(self.signers)
        return f"{'all' if self.signed >= self.entries else f'{self.signed:,} of {self.entries:,}'} signed by {who}"

    @property
    def ok(self) -> bool:
        """Whether everything that was acknowledged is as it was written."""
        return not any(finding.harm for finding in self.findings)

    def __str__(self) -> str:
        state = "sealed" if self.sealed else "not sealed"
        verdict = "whole" if self.ok else "DAMAGED"
        title = f"{self.folder}: {verdict}, {self.records:,} records, {state}, {self.signed_text}"
        return "\n".join([title, *(f"  {finding}" for finding in self.findings)])


def ranges(rows: Iterable[int]) -> tuple[Range, ...]:
    """Rows, in any order, as ranges of neighbours."""
    found: list[Range] = []
    for row in sorted(set(rows)):
        if found and row == found[-1][1] + 1:
            found[-1] = (found[-1][0], row)
        else:
            found.append((row, row))
    return tuple(found)


def shown(rows: Iterable[Range], most: int = 10) -> str:
    """Ranges as text, shortened where there are many."""
    texts = [f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in rows]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most:,} more" if len(texts) > most else "")


# -- the verification


class RecordCheck:
    """One verification of a ledger's records. `digest_of` gives the SHA-256 of an object's file, None where there is no
    such file."""

    def __init__(self, folder: Path, digest_of: Callable[[str], str | None], head: Head | None) -> None:
        self._folder, self._digest_of, self._head = folder, digest_of, head
        self.good = 0
        """How many rows are as they were written."""
        self.damaged: set[int] = set()
        self.missing: set[int] = set()
        self.findings: list[VerifyFinding] = []
        self._broken = False
        """Whether the structure of the database is damaged, so that an index may leave out rows."""
        # What the good rows refer to, to be compared with the other tables and files afterwards:
        self._objects: defaultdict[str, list[int]] = defaultdict(list)
        """By the hash of a file in objects/, the rows whose payload it is."""
        self._contents: defaultdict[str, list[int]] = defaultdict(list)
        """The same for payloads in the table `contents`."""
        self._highest: dict[str, int] = {}
        """By outbox the highest number in the records."""
        self._parents: set[tuple[str, int]] = set()
        """Each parent with the row that names it."""
        self._links: list[bytes] = []
        """What the link of the row before may be; see `_follows`."""
        self._link_at_head: bytes | None = None
        """The link of the row that the head file calls the last."""
        self._last_seen = 0

        self.beginning = Beginning(1, 1, b"")
        self.deletions: list[Deletion] = []

    @property
    def last(self) -> int:
        """The last row that the head file or the table knows."""
        return max(self._head.records if self._head else 0, self._last_seen)

    def rows_with(self, path: str) -> tuple[Range, ...]:
        """The rows that refer to an object's file."""
        return (
            ranges(self._objects.get(path.rpartition("/")[2].removesuffix(PACKED), ()))
            if path.startswith(f"{OBJECTS}/")
            else ()
        )

    def affected(self) -> set[int]:
        """Every row that a finding affects."""
        return {row for finding in self.findings for first, last in finding.records for row in range(first, last + 1)}

    def unreadable(self, why: str) -> None:
        """The database cannot be read any further; every row that was not seen counts as missing."""
        last = max(self._head.records if self._head else 0, self.good)
        seen = self.good + len(self.damaged) + sum(deletion.rows for deletion in self.deletions)
        self.missing.update(range(self.beginning.first + seen, last + 1))
        self.findings.append(VerifyFinding(DATABASE, f"it cannot be read: {why}", ranges(self.missing)))

    def run(self, connection: Connection, *, thorough: bool) -> None:
        """Check everything; `thorough`: also the structure of the database. Raises `SqliteError` where the database
        cannot be read any further, `LedgerError` where it is no ledger that can be read."""
        schema.check_version(connection, self._folder)
        meta = schema.meta_of(connection)
        connection.execute("BEGIN")  # so that all queries see one state, while a writer may append
        if thorough:
            self._check_structure(connection)
        self.beginning = beginning_of(meta)
        self.deletions = deletions_in(connection)
        self._links = [self.beginning.follows]
        if self._head and self._head.records == self.beginning.first - 1:
            self._link_at_head = self._links[0]
        self._check_deletions()
        gone = {span.first: span for deletion in self.deletions for span in deletion.spans}
        behind = 0
        for row, values in self._rows(connection):
            if row in gone:
                behind, self._links = gone[row].last, [gone[row].link]
                if self._head and self._head.records == behind:
                    self._link_at_head = gone[row].link
            if row > behind:
                self._check_row(row, values)
        self._report(self.damaged, "what the record says is not what was written")
        self._report(self.missing, "the record is missing")
        self._check_contents(connection)
        self._check_objects()
        self._check_outboxes(connection)
        self._check_parents(connection)
        self._check_end()

    def _report(self, rows: set[int], what: str) -> None:
        for first, last in ranges(rows)[:_MOST_LISTED]:
            where = f"row {first:,}" if first == last else f"rows {first:,} to {last:,}"
            self.findings.append(VerifyFinding(f"{DATABASE}, {where}", what, ((first, last),)))

    def _check_structure(self, connection: Connection) -> None:
        try:
            lines = [str(line) for (line,) in connection.execute(f"PRAGMA integrity_check({_MOST_LISTED})")]
        except SqliteError as error:
            lines = [str(error)]
        for line in lines:
            if line != "ok":
                self._broken = True
                page = re.search(r"page (\d+)", line)
                where = f"{DATABASE}, page {page[1]}" if page else DATABASE
                self.findings.append(VerifyFinding(where, f"its structure is damaged: {' '.join(line.split())}"))

    def _check_deletions(self) -> None:
        for deletion in self.deletions:
            if not deletion.whole:
                what = "what it says of a deletion is not what was written"
                self.findings.append(VerifyFinding(f"{DATABASE}, deletions", what))

    # -- rows

    def _rows(self, connection: Connection) -> Iterator[tuple[int, tuple[Any, ...] | None]]:
        """Each row from 1 to the last one that the table or the head file knows; None for a row that cannot be read or
        is not there."""
        self._last_seen = self._last_row(connection)
        last = self.last
        for begin in range(self.beginning.first, last + 1, _PIECE_ROWS):
            end = min(begin + _PIECE_ROWS - 1, last)
            found = self._piece(connection, begin, end)
            for row in range(begin, end + 1):
                yield row, found.get(row)

    def _last_row(self, connection: Connection) -> int:
        try:
            return int(connection.execute("SELECT coalesce(max(row), 0) FROM records").fetchone()[0])
        except (SqliteError, TypeError, ValueError):
            return 0

    def _piece(self, connection: Connection, begin: int, end: int) -> dict[int, tuple[Any, ...]]:
        """The rows from `begin` to `end`. In a damaged tree a scan may skip rows without an error, or stop at the first
        bad page. So each row is then looked up by itself, which loses only what is on a bad page."""
        if self._broken:
            return dict(self._one_by_one(connection, begin, end))
        try:
            found = connection.execute(f"{_SELECT} WHERE row BETWEEN ? AND ?", (begin, end))
            return {row[0]: row for row in found}
        except SqliteError:
            return dict(self._one_by_one(connection, begin, end))

    def _one_by_one(self, connection: Connection, begin: int, end: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        for row in range(begin, end + 1):
            try:
                values = connection.execute(f"{_SELECT} WHERE row = ?", (row,)).fetchone()
            except SqliteError:
                self.damaged.add(row)
                continue
            if values:
                yield row, values

    def _check_row(self, row: int, values: tuple[Any, ...] | None) -> None:
        if values is None:
            if row not in self.damaged:
                self.missing.add(row)
            self._links = []
            return
        _, *columns, body, checksum, link = values
        try:
            follows = self._follows(checksum, link)
            right = follows and isinstance(link, bytes) and checksum_of(columns, body) == checksum
        except (TypeError, ValueError):  # a damaged column may hold a value of another type
            right, self._links = False, []
        if not right:
            self.damaged.add(row)
            return
        self.good += 1
        if self._head and row == self._head.records:
            self._link_at_head = link
        self._note_references(row, values)

    def _follows(self, checksum: bytes, link: bytes) -> bool:
        """Whether the row's link follows from the link of the row before.

        One damaged link must not condemn all rows after it. So after a wrong link two candidates go on: the link that
        stands in the row (the checksum may be the damaged part), and the link that the checksum gives (the link may
        be). The next row settles it, because its link follows from the true one alone. After a missing row there is no
        candidate; then the link is taken as it stands, and the row's checksum alone decides.
        """
        links = [link_of(before, checksum) for before in self._links]
        right = link in links or not links
        self._links = [link] if right else [*links, link]
        return right

    def _note_references(self, row: int, values: tuple[Any, ...]) -> None:
        sha256, outbox = values[_AT["sha256"]], values[_AT["outbox"]]
        if sha256 is not None:
            (self._objects if values[_AT["size"]] > LARGE_BYTES else self._contents)[sha256].append(row)
        if outbox:
            self._highest[outbox] = _last_number(values)
        try:
            self._parents.update((str(parent), row) for parent in set(_list(values[_AT["parents"]])))
        except DecodeError:
            self.damaged.add(row)

    # -- what rows refer to

    def _check_contents(self, connection: Connection) -> None:
        present = set()
        for (sha256,) in self._table(connection, "SELECT sha256 FROM contents"):
            present.add(sha256)
            payload = self._table(connection, "SELECT payload FROM contents WHERE sha256 = ?", sha256)
            if not payload or hashlib.sha256(payload[0][0]).hexdigest() != sha256:
                rows = ranges(self._contents.get(sha256, ()))
                self.findings.append(
                    VerifyFinding(f"{DATABASE}, content {sha256}", "it is not what its hash says", rows)
                )
        for sha256 in self._contents.keys() - present:
            what = "it is missing"
            self.findings.append(VerifyFinding(f"{DATABASE}, content {sha256}", what, ranges(self._contents[sha256])))

    def _check_objects(self) -> None:
        for sha256, rows in self._objects.items():
            found = self._digest_of(sha256)
            if found != sha256:
                what = (
                    "the file is missing" if found is None else f"it is not what its name says: its SHA-256 is {found}"
                )
                self.findings.append(VerifyFinding(f"{OBJECTS}/{sha256[:2]}/{sha256}", what, ranges(rows)))

    def _check_outboxes(self, connection: Connection) -> None:
        known = set()
        for outbox, *state, checksum in self._table(connection, "SELECT * FROM outboxes"):
            known.add(outbox)
            written = OutboxState(*state)
            if outbox_checksum(outbox, written) != checksum:
                what = "its state is not what was written"
            elif self._lacks(outbox, written.highest):
                what = f"it should be here up to {written.highest:,}, and is up to {self._highest.get(outbox, 0):,}"
            else:
                continue
            self.findings.append(VerifyFinding(f"{DATABASE}, outbox {outbox}", what))
        for outbox in self._highest.keys() - known:
            self.findings.append(VerifyFinding(f"{DATABASE}, outbox {outbox}", "its state is missing"))

    def _lacks(self, outbox: str, highest: int) -> bool:
        """Whether records of an outbox are missing at the end. Of one that has none here, a volume that continues
        another one tells how far it had come before."""
        if self.damaged or self.missing or self.deletions:
            return False
        found = self._highest.get(outbox, 0)
        return found != highest and not (self.beginning.volume > 1 and not found)

    def _check_parents(self, connection: Connection) -> None:
        found = set(self._table(connection, "SELECT parent, row FROM parents"))
        # Pairs that only one side has. Those of damaged and missing rows have a finding already.
        affected = {row for _, row in self._parents ^ found if isinstance(row, int)} - self.damaged - self.missing
        if affected:
            what = "the table of parents is not what the records say"
            self.findings.append(VerifyFinding(f"{DATABASE}, parents", what, ranges(affected)))

    def _check_end(self) -> None:
        if self._head and self._link_at_head and self._link_at_head.hex() != self._head.link and not self.damaged:
            what = (
                "the chain does not lead to what the head file says: records were exchanged, with all links after them"
            )
            self.findings.append(
                VerifyFinding(f"{DATABASE}, row {self._head.records:,}", what, ((1, self._head.records),))
            )

    def _table(self, connection: Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query as far as they can be read; where they cannot all be, that is a finding."""
        found: list[tuple[Any, ...]] = []
        try:
            found.extend(connection.execute(query, values))
        except SqliteError as error:
            self.findings.append(VerifyFinding(f"{DATABASE}, {query.split(' FROM ')[1].split()[0]}", str(error)))
        return found


def _last_number(values: tuple[Any, ...]) -> int:
    if values[_AT["kind"]] == "gap":
        more = loads(values[_AT["more"]], strict=True)
        if isinstance(more, dict) and isinstance(more.get("last"), int):
            return int(more["last"])
    return int(values[_AT["number"]])


def _list(text: str) -> list[object]:
    parents = loads(text, strict=True)
    return parents if isinstance(parents, list) else []

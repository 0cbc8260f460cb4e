"""The records of a ledger against their checksums, the chain, what they refer to, and the count in the head file.

Promises: looks at every row that can be read, also behind one that cannot. A row is damaged where what it says is not
what was written, missing where it was written and is not there.
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
from ether.ledger.head import Head
from ether.ledger.objects import FOLDER as OBJECTS
from ether.ledger.rows import (
    COLUMNS,
    LARGE_BYTES,
    OutboxState,
    checksum_of,
    first_link,
    link_of,
    outbox_checksum,
)
from ether.ledger.sqlite import DATABASE, Connection, SqliteError
from ether.wire.json_text import loads

Range = tuple[int, int]
"""First and last row."""


@dataclass(frozen=True, slots=True)
class VerifyFinding:
    """Something that is not as it was written, or was not finished."""

    where: str
    """A file of the folder, with the bytes or the page where they are known; or a row."""
    what: str
    records: tuple[Range, ...] = ()
    """The rows that are concerned; none where no record says less than it did."""
    harm: bool = True
    """False for what was never acknowledged and never referred to: half-written tails, leftover files."""

    def __str__(self) -> str:
        concerned = f" (records {shown(self.records)})" if self.records else ""
        return f"{'damage' if self.harm else 'note'}: {self.where}: {self.what}{concerned}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """All that was found in a ledger."""

    folder: Path
    records: int
    """Rows that are there and say what was written."""
    sealed: bool
    """Whether the seal covers every byte of the folder; without it, everything that the records say."""
    findings: tuple[VerifyFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing that was acknowledged is hurt."""
        return not any(finding.harm for finding in self.findings)

    def __str__(self) -> str:
        state = "sealed" if self.sealed else "not sealed"
        verdict = "whole" if self.ok else "DAMAGED"
        told = f"{self.folder}: {verdict}, {self.records:,} records, {state}"
        return "\n".join([told, *(f"  {finding}" for finding in self.findings)])


def ranges(rows: Iterable[int]) -> tuple[Range, ...]:
    """Rows as ranges."""
    found: list[Range] = []
    for row in sorted(set(rows)):
        if found and row == found[-1][1] + 1:
            found[-1] = (found[-1][0], row)
        else:
            found.append((row, row))
    return tuple(found)


def shown(rows: Iterable[Range], most: int = 10) -> str:
    """Ranges as people read them, shortened where there are many."""
    told = [f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in rows]
    return ", ".join(told[:most]) + (f" and {len(told) - most:,} more" if len(told) > most else "")


_PIECE_ROWS = 500
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM entries"
_AT = {name: index for index, name in enumerate(COLUMNS)}
_MOST_TOLD = 100


class RecordCheck:
    """One look at the records of a ledger. `digest_of` gives the SHA-256 of an object's file."""

    def __init__(self, folder: Path, digest_of: Callable[[str], str | None], head: Head | None) -> None:
        self._folder, self._digest_of, self._head = folder, digest_of, head
        self.good = 0
        self._broken = False
        self.damaged: set[int] = set()
        self.missing: set[int] = set()
        self.findings: list[VerifyFinding] = []
        self._objects: defaultdict[str, list[int]] = defaultdict(list)
        self._contents: defaultdict[str, list[int]] = defaultdict(list)
        self._highest: dict[str, int] = {}
        self._parents: set[tuple[str, int]] = set()
        self._links: list[bytes] = []
        self._link_at_head: bytes | None = None

    def rows_with(self, path: str) -> tuple[Range, ...]:
        """The rows that refer to an object's file."""
        return ranges(self._objects.get(path.rpartition("/")[2], ())) if path.startswith(f"{OBJECTS}/") else ()

    def concerned(self) -> set[int]:
        """Every row that a finding is about."""
        return {row for finding in self.findings for first, last in finding.records for row in range(first, last + 1)}

    def unreadable(self, why: str) -> None:
        """The database cannot be read on; every row that was not seen is concerned."""
        last = max(self._head.records if self._head else 0, self.good)
        self.missing.update(range(self.good + len(self.damaged) + 1, last + 1))
        self.findings.append(VerifyFinding(DATABASE, f"it cannot be read: {why}", ranges(self.missing)))

    def look(self, connection: Connection, *, thorough: bool) -> None:
        """Look at everything; `thorough`: also at the structure of the database. Raises `SqliteError` where it cannot
        go on, `LedgerError` where this is no ledger that can be read."""
        schema.check_version(connection, self._folder)
        meta = schema.meta_of(connection)
        connection.execute("BEGIN")  # one state of a ledger that is being written
        if thorough:
            self._structure(connection)
        self._links = [first_link(meta.get("session", ""), meta.get("created", ""))]
        self._link_at_head = self._links[0]
        for row, values in self._rows(connection):
            self._look_at(row, values)
        self._tell(self.damaged, "what the record says is not what was written")
        self._tell(self.missing, "the record is missing")
        self._look_at_contents(connection)
        self._look_at_objects()
        self._look_at_outboxes(connection)
        self._look_at_parents(connection)
        self._look_at_end()

    def _tell(self, rows: set[int], what: str) -> None:
        for first, last in ranges(rows)[:_MOST_TOLD]:
            where = f"row {first:,}" if first == last else f"rows {first:,} to {last:,}"
            self.findings.append(VerifyFinding(f"{DATABASE}, {where}", what, ((first, last),)))

    def _structure(self, connection: Connection) -> None:
        try:
            told = [str(line) for (line,) in connection.execute(f"PRAGMA integrity_check({_MOST_TOLD})")]
        except SqliteError as error:
            told = [str(error)]
        for line in told:
            if line != "ok":
                self._broken = True
                page = re.search(r"page (\d+)", line)
                where = f"{DATABASE}, page {page[1]}" if page else DATABASE
                self.findings.append(VerifyFinding(where, f"its structure is damaged: {' '.join(line.split())}"))

    def _rows(self, connection: Connection) -> Iterator[tuple[int, tuple[Any, ...] | None]]:
        """Each row from 1 to the last that is known of, None for one that cannot be read or is not there."""
        last = max(self._last_row(connection), self._head.records if self._head else 0)
        for begin in range(1, last + 1, _PIECE_ROWS):
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
        asked = f"{_SELECT} WHERE row BETWEEN ? AND ?"
        if self._broken:  # what a scan still finds a search may not
            return dict(self._one_by_one(connection, begin, end))
        try:
            return {row[0]: row for row in connection.execute(asked, (begin, end))}
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

    def _look_at(self, row: int, values: tuple[Any, ...] | None) -> None:
        if values is None:
            if row not in self.damaged:
                self.missing.add(row)
            self._links = []
            return
        _, *said, body, checksum, link = values
        try:
            follows = self._follows(checksum, link)
            right = follows and checksum_of(said, body) == checksum
        except (TypeError, ValueError):
            right, self._links = False, []
        if not right:
            self.damaged.add(row)
            return
        self.good += 1
        if self._head and row == self._head.records:
            self._link_at_head = link
        self._remember(row, values)

    def _follows(self, checksum: bytes, link: bytes) -> bool:
        """Whether the link is right, given that of the row before as it should be, or as it stands there. After a row
        that is missing nothing can be said."""
        links = [link_of(before, checksum) for before in self._links]
        right = link in links or not links
        self._links = [link] if right else [*links, link]
        return right

    def _remember(self, row: int, values: tuple[Any, ...]) -> None:
        sha256, outbox = values[_AT["sha256"]], values[_AT["outbox"]]
        if sha256 is not None:
            (self._objects if values[_AT["size"]] > LARGE_BYTES else self._contents)[sha256].append(row)
        if outbox:
            self._highest[outbox] = _last_number(values)
        try:
            self._parents.update((str(parent), row) for parent in set(_list(values[_AT["parents"]])))
        except DecodeError:
            self.damaged.add(row)

    def _look_at_contents(self, connection: Connection) -> None:
        there = set()
        for (sha256,) in self._table(connection, "SELECT sha256 FROM contents"):
            there.add(sha256)
            payload = self._table(connection, "SELECT payload FROM contents WHERE sha256 = ?", sha256)
            if not payload or hashlib.sha256(payload[0][0]).hexdigest() != sha256:
                rows = ranges(self._contents.get(sha256, ()))
                self.findings.append(
                    VerifyFinding(f"{DATABASE}, content {sha256}", "it is not what its hash says", rows)
                )
        for sha256 in self._contents.keys() - there:
            what = "it is missing"
            self.findings.append(VerifyFinding(f"{DATABASE}, content {sha256}", what, ranges(self._contents[sha256])))

    def _look_at_objects(self) -> None:
        for sha256, rows in self._objects.items():
            found = self._digest_of(sha256)
            if found != sha256:
                what = (
                    "the file is missing" if found is None else f"it is not what its name says: its SHA-256 is {found}"
                )
                self.findings.append(VerifyFinding(f"{OBJECTS}/{sha256[:2]}/{sha256}", what, ranges(rows)))

    def _look_at_outboxes(self, connection: Connection) -> None:
        known = set()
        for outbox, *state, checksum in self._table(connection, "SELECT * FROM outboxes"):
            known.add(outbox)
            told = OutboxState(*state)
            if outbox_checksum(outbox, told) != checksum:
                what = "what is said of it is not what was written"
            elif told.highest != self._highest.get(outbox, 0) and not (self.damaged or self.missing):
                what = f"it should be here up to {told.highest:,}, and is up to {self._highest.get(outbox, 0):,}"
            else:
                continue
            self.findings.append(VerifyFinding(f"{DATABASE}, outbox {outbox}", what))
        for outbox in self._highest.keys() - known:
            self.findings.append(VerifyFinding(f"{DATABASE}, outbox {outbox}", "nothing is said of it any more"))

    def _look_at_parents(self, connection: Connection) -> None:
        found = set(self._table(connection, "SELECT parent, row FROM parents"))
        concerned = {row for _, row in self._parents ^ found if isinstance(row, int)} - self.damaged - self.missing
        if concerned:
            what = "the table of parents is not what the records say"
            self.findings.append(VerifyFinding(f"{DATABASE}, parents", what, ranges(concerned)))

    def _look_at_end(self) -> None:
        if self._head and self._link_at_head and self._link_at_head.hex() != self._head.link and not self.damaged:
            what = (
                "the chain does not lead to what the head file says: records were exchanged, with all links after them"
            )
            self.findings.append(
                VerifyFinding(f"{DATABASE}, row {self._head.records:,}", what, ((1, self._head.records),))
            )

    def _table(self, connection: Connection, asked: str, *values: object) -> list[tuple[Any, ...]]:
        """What can be read; where that is not all, that is a finding."""
        found: list[tuple[Any, ...]] = []
        try:
            found.extend(connection.execute(asked, values))
        except SqliteError as error:
            self.findings.append(VerifyFinding(f"{DATABASE}, {asked.split(' FROM ')[1].split()[0]}", str(error)))
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

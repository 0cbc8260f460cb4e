"""What a verification has found: where, what, and which records it concerns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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

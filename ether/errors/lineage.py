"""Errors of provenance queries; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

from collections.abc import Iterable

from ether.errors.base import EtherError


class NotRecorded(EtherError, LookupError):
    """`wanted` means no record of the ledger, or several; `why` says which, and what would be valid."""

    def __init__(self, wanted: str, why: str) -> None:
        self.wanted, self.why = wanted, why
        super().__init__(f"{wanted!r:.80} is not a record of this ledger: {why}")


class NoSuchRun(EtherError, LookupError):
    """A run that is not in the ledger of this `folder`. `existing` are the runs that are."""

    def __init__(self, run: str, folder: object, existing: Iterable[str]) -> None:
        self.run, self.folder, self.existing = run, folder, tuple(existing)
        there = f"there are: {', '.join(self.existing[-20:])}" if self.existing else "none was recorded"
        super().__init__(f"there is no run {run!r} in {folder}; {there}")

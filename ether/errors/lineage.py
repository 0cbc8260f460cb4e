"""Errors of provenance queries; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ether.errors.base import EtherError


class NotRecorded(EtherError, LookupError):
    """`wanted` means no record of the ledger, or several; `why` says which, and what would be valid."""

    def __init__(self, wanted: str, why: str) -> None:
        self.wanted, self.why = wanted, why
        super().__init__(f"{wanted!r:.80} is not a record of this ledger: {why}")


class NoSuchRun(EtherError, LookupError):
    """A run that is not in the ledger of this `folder`. `existing` are the runs that are, `nearest` the one that was
    probably meant."""

    def __init__(self, run: str, folder: object, existing: Iterable[str]) -> None:
        self.run, self.folder, self.existing = run, folder, tuple(existing)
        there = f"there are: {', '.join(self.existing[-20:])}" if self.existing else "none was recorded"
        names = dict.fromkeys([*self.existing, *(known.rpartition("/")[0] or known for known in self.existing)])
        self.nearest = next(iter(difflib.get_close_matches(run, list(names), n=1)), None)
        hint = f". Did you mean {self.nearest!r}?" if self.nearest else ""
        super().__init__(f"there is no run {run!r} in {folder}; {there}{hint}")


class NotAnInput(EtherError, TypeError):
    """`given` to `ether.made_of()` as an input has no id."""

    def __init__(self, given: object) -> None:
        self.given = given
        super().__init__(
            f"ether.made_of() cannot record that a value is made of {given!r:.80}, a {type(given).__name__}: it has no"
            " id. Give ids, messages (ether.message()), records (ether.data()), or what ether.inputs() has collected"
        )

"""Errors of reading and exporting records; the whole tree is drawn in `ether.errors`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ether.errors.base import EtherError


class NoLedger(EtherError, LookupError):
    """There is no ledger of this name or in this folder. `existing` are the sessions that have one."""

    def __init__(self, wanted: str | None, place: Path, existing: Sequence[str] = ()) -> None:
        self.wanted, self.place, self.existing = wanted, place, tuple(existing)
        nearest = difflib.get_close_matches(wanted or "", self.existing, n=1)
        what = "nothing has been recorded yet" if wanted is None else f"nothing is recorded of {wanted!r}"
        there = f" There are ledgers of: {', '.join(self.existing[:20])}." if self.existing else ""
        meant = f" Did you mean {nearest[0]!r}?" if nearest else ""
        how = " `record: all` in the configuration, ether run --record, or ether.record(value, name), records."
        how = "" if self.existing else how
        super().__init__(f"{what}: no ledger in {place}.{how}{there}{meant}")


class SeveralLedgers(EtherError, LookupError):
    """One session has ledgers in several folders; `places` lists them."""

    def __init__(self, session: str, places: Sequence[Path]) -> None:
        self.session, self.places = session, tuple(places)
        listed = ", ".join(map(str, self.places))
        super().__init__(
            f"session {session!r} has several ledgers: {listed}. Give the folder of the one that you mean."
        )


class MissingExtra(EtherError, ImportError):
    """A library that is needed and not installed; `extra` is the extra of the distribution that installs it."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        self.what, self.library, self.extra = what, library, extra
        super().__init__(f"{what} needs {library}, which is not installed: pip install 'ether-medium[{extra}]'")


class ExportFailed(EtherError, ValueError):
    """Records that cannot be written in the requested format."""


class ExportUnwritable(EtherError, OSError):
    """A file that cannot be written. No part of it is left, and an older file of that name is unchanged."""

    def __init__(self, path: Path, why: OSError) -> None:
        self.path, self.why = path, why
        Exception.__init__(self, f"cannot write {path}: {why.strerror or why}")

    def __str__(self) -> str:
        return str(self.args[0])


class QueryMistake(EtherError, ValueError):
    """A condition or a point in time that cannot be parsed."""

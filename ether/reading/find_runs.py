"""Runs of all of a user's ledgers, found by what was said of them: `animal == 7`, `since` three weeks ago.

Promise: a ledger that cannot be read hides no other one; the log names it. The trap: a run is looked for by its
metadata first, then by the names of its own facts (`run`, `name`, `session`, `status`), so metadata called `status`
hides the fact.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.errors import LedgerError, NoLedger
from ether.ledger.places import data_folder, find_ledger, list_ledgers
from ether.ledger.reader import LedgerReader
from ether.log import get_ether_logger
from ether.protocol.run_record import RUNNING, RunState
from ether.reading.columns import Columns, metadata_cells
from ether.reading.filter_rules import Moment, Where, moment_of, predicate_of
from ether.reading.run_facts import runs_in, status_now
from ether.reading.tables.pandas import check_library, frame_of
from ether.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

logger = get_ether_logger("data")

Sessions = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A session's name, a pattern of names (`animal7*`), a ledger's folder, or several of these."""

_PATTERN = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A named run of one ledger. Times in unix seconds."""

    run: str
    """Its id, `name/N`."""
    name: str
    session: str
    folder: Path
    """The ledger."""
    status: str
    begun: float
    ended: float | None
    """None where it has no end."""
    last: float
    """When something of it was last noted."""
    trials: int
    """How many there are to be, as far as is known."""
    trials_done: int
    error: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """By which it is looked for."""
        own = {"run": self.run, "name": self.name, "session": self.session, "status": self.status}
        return {**own, "trials": self.trials, "trials_done": self.trials_done, "error": self.error, **self.metadata}

    @property
    def duration_s(self) -> float | None:
        """How long it took, in seconds; of a run that has no end, up to its last fact; None where that is before its
        beginning, or it goes on."""
        end = self.ended if self.ended is not None else None if self.status == RUNNING else self.last
        return None if end is None or end < self.begun else end - self.begun

    def cells(self) -> dict[str, Any]:
        """Its cells in a table."""
        own = {"time": self.begun, "session": self.session, "run": self.run, "status": self.status,
               "duration_s": self.duration_s, "trials": self.trials, "trials_done": self.trials_done}  # fmt: skip
        return {**own, **metadata_cells(self.metadata)}


class Runs(list[FoundRun]):
    """Runs, in the order in which they began."""

    def to_pandas(self) -> pd.DataFrame:
        """A table with a row for each run: `time` (its beginning, UTC), `session`, `run`, `status`, `duration_s`,
        `trials`, `trials_done`, and a column `run.KEY` for each key of the metadata. Raises `MissingExtra` without
        pandas."""
        check_library()
        columns, rows = Columns(), [run.cells() for run in self]
        for row in rows:
            columns.take(row)
        return frame_of(rows, columns.forms(), {"ether": VERSION})


def find_runs(
    wanted: Sessions | None, where: Where | None, since: Moment | None, until: Moment | None, *, now: float,
    environment: Mapping[str, str],
) -> Runs:  # fmt: skip
    """The named runs that fit, in the order in which they began. `wanted` None: of all ledgers. A run fits `since` and
    `until` where some of it lies between them. Raises `NoLedger`, `SeveralLedgers`, `QueryMistake`."""
    fits = predicate_of(where)
    after, before = moment_of(since, now, "since"), moment_of(until, now, "until")
    found = Runs()
    for folder in ledgers_of(wanted, environment):
        try:
            runs = _runs_of(folder)
        except LedgerError as error:
            logger.warning("the runs of a ledger are left out: %s", error)
            continue
        for run in runs:
            end = now if run.status == RUNNING else max(run.last, run.ended or 0.0, run.begun)
            is_in_time = (after is None or end >= after) and (before is None or run.begun <= before)
            if is_in_time and (fits is None or fits(run.facts())):
                found.append(run)
    found.sort(key=lambda run: run.begun)
    return found


def ledgers_of(wanted: Sessions | None, environment: Mapping[str, str]) -> list[Path]:
    """The folders of these ledgers, each once; None: of all of this user that are found by name. Raises `NoLedger`,
    `SeveralLedgers`."""
    if wanted is None:
        return [place.folder for place in list_ledgers(environment)]
    each = [wanted] if isinstance(wanted, (str, os.PathLike)) else list(wanted)
    return list(dict.fromkeys(folder for one in each for folder in _folders(one, environment)))


def is_pattern(wanted: object) -> bool:
    """Whether a session is meant by a pattern of names."""
    return isinstance(wanted, str) and os.sep not in wanted and not _PATTERN.isdisjoint(wanted)


def _folders(wanted: str | os.PathLike[str], environment: Mapping[str, str]) -> list[Path]:
    if not is_pattern(wanted):
        return [find_ledger(wanted, environment)]
    places = list_ledgers(environment)
    found = [place.folder for place in places if fnmatch.fnmatchcase(place.session, str(wanted))]
    if not found:
        raise NoLedger(str(wanted), data_folder(environment), [place.session for place in places])
    return found


def _runs_of(folder: Path) -> Iterable[FoundRun]:
    with LedgerReader.open(folder) as reader:
        return [_found(state, reader.session, folder) for state in runs_in(reader).values()]


def _found(state: RunState, session: str, folder: Path) -> FoundRun:
    return FoundRun(
        state.id, state.name or state.id.rpartition("/")[0], session, folder, status_now(state), state.begun,
        state.ended, state.last, state.planned, len(state.done), state.error, dict(state.metadata),
    )  # fmt: skip

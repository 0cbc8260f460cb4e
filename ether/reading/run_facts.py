"""The named runs of a ledger: their state, put together from the recorded facts; and the records of a run's trials.

The trap: another version of Ether may have recorded facts that this one cannot read. They are skipped, and logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ether.errors import PayloadError, QueryMistake
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.log import get_ether_logger
from ether.protocol.run_record import ABORTED, RUNNING, RunState, replay
from ether.reading.data import Data
from ether.system.process_owner import is_dead_here
from ether.wire.run_ids import latest

logger = get_ether_logger("data")

WhichTrials = int | Sequence[int] | Literal["all"]
"""A trial, several, or all of a run."""


def runs_in(reader: LedgerReader, run: str | None = None) -> dict[str, RunState]:
    """The state of each named run (or of `run` alone) by its id, in the order in which the runs began."""
    return replay(_facts(reader, run))


def status_now(state: RunState) -> str:
    """The status as recorded, or `aborted` where the run has no end and its program has ended on this machine. The next
    run of the ledger records that end."""
    return ABORTED if state.status == RUNNING and is_dead_here(state.owner) else state.status


def of_run(data: Data, trial: WhichTrials | None) -> Data:
    """The same records, with the run's name resolved: `dose` means the last run of that name, `dose/2` the second.
    With `trial`, only the records of these trials, if they are done, and of each only the attempt that counts; those of
    the trials inside of them are among them. Raises `QueryMistake`."""
    name = data.query.run
    if name is None:
        if trial is None:
            return data
        raise QueryMistake("trial= needs run=, the run whose trials are meant")
    with LedgerReader.open(data.folder) as reader:
        recorded = [summary.run for summary in reader.runs()]
        run = name if name in recorded else latest(name, recorded) or name
        attempts = None if trial is None else _attempts(runs_in(reader, run).get(run), run, trial)
    said = data.query.said if trial is None else {**data.query.said, "trial": _text_of(trial)}
    return Data(data.folder, replace(data.query, run=run, attempts=attempts, said=said))


def _attempts(state: RunState | None, run: str, wanted: WhichTrials) -> dict[int, int]:
    """By trial the attempt that counts."""
    if state is None:
        raise QueryMistake(f"{run!r} is no named run of this ledger, so it has no trials")
    counts = {number: found.counts for number, found in state.trials.items() if found.counts is not None}
    if wanted == "all":
        return counts  # with those inside of others
    numbers = [wanted] if isinstance(wanted, int) else list(wanted)
    for number in numbers:
        if number not in counts:
            raise QueryMistake(f"trial {number!r} of run {run!r} is not done; {_done_text(counts)}")
    wanted_too = state.with_nested(number for number in numbers if isinstance(number, int))
    return {number: counts[number] for number in wanted_too if number in counts}


def _text_of(trial: WhichTrials) -> str:
    return str(trial) if isinstance(trial, (int, str)) else ", ".join(map(str, trial))


def _done_text(counts: Mapping[int, int]) -> str:
    return f"done are {', '.join(map(str, sorted(counts)))}" if counts else "none is"


def _facts(reader: LedgerReader, run: str | None) -> Iterator[tuple[str, float, Mapping[str, Any]]]:
    for record in reader.records(RecordFilter(kinds=("run",), topic=None if run is None else f"{run}/#")):
        try:
            value = record.value
        except PayloadError as error:
            logger.warning("the fact in row %d of %s cannot be read: %s", record.row, reader.folder, error)
            continue
        if isinstance(value, dict):
            yield record.topic, record.time, value

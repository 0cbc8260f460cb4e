"""`ether find`: the runs of all ledgers whose metadata fits, with the metadata as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from ether.cli.arguments import shown_value
from ether.cli.data.recorded import find_by_words, shown_time
from ether.cli.options import Json
from ether.cli.output import print_json, print_table, to_json
from ether.reading.find_runs import FoundRun
from ether.runs.trial_rules import duration_text
from ether.system.clock import wall_time

_COLUMNS = {
    "session": "SESSION", "run": "RUN", "status": "STATUS", "done": "TRIALS", "begun": "BEGUN", "took": "TOOK",
}  # fmt: skip


def find(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORD", help="animal=7, dose>2, status=ended, since=3w, until=2026-01-16."),
    ] = None,
    ledger: Annotated[
        str | None, typer.Option("--in", metavar="LEDGER", help="In these ledgers alone: a name, a pattern, a folder.")
    ] = None,
    json: Json = False,
) -> None:
    """Find runs by what was said of them when they began, in all ledgers of this user."""
    found = find_by_words(words or (), ledger, wall_time())
    if json:
        print_json([run_to_json(run) for run in found])
        return
    columns = {**_COLUMNS, **metadata_columns(run.metadata for run in found)}
    print_table([_shown(run) for run in found], columns, nothing="no run fits")


def run_to_json(run: FoundRun) -> dict[str, Any]:
    """A run as JSON data."""
    return {
        "session": run.session, "run": run.run, "ledger": str(run.folder), "status": run.status, "begun": run.begun,
        "ended": run.ended, "duration_s": run.duration_s, "trials": run.trials, "trials_done": run.trials_done,
        "error": run.error, "metadata": to_json(dict(run.metadata)),
    }  # fmt: skip


def metadata_columns(each: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A column for each key of the metadata of runs, in the order in which they appear."""
    return {f"metadata {key}": key for metadata in each for key in metadata}


def metadata_shown(metadata: Mapping[str, Any]) -> dict[str, object]:
    """The cells of these columns."""
    return {
        f"metadata {key}": cell if isinstance(cell, str) else shown_value(to_json(cell), 60)
        for key, cell in metadata.items()
    }


def _shown(run: FoundRun) -> dict[str, object]:
    return {
        "session": run.session, "run": run.run, "status": run.status, "done": f"{run.trials_done} of {run.trials}",
        "begun": shown_time(run.begun)[:19],
        "took": "" if run.duration_s is None else duration_text(run.duration_s), **metadata_shown(run.metadata),
    }  # fmt: skip
